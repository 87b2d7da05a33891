package simulation

import (
	"context"
	"math/rand/v2"
	"time"

	"sluice/balancer"
	"sluice/observe/wake"
	"sluice/proxy/attempt"
	"sluice/route"
	"sluice/route/places"
)

// request is a request of a client. It implements attempt.Exchange.
type request struct {
	w       *world
	number  int
	service *service
	routed  *route.Service
	random  *rand.Rand
	query   balancer.Query
	group   string // query's; "": the whole pool
	// fallback is query's; "": none.
	fallback string
	begin    time.Time
	first    time.Time     // when it got its first peer
	sure     bool          // it has to succeed
	leaves   time.Duration // when the client goes away; 0: it waits
	gone     <-chan struct{}

	// The goroutine that runs it uses the fields below.

	idempotent bool
	touched    bool // a peer may have seen it
	begun      bool // the client has got something
	answered   bool // all of it
	loop       attempt.Loop
	tries      int
	reached    int // tries that count
	left       int // peers, because their checks failed
	tried      map[*balancer.Peer]bool
	spared     map[*balancer.Peer]bool // of tried: which the request left, so that it may try them again
}

// flight is a running try.
type flight struct {
	peer  *peer
	call  call
	begin time.Time
	retry bool
	// suspected is closed when the peer begins to fail its checks.
	suspected <-chan struct{}
}

// request sends a request. If sure, it must succeed if there is a peer.
func (w *world) request(s *service, sure bool) {
	w.mu.Lock()
	w.numbers.requests++
	r := &request{
		w: w, number: w.numbers.requests, service: s, routed: s.routed, begin: time.Now(), sure: sure,
		random: stream(w.seed, streamRequest, w.numbers.requests), tried: make(map[*balancer.Peer]bool), spared: make(map[*balancer.Peer]bool),
	}
	w.mu.Unlock()
	r.idempotent = r.random.IntN(4) > 0
	r.query.Hash = s.drawHash(r.random)
	r.drawGroup()
	if !sure && r.random.IntN(8) == 0 {
		r.leaves = upTo(r.random, responseTimeout/4)
	}
	w.requests.Go(r.run)
	// No two requests have the same deadlines: which of two timers fires first at
	// the same time is left to chance.
	time.Sleep(time.Nanosecond)
}

// drawHash returns the hash of a request: as of other requests, of a peer, or none.
func (s *service) drawHash(random *rand.Rand) uint64 {
	all := s.pool.Snapshot().All
	switch {
	case random.IntN(2) == 0:
		return 0
	case s.options.Policy == balancer.PolicySticky && len(all) > 0:
		return all[random.IntN(len(all))].StickyID()
	}
	return 1 + random.Uint64N(8)
}

// named returns the peer of the set that the hash of a request names, if any.
func (r *request) named() *balancer.Peer {
	for _, actual := range r.service.pool.Snapshot().All {
		if r.service.options.Policy == balancer.PolicySticky && actual.StickyID() == r.query.Hash {
			return actual
		}
	}
	return nil
}

func (r *request) run() {
	gone := make(chan struct{})
	r.gone = gone
	if r.leaves > 0 {
		timer := time.AfterFunc(r.leaves, func() { close(gone) })
		defer timer.Stop()
	}
	outcome, err := r.loop.Run(r.routed, &r.query, r)
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.logf("request %d: %s after %d tries, answered: %v, error: %v", r.number, outcome.Class, r.loop.Tries, r.answered, err)
	r.checkLocked(outcome, r.loop.Tries, err)
}

func (r *request) start(t balancer.Token) *flight {
	w := r.w
	w.mu.Lock()
	defer w.mu.Unlock()
	p := r.service.peers[t.Peer]
	if r.tries > 0 && (r.begun || !r.Replayable()) {
		w.violateLocked("request %d: sent again, though the client has had something or a peer may have done it", r.number)
	}
	p.inflight++
	r.stir()
	r.tries++
	if r.tries == 1 {
		r.first = time.Now()
		r.service.firsts++
	} else {
		r.service.retries++
		r.service.retrying++
	}
	call := w.upstreams[t.Peer.Address()].answer(r.random)
	w.logf("request %d: try %d on %s, it will be %s in %v", r.number, r.tries, p, call.outcome.Class, call.after)
	r.service.checkTry(r, p)
	if r.tried[t.Peer] {
		w.counts["peer tried again"]++
	}
	r.tried[t.Peer], r.spared[t.Peer] = true, false
	if p.closed { // cut just now
		call.after, call.outcome = 0, balancer.Outcome{Class: balancer.OutcomeLocal}
	}
	return &flight{peer: p, call: call, begin: time.Now(), retry: r.tries > 1, suspected: p.transport.suspected}
}

