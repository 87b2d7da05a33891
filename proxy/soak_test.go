package proxy

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/consultest"
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

	soak(t, duration)

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
	t       *testing.T
	server  *Server
	address string
	ctx     context.Context // ends when the clients are to stop

	good, stable, odd *balancer.Pool
	tables            []*route.Table

	succeeded, failed atomic.Int64
	counts            sync.Map // what was done how often: *atomic.Int64 by name
}

// soak returns when nothing is left but what leaks.
func soak(t *testing.T, duration time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lasts, end := context.WithTimeout(ctx, duration)
	defer end()
	s := &soaker{t: t, ctx: ctx}
	s.server = newTestServer(Options{
		Timeouts: Timeouts{Head: 5 * time.Second, Body: 10 * time.Second, Write: 10 * time.Second, Idle: 10 * time.Second},
	})
	l := listen(t)
	s.address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(context.Background(), l, "soak") }()

	var peers sync.WaitGroup
	peersCtx, stopPeers := context.WithCancel(context.Background())
	s.good, s.stable, s.odd = s.newPool("good"), s.newPool("stable"), s.newPool("odd")
	s.startPeers(peersCtx, &peers)
	s.makeTables()

	var clients sync.WaitGroup
	for _, kind := range soakClients {
		for n := range kind.count {
			clients.Go(func() {
				random := rand.New(rand.NewPCG(uint64(n), uint64(len(kind.name))))
				for s.ctx.Err() == nil {
					if conn, ok := s.dial(); ok {
						kind.run(s, random, conn)
						conn.Close()
					}
					s.count(kind.name)
					s.pause(random, kind.pause)
				}
			})
		}
	}
	clients.Go(s.reloadTables)
	<-lasts.Done()
	eventually(t, "a good request has ended", func() bool { return s.succeeded.Load()+s.failed.Load() > 0 })
	cancel()
	clients.Wait()

	shutdown, cancelShutdown := context.WithTimeout(context.Background(), soakPatience)
	defer cancelShutdown()
	verify.Succeeds(t, s.server.Shutdown(shutdown, 0))
	verify.Equal(t, <-served, ErrServerClosed, "serve")
	verify.Equal(t, s.server.Connections(), 0, "connections at the end")
	for _, pool := range []*balancer.Pool{s.good, s.stable, s.odd} {
		pool.Close()
		<-pool.Drained()
		snapshot := pool.Snapshot()
		for _, peer := range slices.Concat(snapshot.All, snapshot.Draining) {
			idle, busy := peer.Transport.(*upstream.Transport).Connections()
			if n := peer.Inflight(); n != 0 || idle+busy != 0 {
				t.Errorf("at %s: %d in flight, %d connections idle and %d at work", peer.Address(), n, idle, busy)
			}
		}
	}
	stopPeers()
	peers.Wait()
	s.report()
}

func (s *soaker) newPool(name string) *balancer.Pool {
	pool, err := balancer.NewPool(name, balancertest.Complete(balancer.Options{
		DrainTimeout: 20 * time.Second,
		NewTransport: s.server.NewTransport(someTransport),
		// Peers crash more often here than a budget is made for.
		RetryBudget: &balancer.RetryBudget{Ratio: 10, MinPerSecond: 1000},
	}))
	verify.NoError(s.t, err)
	return pool
}

// makeTables makes tables that differ, but lead to the same services.
func (s *soaker) makeTables() {
	for i := range 3 {
		timeouts := defaultTimeouts()
		timeouts.Idle, timeouts.Tunnel = 10*time.Second, 20*time.Second
		timeouts.Connect = soakPatience // a machine that has too much to do is no failure
		attempts := route.Retry{Attempts: 6, BodyBytes: int64(i) * 20000}
		hedged := attempts
		hedged.Hedge = &route.Hedge{After: 5 * time.Millisecond}
		routes := []route.Route{
			{Path: "/good", Service: &route.Service{Name: "good", Pool: s.good, Timeouts: timeouts, Retry: attempts}},
			{Path: "/hedged", Service: &route.Service{Name: "hedged", Pool: s.good, Timeouts: timeouts, Retry: hedged}},
			{Path: "/stable", Service: &route.Service{Name: "stable", Pool: s.stable, Timeouts: timeouts, Retry: attempts}},
			{Path: "/odd", Service: &route.Service{Name: "odd", Pool: s.odd, Timeouts: timeouts, Retry: attempts}},
			{Host: fmt.Sprintf("host-%d.example.com", i), Path: "/", Service: &route.Service{Name: "other", Pool: s.odd, Timeouts: timeouts, Retry: attempts}},
		}
		table := verify.Result(route.NewTable(routes)).Must(s.t)
		s.tables = append(s.tables, table)
	}
	s.server.SetTable(s.tables[0])
}

