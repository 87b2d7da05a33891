package proxy

import (
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/long"
	"sluice/test/verify"
)

// TestSoak has clients of all kinds at work, good, bad, slow and gone, while
// peers crash, come back and are replaced. No good request may fail, and
// nothing may be left of it all in the end: no goroutine, no descriptor, no
// request in flight, no memory. The environment variable SLUICE_SOAK changes how long it lasts.
func TestSoak(t *testing.T) {
	duration := long.Count(t, 2*time.Second, 6*time.Second)
	if s := os.Getenv("SLUICE_SOAK"); s != "" {
		duration = verify.Result(time.ParseDuration(s)).Must(t)
	}
	if !alone(t) {
		return
	}
	settle := func() (descriptors int, heap uint64) {
		var m runtime.MemStats
		for range 4 { // empties every sync.Pool and closes the pipes that were in one
			runtime.GC()
			time.Sleep(10 * time.Millisecond)
		}
		runtime.ReadMemStats(&m)
		return openDescriptors(""), m.HeapAlloc
	}
	ignore := []goleak.Option{
		goleak.IgnoreCurrent(),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"), // one for ever, once it is needed
	}
	descriptors, heap := settle()
	sockets := openDescriptors("socket:")
	// In the last second no collection of garbage closes a socket that was
	// forgotten.
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	last := time.AfterFunc(duration-min(duration/4, time.Second), func() {
		debug.SetMemoryLimit(1 << 30)
		debug.SetGCPercent(-1)
	})

	t.Run("soak", func(t *testing.T) { soak(t, duration) })

	last.Stop()
	eventually(t, "sockets are closed", func() bool { return openDescriptors("socket:") <= sockets })
	eventually(t, "no goroutine is left", func() bool { return goleak.Find(ignore...) == nil })
	eventually(t, "descriptors are closed", func() bool {
		now, _ := settle()
		return now <= descriptors
	})
	_, now := settle()
	verify.That(t, now <= heap+4<<20, "the heap has grown from %d to %d KiB", heap>>10, now>>10)
}

// openDescriptors returns how many descriptors of a kind this process has, or 0
// where that cannot be told.
func openDescriptors(kind string) (n int) {
	const directory = "/proc/self/fd"
	entries, _ := os.ReadDir(directory)
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(directory, entry.Name())); err == nil && strings.HasPrefix(target, kind) {
			n++
		}
	}
	return n
}

// A soaker is one run of TestSoak.
type soaker struct {
	*testProxy
	t   *testing.T
	ctx context.Context // ends when the clients are to stop

	succeeded, failed atomic.Int64
	counts            sync.Map // what was done how often: *atomic.Int64 by name
}

// soak returns when nothing is left but what leaks.
func soak(t *testing.T, duration time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := Options{Timeouts: Timeouts{Head: 5 * time.Second, Body: 10 * time.Second, Write: 10 * time.Second, Idle: 10 * time.Second}}
	s := &soaker{testProxy: startProxy(t, o), t: t, ctx: ctx}
	var working sync.WaitGroup
	services := s.startPeers(&working)
	for _, kind := range soakClients {
		for n := range kind.count {
			working.Go(func() {
				random := rand.New(rand.NewPCG(uint64(n), uint64(len(kind.name))))
				for ; ctx.Err() == nil; s.pause(random, kind.pause) {
					if conn, ok := s.dial(); ok {
						kind.run(s, random, conn)
						conn.Close()
					}
					s.count(kind.name)
				}
			})
		}
	}
	<-time.After(duration)
	eventually(t, "a good request has ended", func() bool { return s.succeeded.Load()+s.failed.Load() > 0 })
	cancel()
	working.Wait()
	eventually(t, "all connections of clients have ended", func() bool { return s.Connections() == 0 })
	for _, service := range services {
		verify.Equal(t, inflightIn(service.Pool), 0, "attempts of %s at the end", service.Name)
	}
	s.counts.Range(func(what, n any) bool {
		t.Logf("%s: %d", what, n.(*atomic.Int64).Load())
		return true
	})
	t.Logf("%d good requests succeeded, %d failed", s.succeeded.Load(), s.failed.Load())
}

// pause waits for up to d, or until the end.
func (s *soaker) pause(random *rand.Rand, d time.Duration) {
	select {
	case <-time.After(time.Duration(random.Int64N(int64(d) + 1))):
	case <-s.ctx.Done():
	}
}

func (s *soaker) count(what string) {
	n, _ := s.counts.LoadOrStore(what, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

// fail notes that a good request failed.
func (s *soaker) fail(format string, arguments ...any) {
	if n := s.failed.Add(1); n <= 20 {
		s.t.Errorf(format, arguments...)
	}
}

// A soakPeer is a server that crashes at times: all its connections break, and so do those that
// come until it is there again.
type soakPeer struct {
	*httptest.Server
	crashed atomic.Bool
}

func newSoakPeer(t *testing.T) *soakPeer {
	p := new(soakPeer)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.crashed.Load() {
			panic(http.ErrAbortHandler)
		}
		serveSoak(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// startPeers starts the peers, and what happens to them and to the routes until the clients stop.
// The service good has peers that crash, among others; those of stable come and go as an operator
// would have it.
func (s *soaker) startPeers(working *sync.WaitGroup) (services []*route.Service) {
	peers := make([]*soakPeer, 8)
	addresses := make([]string, len(peers))
	for i := range peers {
		peers[i] = newSoakPeer(s.t)
		addresses[i] = peers[i].Listener.Addr().String()
	}
	crashing, steady, odd := peers[:2], addresses[2:6], addresses[6:]
	o := balancer.Options{
		DrainTimeout: 20 * time.Second,
		NewTransport: s.NewTransport(someTransport),
		// Peers crash more often here than a budget is made for.
		RetryBudget: &balancer.RetryBudget{Ratio: 10, MinPerSecond: 1000},
	}
	good, stable, other := s.newService("good", o, addresses[:4]...), s.newService("stable", o, steady...), s.newService("odd", o, odd...)
	services = []*route.Service{good, stable, other}
	for _, service := range services {
		service.Timeouts.Idle, service.Timeouts.Tunnel = 10*time.Second, 20*time.Second
		service.Retry = route.Retry{Attempts: 6, BodyBytes: 20_000}
	}
	routes := []route.Route{
		{Path: "/good", Service: good}, {Path: "/stable", Service: stable}, {Path: "/odd", Service: other},
	}
	s.setRoutes(routes...)
	repeat := func(what string, pause time.Duration, do func(*rand.Rand)) {
		working.Go(func() {
			for random := rand.New(rand.NewPCG(1, uint64(len(what)))); s.ctx.Err() == nil; s.count(what) {
				s.pause(random, pause)
				do(random)
			}
		})
	}
	repeat("crash", 200*time.Millisecond, func(random *rand.Rand) {
		p := crashing[random.IntN(len(crashing))]
		p.crashed.Store(true)
		p.CloseClientConnections()
		s.pause(random, 100*time.Millisecond)
		p.crashed.Store(false)
	})
	repeat("change of peers", 50*time.Millisecond, func(random *rand.Rand) {
		random.Shuffle(len(steady), func(i, j int) { steady[i], steady[j] = steady[j], steady[i] })
		set := instancesAt(s.t, steady[:2+random.IntN(3)]...)
		set[0].Weight = 1 + random.IntN(3)
		stable.Pool.Apply(set)
	})
	repeat("reload", 100*time.Millisecond, func(random *rand.Rand) { s.setRoutes(routes[:2+random.IntN(2)]...) })
	return services
}
