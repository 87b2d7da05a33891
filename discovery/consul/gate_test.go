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
		if err := g.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// full reports whether g lets no more in.
func full(g *gate) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if g.enter(ctx) != nil {
		return true
	}
	g.leave()
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
				if g.enter(t.Context()) == nil {
					order = append(order, n)
					g.leave()
				}
			})
			synctest.Wait()
		}
		g.leave()
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
		if err := g.enter(ctx); !errors.Is(err, why) {
			t.Errorf("enter: %v, want the cause", err)
		}
		if !full(g) {
			t.Error("two were let in")
		}
		g.leave()
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
			g.leave()
		}
		time.Sleep(reliefAfter)
		enter(t, g, 1)
		if limit, _ = g.size(); limit != leastConnections+8 {
			t.Errorf("limit some time later: %d, want %d", limit, leastConnections+8)
		}
		for range 40 {
			time.Sleep(reliefAfter)
			g.leave()
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
