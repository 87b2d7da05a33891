package consul

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func enter(t *testing.T, g *gate, n int) {
	t.Helper()
	for range n {
		if err := g.enter(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
}

// full reports whether g lets no more in.
func full(g *gate) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if g.enter(ctx, false) != nil {
		return true
	}
	g.leave(false)
	return false
}

func TestGateLetsInFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2)
		enter(t, g, 2)
		var order []int
		var waiting sync.WaitGroup
		for n := range 3 {
			waiting.Go(func() {
				if g.enter(t.Context(), false) == nil {
					order = append(order, n)
					g.leave(false)
				}
			})
			synctest.Wait()
		}
		g.leave(false)
		waiting.Wait()
		if len(order) != 3 || order[0] != 0 || order[1] != 1 || order[2] != 2 {
			t.Errorf("let in %v", order)
		}
	})
}

func TestGateForgetsWhoGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		enter(t, g, 1)
		why := errors.New("given up")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		if err := g.enter(ctx, false); !errors.Is(err, why) {
			t.Errorf("enter: %v, want the cause", err)
		}
		if !full(g) {
			t.Error("two were let in")
		}
		g.leave(false)
		if full(g) {
			t.Error("a place is lost")
		}
	})
}

func TestTooManyRequestsLowerTheLimitForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(128)
		time.Sleep(time.Minute)
		enter(t, g, 100)
		for range 30 { // those in flight together count once
			g.refused()
		}
		limit, _ := g.size()
		if limit != 75 {
			t.Errorf("limit after a 429 with 100 queries in flight: %d, want 75", limit)
		}
		if !full(g) {
			t.Error("one more was let in")
		}
		for range 60 {
			time.Sleep(2 * shrinkEvery)
			g.refused()
		}
		if limit, _ = g.size(); limit != leastConnections {
			t.Errorf("limit after many: %d, want %d", limit, leastConnections)
		}
		for range 100 {
			g.leave(false)
		}
		time.Sleep(reliefAfter)
		enter(t, g, 1)
		if limit, _ = g.size(); limit != leastConnections+8 {
			t.Errorf("limit some time later: %d, want %d", limit, leastConnections+8)
		}
		for range 40 {
			time.Sleep(reliefAfter)
			g.leave(false)
			enter(t, g, 1)
		}
		if limit, _ = g.size(); limit != 128 {
			t.Errorf("limit long after: %d, want 128", limit)
		}
	})
}

func TestCrowdBeginsAndEndsApart(t *testing.T) {
	g := newGate(128)
	var ends []func()
	crowded := func() bool { c, _ := g.crowd(); return c }
	for range 120 {
		ends = append(ends, g.join())
	}
	if crowded() {
		t.Error("crowded by 120 of 128: the rest is for queries that do not block")
	}
	_, lasting := g.crowd()
	ends = append(ends, g.join())
	if !crowded() || lasting.Err() == nil {
		t.Error("not crowded by 121 of 128")
	}
	for crowded() {
		ends[len(ends)-1]()
		ends = ends[:len(ends)-1]
	}
	if len(ends) != 96 {
		t.Errorf("crowded until there are %d, want 96", len(ends))
	}
	// Fewer connections make a crowd, too.
	g.refused()
	if !crowded() {
		t.Error("not crowded after a 429")
	}
}

func TestSharedConnectionsTakeMoreQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(10)
		for range 50 {
			g.join()
		}
		g.multiplexed(10)
		enter(t, g, 200)
		if c, _ := g.crowd(); c {
			t.Error("50 watches on shared connections are a crowd")
		}
	})
}

// Those who wait for an agent that does not answer are many, and it is to answer
// one after the other when it can.
func TestGateLetsFewInWhileTheAgentDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(100)
		g.setNarrow(true)
		enter(t, g, leastConnections)
		if !full(g) {
			t.Error("more than a few are let in")
		}
		const waiting = 50
		in, out := make(chan struct{}, waiting), make(chan struct{})
		var running sync.WaitGroup
		for range waiting {
			running.Go(func() {
				if g.enter(context.Background(), false) == nil {
					in <- struct{}{}
					<-out
					g.leave(false)
				}
			})
		}
		synctest.Wait()
		if err := g.enter(t.Context(), true); err != nil || len(in) > 0 {
			t.Errorf("%v, %d let in: what blocks is not concerned", err, len(in))
		}
		g.setNarrow(false)
		for n := range waiting {
			synctest.Wait()
			if got, most := len(in), n+leastConnections; got > most || got == n {
				t.Fatalf("%d are let in when %d have left, want up to %d", got, n, most)
			}
			out <- struct{}{}
		}
		running.Wait()
		enter(t, g, 100-leastConnections-1)
		if !full(g) {
			t.Error("the limit is lost")
		}
	})
}