func (r *request) end(f *flight, o balancer.Outcome) balancer.Outcome {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	f.peer.inflight--
	r.stir()
	if f.retry {
		r.service.retrying--
	}
	f.peer.ended[o.Class]++
	if o.Class == balancer.OutcomeConnectFailure {
		f.peer.refused, f.peer.refusedAt = !f.peer.probation.IsZero(), time.Now()
	}
	switch {
	case answers(o):
		r.begun, r.answered = true, true
	case o.Class != balancer.OutcomeConnectFailure && o.Class != balancer.OutcomeLocal:
		r.touched = true
	}
	if f.breaksOff(o) {
		r.begun = true
	}
	r.w.logf("request %d: %s from %s", r.number, o.Class, f.peer)
	return o
}

// wait waits for the answer, or until suspected is closed: then the outcome is of class
// balancer.OutcomeSuperseded.
func (r *request) wait(f *flight, suspected <-chan struct{}) (o balancer.Outcome) {
	now := time.Now()
	limit := r.begin.Add(responseTimeout)
	// Requests that begin together, since they have waited for the same peer, do not
	// time out together.
	own := time.Duration(r.number)
	if perTry := r.routed.Retry.PerTryTimeout; perTry > 0 && f.begin.Add(perTry+own).Before(limit) {
		limit = f.begin.Add(perTry + own)
	}
	o.Class = balancer.OutcomeTimeout
	if answer := f.begin.Add(f.call.after); f.call.after >= 0 && answer.Before(limit) {
		limit, o = answer, f.call.outcome
	}
	if limit.After(now) {
		timer := time.NewTimer(limit.Sub(now))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-f.peer.transport.closed:
		case <-f.call.broken:
		case <-r.gone:
		case <-suspected:
		}
		// Of what happened at the same time, the same counts whenever it is played.
		switch {
		case wake.Closed(r.gone):
			return balancer.Outcome{Class: balancer.OutcomeClientGone}
		case wake.Closed(f.peer.transport.closed), wake.Closed(f.call.broken):
			return balancer.Outcome{Class: balancer.OutcomeReset}
		case wake.Closed(suspected):
			return balancer.Outcome{Class: balancer.OutcomeSuperseded, Latency: time.Since(f.begin)}
		}
	}
	if o.Class != balancer.OutcomeConnectFailure {
		o.Latency = time.Since(f.begin)
	}
	return o
}

func (r *request) Try(t balancer.Token) balancer.Outcome {
	f := r.start(t)
	var suspected <-chan struct{}
	if r.idempotent && r.loop.MayLeave() {
		suspected = f.suspected
	}
	o := r.wait(f, suspected)
	for o.Class == balancer.OutcomeSuperseded {
		changed, left := r.loop.Leave()
		if left {
			r.left++
			r.spared[t.Peer] = true
			return r.end(f, o)
		}
		o = r.wait(f, changed)
	}
	r.count(o)
	return r.end(f, o)
}

func (r *request) Block() places.Block { return places.Many }

func (r *request) Waiting(timeout time.Duration) (context.Context, context.CancelFunc) {
	r.noteWaiting(+1)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	return ctx, func() {
		cancel()
		r.noteWaiting(-1)
	}
}

func (r *request) noteWaiting(change int) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.service.waiting += change
	r.stir()
}

// stir notes that a try or a wait of the request begins or ends.
func (r *request) stir() {
	now := r.service.now()
	now.stirred = append(now.stirred, r)
}

// count records a try that counts for Retry.Attempts.
func (r *request) count(o balancer.Outcome) {
	if o.Class != balancer.OutcomeConnectFailure || r.routed.Retry.Attempts == 1 {
		r.reached++
	}
}

// breaksOff reports whether the client gets a part of the answer of the peer.
func (f *flight) breaksOff(o balancer.Outcome) bool {
	return f.call.partial && o.Class == f.call.outcome.Class
}

// answers reports whether the client gets the answer of the peer.
func answers(o balancer.Outcome) bool {
	return o.Class == balancer.OutcomeOK || o.Class == balancer.OutcomeServerError
}

func (r *request) Replayable() bool {
	if time.Since(r.begin) >= responseTimeout {
		return false
	}
	return !r.touched || r.idempotent
}

func (r *request) Started() bool { return r.begun }
