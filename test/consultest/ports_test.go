package consultest

import (
	"io"
	"net"
	"sync"
	"testing"

	"sluice/test/verify"
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
	verify.That(t, len(firsts) == agents, "%d agents have %d blocks of ports", agents, len(firsts))
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
		verify.NoError(t, err)
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
	verify.NoError(t, err)
	defer reserved.Close()
	want := p.HTTP
	again, other, err := reserve(want)
	verify.NoError(t, err)
	other.Close()
	verify.Equal(t, again.HTTP, want, "HTTP")
	hold(t, "tcp4", loopback(want))
	again, other, err = reserve(want)
	verify.NoError(t, err)
	other.Close()
	verify.That(t, again.HTTP != want && again.HTTP != 0, "got %d, want another one than %d", again.HTTP, want)
}

// An app binds its reserved port only after the reservation.
func TestListenTakesNoPortOfABlock(t *testing.T) {
	for range 50 {
		l := verify.Result(Listen()).Must(t)
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		verify.That(t, port >= firstListener && port < end, "port %d is not one of %d to %d", port, firstListener, end-1)
	}
	last := firstBlock + blockSize*((firstListener-firstBlock)/blockSize-1)
	verify.That(t, portsOf(last).GRPCTLS < firstListener, "the last block ends at port %d", portsOf(last).GRPCTLS)
}

// hold uses an address until t ends.
func hold(t *testing.T, network, address string) {
	t.Helper()
	var held io.Closer
	var err error
	if network == "tcp4" {
		held, err = net.Listen(network, address)
	} else {
		held, err = net.ListenPacket(network, address)
	}
	verify.NoError(t, err)
	t.Cleanup(func() { held.Close() })
}
