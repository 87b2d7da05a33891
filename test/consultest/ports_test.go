package consultest

import (
	"net"
	"sync"
	"testing"
)

// Agents of concurrent processes do not get ports of each other, also while one does not run.
func TestPortsAreReservedUntilTheyAreGivenBack(t *testing.T) {
	const agents = 100
	var mu sync.Mutex // guards the next
	firsts := make(map[int]bool)
	var all sync.WaitGroup
	for range agents {
		all.Go(func() {
			p, reserved, err := reserve(0)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { reserved.Close() })
			mu.Lock()
			defer mu.Unlock()
			firsts[p.HTTP-1] = true
		})
	}
	all.Wait()
	if len(firsts) != agents {
		t.Errorf("%d agents have %d blocks of ports", agents, len(firsts))
	}
	for first := range firsts {
		if reserved, err := reserveBlock(first); err == nil {
			reserved.Close()
			t.Fatalf("the ports from %d on are reserved twice", first)
		}
	}
}

func TestABlockWithAPortInUseIsNotTaken(t *testing.T) {
	for _, network := range []string{"tcp4", "udp4"} {
		p, reserved, err := reserve(0)
		if err != nil {
			t.Fatal(err)
		}
		hold(t, network, loopback(p.SerfLAN))
		reserved.Close()
		if reserved, err := reserveBlock(p.HTTP - 1); err == nil {
			reserved.Close()
			t.Errorf("%s: the block is taken", network)
		}
	}
}

func TestTheHTTPPortIsTheOneAskedForIfItIsFree(t *testing.T) {
	p, reserved, err := reserve(0)
	if err != nil {
		t.Fatal(err)
	}
	defer reserved.Close()
	want := p.HTTP
	again, other, err := reserve(want)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	if again.HTTP != want {
		t.Errorf("got %d, want %d", again.HTTP, want)
	}
	hold(t, "tcp4", loopback(want))
	again, other, err = reserve(want)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	if again.HTTP == want || again.HTTP == 0 {
		t.Errorf("got %d, want another one than %d", again.HTTP, want)
	}
}

// hold uses an address until t ends.
func hold(t *testing.T, network, address string) {
	t.Helper()
	switch network {
	case "tcp4":
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	default:
		l, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
}
