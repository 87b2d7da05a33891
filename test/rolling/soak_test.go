//go:build unix

package rolling

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/test/consultest"
)

// soakHeap is how much larger the heap may be after the soak.
const soakHeap = 8 << 20

// TestSoak replaces the instances of services of all protocols, under a load of all protocols and with
// reloads, for the duration in SLUICE_ROLLING_SOAK. Then nothing may be left: no request in flight, no
// connection of a client, no goroutine, no memory.
func TestSoak(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv("SLUICE_ROLLING_SOAK"))
	if err != nil {
		t.Skip("SLUICE_ROLLING_SOAK is not a duration such as 10m")
	}
	tunnels := func(p protocol) mix { return mix{{p, "tunnel", 200, true}, {p, "tunnel", 5_000, true}} }
	list := []mode{
		{name: "http1", traffic: traffic{http1Peers, httpMix, 60, 15}, leave: anyLeave(1)},
		{name: "h2", traffic: traffic{http2Peers, httpMix, 60, 15}, leave: anyLeave(2)},
		{name: "grpc", traffic: traffic{grpcPeers, grpcMix, 24, 15}, leave: anyLeave(3)},
		{name: "websocket", traffic: traffic{webSocketPeers, tunnels(wss), 20, 15}, leave: anyLeave(4)},
		// A connection that arrives while an instance leaves cannot be opened again at another one: its bytes
		// have no meaning for sluice.
		{name: "tcp", traffic: traffic{streamPeers, tunnels(tcp), 20, 15}, leave: leaveGracefully},
	}
	for i := range list {
		list[i].instances, list[i].check, list[i].patient = 4, patientCheck, true
		if !list[i].peers.stream {
			list[i].settings = hangSettings
		}
	}
	r := startRolls(t, pace{}, list, "")

	var before, after leftovers
	t.Run("before", func(t *testing.T) { // so that all that stays is there
		before = r.soak(t, list, pace{replaced: 4, before: time.Second, pause: time.Second})
	})
	t.Run("soak", func(t *testing.T) {
		after = r.soak(t, list, pace{replaced: 4, before: time.Second, pause: time.Second, again: duration})
	})
	t.Logf("before: %v\nafter: %v", before, after)
	if after.heap > before.heap+soakHeap {
		t.Errorf("the heap has grown from %d to %d KiB", before.heap>>10, after.heap>>10)
	}
	for started, n := range after.goroutines {
		if n > before.goroutines[started] {
			t.Errorf("there were %d goroutines of %s, and now there are %d", before.goroutines[started], started, n)
		}
	}
}

// anyLeave returns a leave that takes one of all ways, except for the first instance, by a seed.
func anyLeave(seed uint64) func(*app) error {
	ways := []func(*app) error{leaveGracefully, leaveAtOnce, leaveAbruptly, crash, func(a *app) error {
		a.abandon()
		a.hang()
		time.Sleep(2 * time.Second)
		a.die()
		return nil
	}}
	random := rand.New(rand.NewPCG(seed, 0))
	return func(a *app) error { return ways[random.IntN(len(ways))](a) }
}

// soak runs the modes together, with reloads, and returns what is left when all has ended.
func (r *rolls) soak(t *testing.T, list []mode, p pace) leftovers {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var reloads, running sync.WaitGroup
	reloads.Go(func() { r.reload(t, ctx) })
	outcomes := make([]outcome, len(list))
	for i, m := range list {
		running.Go(func() {
			t.Run(m.name, func(t *testing.T) {
				d := &deploy{mode: m, pace: p, t: t, consul: r.agent.Client(), ledger: newLedger(), direct: r.control[0]}
				outcomes[i] = d.run(r.gateway)
				outcomes[i].check(t, r.gateway)
			})
		})
	}
	running.Wait()
	cancel()
	reloads.Wait()
	t.Logf("\n%s", table(outcomes))
	clear(outcomes)
	r.gateway.added.forget()
	left := r.gateway.quiet(t)
	if err := os.Truncate(r.gateway.accessLog(), 0); err != nil { // the next soak has the same ids
		t.Error(err)
	}
	return left
}

// reload changes the configuration file every few seconds until ctx ends.
func (r *rolls) reload(t *testing.T, ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	file := filepath.Join(r.gateway.dir, "sluice.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
		return
	}
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed := fmt.Appendf(nil, "%s# change %d\n", text, n)
		if err := os.WriteFile(file+".new", changed, 0o600); err != nil {
			t.Error(err)
			return
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Error(err)
			return
		}
	}
}

// leftovers is what a gateway without clients uses, with the test.
type leftovers struct {
	goroutines  map[string]int // by what started them
	heap        uint64         // bytes
	descriptors int
}

func (l leftovers) String() string {
	return fmt.Sprintf("%d goroutines, a heap of %d KiB, %d descriptors", sum(l.goroutines), l.heap>>10, l.descriptors)
}

// quiet waits until no request is in flight, and the number of goroutines falls no more, and returns what is
// left. The last peers stay: the registry has lost them all.
func (g *runningGateway) quiet(t *testing.T) (l leftovers) {
	t.Helper()
	consultest.Await(t, "no request is in flight", func() bool {
		var peers []struct{ Inflight int }
		if err := g.ask(&peers, "/api/peers"); err != nil {
			t.Fatal(err)
		}
		for _, p := range peers {
			if p.Inflight > 0 {
				return false
			}
		}
		return true
	})
	http.DefaultClient.CloseIdleConnections()
	for least, unchanged := 1<<30, 0; unchanged < 20; unchanged++ { // two seconds, in which timers of a second end
		time.Sleep(100 * time.Millisecond)
		if now := goroutines(); sum(now) < least {
			least, unchanged = sum(now), 0
			l.goroutines = now
		}
	}
	runtime.GC()
	runtime.GC() // empties the pools of package sync
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	l.heap = m.HeapAlloc
	entries, _ := os.ReadDir("/proc/self/fd") // 0 if the system has none
	l.descriptors = len(entries)
	return l
}

// goroutines returns the number of goroutines by what started them, without those of connections to Consul
// and to instances of controlService: some of them are kept for later requests.
func goroutines() map[string]int {
	stacks := make([]byte, 4<<20)
	started := make(map[string]int)
	for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		lines := strings.Split(strings.TrimSpace(stack), "\n")
		if len(lines) < 3 || strings.Contains(stack, ".(*http1Server).serve(") {
			continue
		}
		// The last two lines are "created by FUNCTION in goroutine N" and its place; before them is the
		// function that was started.
		by, _, _ := strings.Cut(strings.TrimPrefix(lines[len(lines)-2], "created by "), " in goroutine ")
		first := lines[1]
		if len(lines) > 4 {
			first = lines[len(lines)-4]
		}
		if by != "net/http.(*Transport).dialConn" {
			function, _, _ := strings.Cut(first, "(0x")
			started[by+" -> "+function]++
		}
	}
	return started
}

// sum returns the number of all goroutines.
func sum(started map[string]int) (n int) {
	for _, of := range started {
		n += of
	}
	return n
}

// ask decodes an answer of the admin API.
func (g *runningGateway) ask(v any, path string) error {
	response, err := http.Get("http://" + g.Address("admin").String() + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, v)
}
