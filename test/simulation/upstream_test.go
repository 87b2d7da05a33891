package simulation

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"sluice/balancer"
)

// upstreamKind is how the process at an address behaves.
type upstreamKind uint8

const (
	upstreamFine upstreamKind = iota
	upstreamSlow
	upstreamRefuses
	upstreamResets
	upstreamHangs
	upstreamFails      // answers 500
	upstreamOverloaded // answers 503
	upstreamFlaky      // anything

	numUpstreamKinds = iota
)

func (k upstreamKind) String() string {
	return [...]string{"fine", "slow", "refuses", "resets", "hangs", "fails", "overloaded", "flaky"}[k]
}

// upstream is the process at an address. w.mu guards its fields.
type upstream struct {
	w       *world
	address string
	kind    upstreamKind
	since   time.Time
	broken  chan struct{} // closed, and replaced, when its connections break
	probes  int
}

func newUpstream(w *world, address string) *upstream {
	return &upstream{w: w, address: address, since: time.Now(), broken: make(chan struct{})}
}

func (u *upstream) become(kind upstreamKind) {
	if u.kind == kind {
		return
	}
	u.kind, u.since = kind, time.Now()
	u.w.logf("upstream %s: %s", u.address, kind)
	if kind == upstreamRefuses || kind == upstreamResets { // it has ended
		close(u.broken)
		u.broken = make(chan struct{})
	}
}

// call is the result of a request after some time.
type call struct {
	after   time.Duration // 0: at once; negative: never
	outcome balancer.Outcome
	partial bool // it breaks off after the client has got something
	broken  <-chan struct{}
}

// answer chooses the result of a request that begins now.
func (u *upstream) answer(random *rand.Rand) call {
	kind := u.kind
	for kind == upstreamFlaky {
		kind = upstreamKind(random.IntN(numUpstreamKinds))
	}
	c := call{after: upTo(random, 5*time.Millisecond), broken: u.broken}
	switch kind {
	case upstreamFine:
		c.outcome = balancer.Outcome{Class: balancer.OutcomeOK, Status: 200}
	case upstreamSlow:
		c.after = upTo(random, 3*time.Second)
		c.outcome = balancer.Outcome{Class: balancer.OutcomeOK, Status: 200}
	case upstreamRefuses:
		c.outcome.Absent = true
		if c.outcome.Class = balancer.OutcomeConnectFailure; random.IntN(2) == 0 {
			c.after = 0
		}
	case upstreamResets:
		if c.outcome.Class = balancer.OutcomeReset; random.IntN(4) == 0 {
			c.outcome.Class = balancer.OutcomeStale
		}
		c.partial = random.IntN(4) == 0
	case upstreamHangs:
		c.after = -1
	case upstreamFails:
		c.outcome = balancer.Outcome{Class: balancer.OutcomeServerError, Status: 500}
	case upstreamOverloaded:
		c.outcome = balancer.Outcome{Class: balancer.OutcomeServerError, Status: 503}
	}
	return c
}

func upTo(random *rand.Rand, limit time.Duration) time.Duration {
	return 1 + time.Duration(random.Int64N(int64(limit)))
}

// healthy returns the result of an active check, if it is certain.
func (u *upstream) healthy() (passes, certain bool) {
	switch u.kind {
	case upstreamFine, upstreamSlow:
		return true, true
	case upstreamFlaky:
		return false, false
	}
	return false, true
}

// transport is the model of the connections to a peer.
type transport struct {
	peer      *peer
	closed    chan struct{}
	suspected chan struct{} // closed by Suspect, which makes another one
}

func (t *transport) Drain() {
	t.peer.service.w.mu.Lock()
	defer t.peer.service.w.mu.Unlock()
	if t.peer.closed {
		t.peer.service.w.violateLocked("%s: Drain of a closed transport", t.peer)
	}
}

func (t *transport) Suspect() {
	w := t.peer.service.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logf("%s: suspected", t.peer)
	close(t.suspected)
	t.suspected = make(chan struct{})
}

func (t *transport) Close() {
	w := t.peer.service.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logf("%s: transport closed", t.peer)
	if t.peer.closed {
		w.violateLocked("%s: transport closed twice", t.peer)
		return
	}
	t.peer.closed = true
	if t.peer.left.IsZero() && !t.peer.leavesNow() {
		w.violateLocked("%s: transport closed although the peer has not left", t.peer)
	}
	if t.peer.inflight > 0 {
		w.counts["peer cut"]++
		if t.peer.left.IsZero() || time.Since(t.peer.left) < t.peer.drainTimeout {
			w.violateLocked("%s: transport closed with %d in flight before the drain timeout", t.peer, t.peer.inflight)
		}
	}
	close(t.closed)
}

func (w *world) probe(ctx context.Context, address string) error {
	w.mu.Lock()
	u := w.upstreams[address]
	u.probes++
	// Checks of several peers run at once: what one finds must not depend on
	// the order.
	random := stream(w.seed, streamProbe, int(hash(address))<<8+u.probes)
	kind := u.kind
	for kind == upstreamFlaky {
		kind = upstreamKind(random.IntN(numUpstreamKinds))
	}
	w.mu.Unlock()
	if kind == upstreamHangs {
		<-ctx.Done()
		// Checks that begin together do not end together.
		time.Sleep(time.Duration(1 + hash(address)%1000))
		return errors.New("timed out")
	}
	if !sleep(ctx, upTo(random, 20*time.Millisecond)) {
		return ctx.Err()
	}
	if kind == upstreamFine || kind == upstreamSlow {
		return nil
	}
	w.count("check failed")
	return errors.New(kind.String())
}

func hash(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}
