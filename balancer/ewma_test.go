package balancer

import (
	"math"
	"testing"
	"time"

	"sluice/test/verify"
)

func TestCompare(t *testing.T) {
	f := func(p, q *Peer, now int64, wantA, wantB float64) {
		t.Helper()
		a, b := compare(p, q, now)
		verify.That(t, near(a/b, wantA/wantB), "%v : %v, want %v : %v", a, b, wantA, wantB)
		a, b = compare(q, p, now)
		verify.That(t, near(a/b, wantB/wantA), "the other way round: %v : %v, want %v : %v", a, b, wantB, wantA)
	}
	known := func(latency time.Duration, end int64) *Peer {
		p := new(Peer)
		p.latency.observe(latency, end)
		return p
	}
	f(known(5*ms, begin), known(20*ms, begin), begin, 5, 20)
	f(known(5*ms, begin), known(time.Minute, begin), begin, 1, maxSlower)
	f(new(Peer), known(5*ms, begin), begin, 1, 1)
	f(new(Peer), new(Peer), begin, 1, 1)
	// An old latency does not count, whichever of the two it is.
	f(known(5*ms, 0), known(20*ms, begin), begin, 1, 1)
	f(known(5*ms, begin), known(20*ms, 0), begin, 1, 1)
	// The faster one wins, even if it has been idle for a while.
	after := begin + int64(minDecay)
	f(known(5*ms, begin), known(20*ms, after), after, 1, 1+3*math.Exp(-fasterAge))
	f(known(5*ms, after), known(20*ms, begin), after, 1, 1+3*math.Exp(-1))
}
