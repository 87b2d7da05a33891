package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/long"
	"sluice/test/proof"
	"sluice/test/verify"
)

// An overloadPeer is a server with two workers, which fails and hangs at times.
type overloadPeer struct {
	address string
	workers chan struct{}
	fault   atomic.Int32 // 0: none
}

func (p *overloadPeer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	switch p.fault.Load() {
	case 1:
		panic(http.ErrAbortHandler)
	case 2:
		<-r.Context().Done() // sluice gives up
		return
	case 3:
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	p.workers <- struct{}{}
	<-time.After(3 * time.Millisecond)
	<-p.workers
	switch {
	case r.Header.Get("Upgrade") != "":
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err == nil {
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
			io.Copy(conn, buffered)
		}
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(http.StatusOK)
		io.WriteString(w, "\x00\x00\x00\x00\x00")
		w.Header().Set("Grpc-Status", fmt.Sprint(14*(len(r.URL.Path)%2)))
	default:
		io.WriteString(w, "ok")
	}
}

// overloaded is a proxy in front of two services that have the same peers: one by HTTP/1.1 or
// HTTP/2, as the routes say, and one by HTTP/2.
type overloaded struct {
	*testProxy
	ctx      context.Context // ends with the random part
	services [2]*route.Service
	peers    []*overloadPeer
	proof    *proof.Proof
	db       string // address of the listener for TCP
	http1    http.Client
	http2    *http.Client
	refused  atomic.Int64
	answered atomic.Int64
}

func (o *overloaded) options(random *rand.Rand) balancer.Options {
	options := balancer.Options{
		Policy: balancer.Policies()[random.IntN(len(balancer.Policies()))], DrainTimeout: time.Minute,
		Limits:      balancer.Limits{Adaptive: random.IntN(4) > 0, AdaptiveMin: 2 + random.IntN(4), Pending: 100},
		RetryBudget: &balancer.RetryBudget{Ratio: 5, MinPerSecond: 100}, NewWitness: o.proof.Witness,
		PanicThreshold: float64(random.IntN(2)) / 2,
	}
	if random.IntN(2) == 0 {
		options.Tiers = []balancer.Selector{{Tags: []string{"main"}}}
	}
	if random.IntN(3) == 0 {
		options.Groups = []balancer.GroupSelector{{Name: "main", Selector: balancer.Selector{Tags: []string{"main"}}}}
	}
	switch random.IntN(6) {
	case 0:
		options.Limits.PeerRequests = 8
	case 1:
		options.Limits.PeerConnections = 8
	case 2:
		options.Limits.Requests = 40
	}
	options.NewTransport = o.NewTransport(someTransport)
	return balancertest.Complete(options)
}

// instances returns the first n peers. Odd ones have the tag main, and each has one of two
// priorities.
func (o *overloaded) instances(n int, random *rand.Rand) []discovery.Instance {
	var addresses []string
	for _, p := range o.peers[:n] {
		addresses = append(addresses, p.address)
	}
	set := instancesAt(o.t, addresses...)
	for i := range set {
		if set[i].Priority = random.IntN(2); i%2 == 1 {
			set[i].Tags = []string{"main"}
		}
	}
	return set
}

func (o *overloaded) route(random *rand.Rand) {
	var routes []route.Route
	for n, prefix := range []string{"/", "/h2/"} {
		service := *o.services[n]
		service.HTTP2 = n == 1 || random.IntN(2) == 0
		service.Retry = route.Retry{Attempts: 1 + random.IntN(3), BodyBytes: 1000}
		for i := range balancer.NumCriticalities {
			actions := &route.Actions{Criticality: balancer.Criticality(random.IntN(balancer.NumCriticalities))}
			routes = append(routes, route.Route{Path: fmt.Sprintf("%s%d/", prefix, i), Service: &service, Actions: actions})
		}
	}
	routes = append(routes, route.Route{Path: "/", Service: o.services[0], Actions: &route.Actions{Criticality: balancer.CriticalityCritical}})
	o.setRoutes(routes...)
}

// A service with an adaptive limit, tiers, weights by health and a proof meets all kinds of
// requests, more than it can do, while its options, routes and peers change, peers fail and hang,
// and clients leave. Then nothing is counted any more, and nothing is refused.
func TestOverloadMeetsTheRest(t *testing.T) {
	duration := long.Count(t, time.Second, 30*time.Second)
	seed := verify.Seed(t)
	o := &overloaded{testProxy: startProxy(t, Options{}), http2: http2Client(t)}
	var broken sync.Map
	o.proof = proof.New(func(text string) { broken.Store(text, true) })
	o.http1.Transport = &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(o.http1.CloseIdleConnections)
	for range 6 {
		p := &overloadPeer{workers: make(chan struct{}, 2)}
		p.address = startServer(t, p.ServeHTTP)
		o.peers = append(o.peers, p)
	}
	main := rand.New(rand.NewPCG(seed, 0))
	for n, name := range []string{"http1", "http2"} {
		s := o.newService(name, o.options(main))
		s.Pool.Apply(o.instances(6, main))
		s.HTTP2 = n == 1
		s.Timeouts.ResponseHeader = 300 * time.Millisecond
		o.services[n] = s
	}
	o.route(main)
	o.db = o.serveWith(ListenerOptions{Name: "db", Streams: o.target})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.ctx = ctx
	var working sync.WaitGroup
	repeat := func(count int, pause time.Duration, do func(*rand.Rand)) {
		for n := range count {
			random := rand.New(rand.NewPCG(seed, uint64(pause)<<8|uint64(n)))
			working.Go(func() {
				for ctx.Err() == nil {
					do(random)
					select {
					case <-time.After(time.Duration(random.Int64N(int64(pause)))):
					case <-ctx.Done():
					}
				}
			})
		}
	}
	repeat(60, time.Millisecond, o.request)
	repeat(8, 10*time.Millisecond, o.upgrade)
	repeat(8, 11*time.Millisecond, o.tcp)
	repeat(1, 100*time.Millisecond, func(random *rand.Rand) {
		n := random.IntN(2)
		pool := o.services[n].Pool
		switch random.IntN(5) {
		case 0:
			pool.Reconfigure(o.options(random))
		case 1:
			o.route(random)
		case 2:
			pool.Apply(o.instances(2+random.IntN(5), random))
		case 3:
			all := pool.Snapshot().All
			p := all[random.IntN(len(all))]
			pool.SetFactors(balancer.Adjustment{Peer: p, By: random.Float64(), Why: "a test"})
			pool.SetReasons(balancer.ReasonEjected, balancer.Verdict{Peer: p, Down: random.IntN(2) == 0, Why: "a test"})
		case 4:
			o.peers[random.IntN(len(o.peers))].fault.Store(max(0, int32(random.IntN(12))-8))
		}
	})
	<-time.After(duration)
	eventually(t, "a request is refused", func() bool { return o.refused.Load() > 0 })
	cancel()
	working.Wait()
	t.Logf("%d answers, %d refusals of an overload", o.answered.Load(), o.refused.Load())
	o.calm(main)
	broken.Range(func(detail, _ any) bool {
		t.Errorf("violation: %s", detail)
		return true
	})
}

// calm checks what is left.
func (o *overloaded) calm(random *rand.Rand) {
	t := o.t
	for _, p := range o.peers {
		p.fault.Store(0)
	}
	for _, s := range o.services {
		set := o.instances(6, random)
		for i := range set {
			set[i].Priority = i / 2 % 2 // four tiers, the most that there were
		}
		s.Pool.Apply(set)
		options := o.options(random)
		options.Limits, options.Tiers, options.Groups = balancer.Limits{Adaptive: true, AdaptiveMin: 2}, []balancer.Selector{{Tags: []string{"main"}}}, nil
		s.Pool.Reconfigure(options)
		for _, p := range s.Pool.Snapshot().All {
			s.Pool.SetReasons(balancer.ReasonEjected, balancer.Verdict{Peer: p})
			s.Pool.SetFactors(balancer.Adjustment{Peer: p, By: 1})
		}
		verify.Equal(t, len(s.Pool.Snapshot().Overload().Tiers), 4, "tiers")
		eventually(t, "nothing is counted in "+s.Name+" any more", func() bool {
			requests, retries := s.Pool.Admission.Held()
			waits := slices.ContainsFunc(s.Pool.Snapshot().Overload().Tiers, func(l balancer.TierLoad) bool { return l.Waiting != 0 })
			return requests == 0 && retries == 0 && s.Pool.Admission.Pending() == 0 && inflightIn(s.Pool) == 0 && !waits
		})
	}
	o.route(random)
	for _, s := range o.services {
		prefix := map[string]string{"http1": "/", "http2": "/h2/"}[s.Name]
		shed := s.Pool.Snapshot().Overload().Shed
		eventually(t, "the first tier of "+s.Name+" has no limit", func() bool {
			for i := range balancer.NumCriticalities {
				response := verify.Result(o.http1.Get(fmt.Sprintf("http://%s%s%d/", o.address, prefix, i))).Must(t)
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			return s.Pool.Snapshot().Overload().Tiers[0].Limit == 0
		})
		verify.Equal(t, s.Pool.Snapshot().Overload().Shed, shed, "refusals while the load is low")
	}
}

// request sends a request of some kind, whose client leaves at times.
func (o *overloaded) request(random *rand.Rand) {
	ctx := o.ctx
	if random.IntN(8) == 0 {
		var leave context.CancelFunc
		ctx, leave = context.WithTimeout(ctx, time.Duration(random.IntN(30))*time.Millisecond)
		defer leave()
	}
	client := []*http.Client{&o.http1, o.http2}[random.IntN(2)]
	url := fmt.Sprintf("http://%s%s%d/%s", o.address, []string{"/", "/h2/"}[random.IntN(2)], random.IntN(3), "x"[:random.IntN(2)])
	method, body := http.MethodGet, io.Reader(nil)
	switch random.IntN(4) {
	case 0:
		method, body = http.MethodPost, strings.NewReader(strings.Repeat("a", random.IntN(3000)))
	case 1: // its length is not known, and its end comes late, or never
		read, write := io.Pipe()
		method, body = http.MethodPost, read
		pause := time.Duration(random.Int64N(int64(20 * time.Millisecond)))
		go func() {
			io.WriteString(write, "a")
			<-time.After(pause)
			write.Close()
		}()
		defer read.Close()
	}
	r := verify.Result(http.NewRequestWithContext(ctx, method, url, body)).Must(o.t)
	isGRPC := client == o.http2 && method == http.MethodPost && strings.Contains(url, "/h2/") && random.IntN(2) == 0
	if isGRPC {
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("TE", "trailers")
	}
	response, err := client.Do(r)
	if err != nil {
		return
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
	o.answered.Add(1)
	if response.Header.Get("X-Sluice-Reason") != "overload" {
		return
	}
	o.refused.Add(1)
	if isGRPC {
		verify.That(o.t, response.StatusCode == 200 && response.Header.Get("Grpc-Status") != "0", "a refused call has status %d and %q", response.StatusCode, response.Header)
		return
	}
	verify.That(o.t, response.StatusCode == 503 && response.Header.Get("Retry-After") == "1", "a refusal has status %d and %q", response.StatusCode, response.Header)
}

// upgrade opens a tunnel and uses it for a while.
func (o *overloaded) upgrade(random *rand.Rand) {
	conn, err := net.Dial("tcp", o.address)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	defer context.AfterFunc(o.ctx, func() { conn.Close() })()
	fmt.Fprintf(conn, "GET /%d/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n", random.IntN(3))
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != 101 {
		return
	}
	for range random.IntN(20) {
		io.WriteString(conn, "a")
		if _, err := reader.ReadByte(); err != nil {
			return
		}
		select {
		case <-time.After(time.Duration(random.Int64N(int64(20 * time.Millisecond)))):
		case <-o.ctx.Done():
		}
	}
}

// tcp sends a request through the listener for TCP, or leaves.
func (o *overloaded) tcp(random *rand.Rand) {
	conn, err := net.Dial("tcp", o.db)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	defer context.AfterFunc(o.ctx, func() { conn.Close() })()
	if io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); random.IntN(2) == 0 {
		io.Copy(io.Discard, conn)
	}
}
