package balancer

import "math"

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

// pack returns s as one word, 0 for no failures.
func (s Streak) pack() uint64 {
	field := func(n int) uint64 { return uint64(min(max(n, 0), math.MaxUint16)) }
	return field(s.Connect) | field(s.Gateway)<<16 | field(s.Any)<<32
}

func unpackStreak(word uint64) Streak {
	field := func(shift int) int { return int(word >> shift & math.MaxUint16) }
	return Streak{Connect: field(0), Gateway: field(16), Any: field(32)}
}

// Streak returns the consecutive failures, counted only while Options.OnFailure is set.
func (p *Peer) Streak() Streak { return unpackStreak(p.streak.Load()) }

// ResetStreak sets the consecutive failures to s. Attempts that started before do not
// count.
func (p *Peer) ResetStreak(s Streak) {
	p.streakStart.Store(nanotime())
	p.streak.Store(s.pack())
}

// endStreak ends the streak because of an attempt that started at start and that the
// peer answered at answered. Later failures say more about the peer: the end of an old
// stream or download is no sign that it works.
func (p *Peer) endStreak(start, answered int64) {
	if start >= p.streakStart.Load() && answered >= p.lastFailure.Load() {
		p.streak.Store(0)
	}
}

// fail records a failed attempt that started at start, and calls Options.OnFailure. A
// peer on probation is out of use after one connect failure.
func (p *Peer) fail(start int64, o Outcome) {
	if o.Class == OutcomeConnectFailure {
		if c := p.condition.Load(); c.onProbation() && c.failed == "" {
			p.pool.failOnProbation(p)
		}
	}
	observe := p.pool.onFailure.Load()
	if observe == nil || o.Shared || !o.Class.Failure() || start < p.streakStart.Load() {
		return
	}
	p.lastFailure.Store(nanotime())
	for {
		word := p.streak.Load()
		next := unpackStreak(word).after(o).pack()
		if p.streak.CompareAndSwap(word, next) {
			(*observe)(p, o, unpackStreak(next))
			return
		}
	}
}