func (s *soaker) reloadTables() {
	random := rand.New(rand.NewPCG(1, 2))
	for i := 0; s.ctx.Err() == nil; i++ {
		s.server.SetTable(s.tables[i%len(s.tables)])
		s.count("reload")
		s.pause(random, 100*time.Millisecond)
	}
}

// pause waits for up to d, or until the end.
func (s *soaker) pause(random *rand.Rand, d time.Duration) {
	timer := time.NewTimer(time.Duration(random.Int64N(int64(d) + 1)))
	defer timer.Stop()
	select {
	case <-timer.C:
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

func (s *soaker) report() {
	var all []string
	s.counts.Range(func(name, n any) bool {
		all = append(all, name.(string)+": "+strconv.FormatInt(n.(*atomic.Int64).Load(), 10))
		return true
	})
	slices.Sort(all)
	s.t.Logf("%d good requests succeeded, %d failed; %q", s.succeeded.Load(), s.failed.Load(), all)
}

// A soakPeer is a server that can be crashed and started again at its address, which nobody else
// gets meanwhile.
type soakPeer struct {
	address  string
	reserved io.Closer
	server   *http.Server
	stopped  chan struct{}
	instance discovery.Instance
}

func newSoakPeer(t *testing.T) *soakPeer {
	first, reserved, err := consultest.ReserveBlock()
	verify.NoError(t, err)
	p := &soakPeer{address: fmt.Sprint("127.0.0.1:", first), reserved: reserved}
	l := verify.Result(net.Listen("tcp", p.address)).Must(t)
	host, port, _ := net.SplitHostPort(p.address)
	p.instance = discovery.Instance{Service: "soak", ID: p.address, Address: host, Weight: 1}
	p.instance.Port, _ = strconv.Atoi(port)
	p.start(l)
	return p
}

func (p *soakPeer) start(l net.Listener) {
	p.server = &http.Server{Handler: http.HandlerFunc(serveSoak)}
	server, stopped := p.server, make(chan struct{})
	p.stopped = stopped
	go func() {
		defer close(stopped)
		server.Serve(l)
	}()
}

// crash cuts every connection and stops listening.
func (p *soakPeer) crash() {
	p.server.Close()
	<-p.stopped
}

// restart reports whether the peer's address can be had again.
func (p *soakPeer) restart() bool {
	l, err := net.Listen("tcp", p.address)
	if err == nil {
		p.start(l)
	}
	return err == nil
}

// startPeers starts the peers and what happens to them, until ctx ends. The
// pool "good" has peers that crash, among others; those of "stable" come and
// go as an operator would have it.
func (s *soaker) startPeers(ctx context.Context, running *sync.WaitGroup) {
	var steady, crashing, odd []*soakPeer
	for range 4 {
		steady = append(steady, newSoakPeer(s.t))
	}
	for range 2 {
		crashing, odd = append(crashing, newSoakPeer(s.t)), append(odd, newSoakPeer(s.t))
	}
	instances := func(peers ...*soakPeer) (set []discovery.Instance) {
		for _, p := range peers {
			set = append(set, p.instance)
		}
		return set
	}
	s.good.Apply(instances(slices.Concat(steady[:2], crashing)...))
	s.stable.Apply(instances(steady...))
	s.odd.Apply(instances(odd...))

	var changes sync.WaitGroup
	changes.Go(func() { // who crashes
		random := rand.New(rand.NewPCG(3, 4))
		for s.ctx.Err() == nil {
			p := crashing[random.IntN(len(crashing))]
			s.pause(random, 200*time.Millisecond)
			p.crash()
			s.pause(random, 100*time.Millisecond)
			for !p.restart() && s.ctx.Err() == nil {
				s.pause(random, 100*time.Millisecond)
			}
			s.count("crash")
		}
	})
	changes.Go(func() { // who is replaced
		random := rand.New(rand.NewPCG(5, 6))
		for s.ctx.Err() == nil {
			random.Shuffle(len(steady), func(i, j int) { steady[i], steady[j] = steady[j], steady[i] })
			set := instances(steady[:2+random.IntN(3)]...)
			set[0].Weight = 1 + random.IntN(3)
			s.stable.Apply(set)
			s.count("change")
			s.pause(random, 50*time.Millisecond)
		}
	})
	running.Go(func() {
		<-ctx.Done()
		changes.Wait() // they use the peers
		for _, p := range slices.Concat(steady, crashing, odd) {
			p.crash()
			p.reserved.Close()
		}
	})
}
