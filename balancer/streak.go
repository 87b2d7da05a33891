package balancer

import (
	"cmp"
	"math"
)

// Streak counts consecutive failures of a peer. Each field counts more kinds of failure
// than the one before; any other result of the peer resets it to 0. Outcomes that say
// nothing about the peer, such as [OutcomeClientGone], change nothing. Fields stop at
// 65535.
type Streak struct {
	// Connect counts connect failures.
	Connect int
	// Gateway also counts timeouts, resets, and the answers 502, 503 and 504
	// (Envoy's gateway failures).
	Gateway int
	// Any also counts every other 5xx answer.
	Any int
}

func (s Streak) after(o Outcome) Streak {
	next := Streak{Any: s.Any + 1}
	switch {
	case o.Class == OutcomeConnectFailure:
		next.Connect, next.Gateway = s.Connect+1, s.Gateway+1
	case o.Class != OutcomeServerError, o.Status >= 502 && o.Status <= 504:
		next.Gateway = s.Gateway + 1
	}
	return next
}

// afterUncounted returns s after a failure that does not count, but shows that the peer is there.
func (s Streak) afterUncounted(o Outcome) Streak {
	s.Connect = 0
	if o.Class == OutcomeServerError && (o.Status < 502 || o.Status > 504) {
		s.Gateway = 0
	}
	return s
}

// pack returns s as one word, 0 for no failures.
func (s Streak) pack() uint64 {
	field := func(n int) uint64 { return uint64(min(max(n, 0), math.MaxUint16)) }
	return field(s.Connect) | field(s.Gateway)<<16 | field(s.Any)<<32
}

func unpackStreak(word uint64) Streak {
	field := func(shift int) int { return int(word >> shift & math.MaxUint16) }
	return Streak{Connect: field(0), Gateway: field(16), Any: field(32)}
}

// Streak returns the consecutive failures, counted only while Options.OnFailure is set, or the peer
// is on probation.
func (p *Peer) Streak() Streak { return unpackStreak(p.streak.Load()) }

// ResetStreak sets the consecutive failures to s. Attempts that started before do not
// count.
func (p *Peer) ResetStreak(s Streak) {
	p.streakStart.Store(nanotime())
	p.unconnected.Store(0)
	p.changeStreak(func(Streak) Streak { return s })
}

// changeStreak sets the streak to what next returns for it, and returns that.
func (p *Peer) changeStreak(next func(Streak) Streak) Streak {
	for {
		word := p.streak.Load()
		is := next(unpackStreak(word)).pack()
		if p.streak.CompareAndSwap(word, is|word&looked) {
			return unpackStreak(is)
		}
	}
}

// endStreak ends the streak because of an attempt that started at start and that the
// peer answered at answered. Later failures say more about the peer: the end of an old
// stream or download is no sign that it works.
func (p *Peer) endStreak(start, answered int64, endpoint uint32) {
	if start < p.streakStart.Load() || answered < p.lastFailure.Load() {
		return
	}
	word := p.streak.Load()
	if word&looked != 0 {
		p.pool.alike.worked(p, endpoint, answered)
	}
	p.row.Store(0)
	if p.unconnected.Load() != 0 {
		p.unconnected.Store(0)
	}
	if word&^looked != 0 {
		p.changeStreak(func(Streak) Streak { return Streak{} })
	}
}

// fail records a failed attempt that started at start, and calls Options.OnFailure if it counts. It
// may end the use of a peer on probation.
func (p *Peer) fail(start int64, o Outcome) {
	if p.pool.onFailure.Load() == nil && !p.condition.Load().mayFail() {
		return
	}
	if o.Shared || !o.Class.Failure() || start < p.streakStart.Load() {
		return
	}
	p.lastFailure.Store(nanotime())
	p.lastClass.Store(uint32(o.Class)<<16 | uint32(o.Status))
	if o.Class != OutcomeConnectFailure {
		p.unconnected.Store(0)
	} else if p.isGone(start, o) && p.condition.Load().mayFail() {
		p.pool.failOnProbation(p)
	}
	failures := 1
	if o.Class != OutcomeConnectFailure && o.Endpoint != 0 && len(p.pool.snapshot.Load().All) > 1 {
		failures = p.pool.alike.failed(p, o.Endpoint)
	}
	if failures > 0 {
		p.grow(o, failures)
		return
	}
	p.changeStreak(func(s Streak) Streak { return s.afterUncounted(o) })
}

// unpackFailure returns the failure of Peer.lastClass.
func unpackFailure(last uint32) Outcome {
	return Outcome{Class: OutcomeClass(last >> 16), Status: int(last & math.MaxUint16)}
}

// grow counts a failure, and calls Options.OnFailure. least is how many failures in a row there
// were at like requests, if some of them did not count when they came.
func (p *Peer) grow(o Outcome, least int) {
	is := p.changeStreak(func(s Streak) Streak {
		next := s.after(o)
		for range least - cmp.Or(next.Gateway, next.Any) {
			next = next.after(o)
		}
		return next
	})
	if observe := p.pool.onFailure.Load(); observe != nil {
		(*observe)(p, o, is)
	}
}

// isGone reports whether a connect failure of an attempt that started at start shows that nobody is
// there any more. Without an answer of the host, sluice itself may have stood still: so another
// attempt must have failed before this one started, and none has connected since.
func (p *Peer) isGone(start int64, o Outcome) bool {
	before := p.unconnected.Load()
	if before == 0 {
		p.unconnected.CompareAndSwap(0, nanotime())
	}
	return o.Absent || before != 0 && start >= before
}
