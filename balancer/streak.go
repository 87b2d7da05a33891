package balancer

import "math"

// Streak is how many attempts on a peer have failed in a row. Each field counts
// more kinds of failure than the one before, and an attempt that ended in a way
// it does not count ends it. Outcomes that say nothing about the peer, such as
// [OutcomeClientGone], neither count nor end a streak. Fields stop at 65535.
type Streak struct {
	// Connect counts connect failures.
	Connect int
	// Gateway also counts timeouts, resets, and the answers 502, 503 and 504:
	// what Envoy calls gateway failures.
	Gateway int
	// Any also counts every other 5xx answer.
	Any int
}

// after returns the streak after one more failure.
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

// pack returns s in one word, which is 0 for no failure.
func (s Streak) pack() uint64 {
	field := func(n int) uint64 { return uint64(min(max(n, 0), math.MaxUint16)) }
	return field(s.Connect) | field(s.Gateway)<<16 | field(s.Any)<<32
}

func unpackStreak(word uint64) Streak {
	field := func(shift int) int { return int(word >> shift & math.MaxUint16) }
	return Streak{Connect: field(0), Gateway: field(16), Any: field(32)}
}

// Streak returns the failures in a row. They are counted only while
// Options.OnFailure is set.
func (p *Peer) Streak() Streak { return unpackStreak(p.streak.Load()) }

// ResetStreak makes s the failures in a row, as if they had just happened.
// Attempts that started before do not count any more, whatever becomes of them:
// they say nothing about what the peer is now.
func (p *Peer) ResetStreak(s Streak) {
	p.streakStart.Store(nanotime())
	p.streak.Store(s.pack())
}

// endStreak takes in that an attempt that started at start succeeded.
func (p *Peer) endStreak(start int64) {
	if start >= p.streakStart.Load() {
		p.streak.Store(0)
	}
}

// fail takes in how an attempt that started at start ended, if it failed, and
// tells Options.OnFailure. On probation a peer has one try to be connected to.
func (p *Peer) fail(start int64, o Outcome) {
	if o.Class == OutcomeConnectFailure {
		if c := p.condition.Load(); c.onProbation() && c.failed == "" {
			p.pool.failOnProbation(p)
		}
	}
	observe := p.pool.onFailure.Load()
	if observe == nil || !o.Class.Failure() || start < p.streakStart.Load() {
		return
	}
	for {
		word := p.streak.Load()
		next := unpackStreak(word).after(o).pack()
		if p.streak.CompareAndSwap(word, next) {
			(*observe)(p, o, unpackStreak(next))
			return
		}
	}
}
