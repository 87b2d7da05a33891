//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"sluice/bench/quality/scenario"
)

// Fields and paths between the client and the peers.
const (
	numberField = "X-Number" // of the request, from which a peer knows the work
	healthPath  = "/health"  // answered at once, and not counted
)

// origins are the peers of one run: servers that sleep.
type origins struct {
	play      *play
	addresses []string
	servers   []*http.Server
	serving   sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	begin    time.Time  // of the run
	queues   []queue    // by peer
	most     []int      // largest number in flight, by peer
	inFlight []int
	arrivals []arrival // in order
	needless int       // arrivals that wait, though another peer, at least as fast, would begin at once
}

// startOrigins listens on a loopback port for each peer.
func startOrigins(p *play) (*origins, error) {
	o := &origins{play: p, most: make([]int, len(p.Peers)), inFlight: make([]int, len(p.Peers))}
	for n := range p.Peers {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(err, o.close())
		}
		server := &http.Server{
			ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { o.serve(w, r, n) }),
		}
		o.queues = append(o.queues, newQueue(&p.Peers[n]))
		o.addresses = append(o.addresses, listener.Addr().String())
		o.servers = append(o.servers, server)
		o.serving.Go(func() { _ = server.Serve(listener) }) // until close
	}
	return o, nil
}

// peers returns the peers as proxies are configured with them.
func (o *origins) peers() []server {
	var all []server
	for i, address := range o.addresses {
		all = append(all, server{address, max(o.play.Peers[i].Weight, 1)})
	}
	return all
}

// start makes the schedule of the play begin at a time, before the first request.
func (o *origins) start(begin time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begin = begin
}

// counted returns all arrivals, how many of them waited needlessly, and the largest number in
// flight at a peer.
func (o *origins) counted() (arrivals []arrival, needless, most int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.arrivals), o.needless, slices.Max(o.most)
}

// close ends all peers and their connections.
func (o *origins) close() error {
	var errs []error
	for _, server := range o.servers {
		errs = append(errs, server.Close())
	}
	o.serving.Wait()
	return errors.Join(errs...)
}

// serve is peer n. The work of a request that its client has given up is done all the same: a peer
// does not notice.
func (o *origins) serve(w http.ResponseWriter, r *http.Request, n int) {
	number, err := strconv.Atoi(r.Header.Get(numberField))
	if r.URL.Path == healthPath || err != nil || number < 0 || number >= len(o.play.requests) {
		return // 200
	}
	request := o.play.requests[number]
	end := o.begins(n, request)
	defer o.ends(n)
	switch o.play.Peers[n].Answer {
	case scenario.Unavailable:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case scenario.Wrong:
		_, _ = io.WriteString(w, "another body\n")
		return
	}
	wait(context.Background(), time.Until(end))
	if stream := o.play.Routes[request.Route].Stream; stream > 0 {
		goOn(w, end.Add(stream))
	}
	_, _ = io.WriteString(w, rightBody(number))
}

// goOn sends a piece of an answer at once, and again from time to time until the end.
func goOn(w http.ResponseWriter, end time.Time) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	for left := time.Until(end); left > 0; left = time.Until(end) {
		if _, err := io.WriteString(w, ":\n"); err != nil || control.Flush() != nil {
			return // the client has gone
		}
		wait(context.Background(), min(left, time.Second))
	}
}

// begins counts a request of peer n, and returns when its work ends.
func (o *origins) begins(n int, r scenario.Request) (end time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Since(o.begin)
	o.arrivals = append(o.arrivals, arrival{now, n})
	o.inFlight[n]++
	o.most[n] = max(o.most[n], o.inFlight[n])
	if !o.queues[n].idle(now) && slices.ContainsFunc(o.queues, func(q queue) bool {
		return q.idle(now) && q.peer.Answer == scenario.Works && q.peer.SlownessAt(now) <= o.queues[n].peer.SlownessAt(now)
	}) {
		o.needless++
	}
	return o.begin.Add(o.queues[n].add(now, r.Work))
}

func (o *origins) ends(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.inFlight[n]--
}

func rightBody(number int) string { return "answer " + strconv.Itoa(number) + "\n" }

// wait returns after a time, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
