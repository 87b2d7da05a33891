package consul

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

func enter(t *testing.T, g *gate, n int) {
	t.Helper()
	for range n {
		verify.NoError(t, g.enter(t.Context(), kindNonBlocking))
	}
}

// enterLong enters a query that blocks, and reports whether it may do so for long.
func enterLong(t *testing.T, g *gate) (wait time.Duration, long bool) {
	t.Helper()
	verify.NoError(t, g.enter(t.Context(), kindBlocking))
	return g.shorten(time.Minute, false)
}

func limitOf(g *gate) int {
	limit, _ := (&Client{gate: g}).Capacity()
	return limit
}

// full reports whether g admits no further query.
func full(g *gate) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if g.enter(ctx, kindNonBlocking) != nil {
		return true
	}
	g.leave(kindNonBlocking, false)
	return false
}

func TestGateAdmitsInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2)
		enter(t, g, 2)
		var order []int
		var waiting sync.WaitGroup
		for n := range 3 {
			waiting.Go(func() {
				if g.enter(t.Context(), kindNonBlocking) == nil {
					order = append(order, n)
					g.leave(kindNonBlocking, false)
				}
			})
			synctest.Wait()
		}
		g.leave(kindNonBlocking, false)
		waiting.Wait()
		verify.That(t, len(order) == 3 && order[0] == 0 && order[1] == 1 && order[2] == 2, "admitted %v", order)
	})
}

func TestGateForgetsCanceledQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		enter(t, g, 1)
		cause := errors.New("canceled")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		err := g.enter(ctx, kindNonBlocking)
		verify.That(t, errors.Is(err, cause), "enter: %v, want the cause", err)
		verify.That(t, full(g), "the limit is exceeded")
		g.leave(kindNonBlocking, false)
		verify.That(t, !full(g), "the limit has become lower")
	})
}

// Canceled queries leave their turns, and their places before others, to those that came later.
func TestGateForgetsCanceledTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		enter(t, g, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var canceled, later sync.WaitGroup
		for range 2 * maxInTurn {
			canceled.Go(func() { verify.That(t, g.enter(ctx, kindInTurn) != nil, "a canceled query is admitted") })
		}
		synctest.Wait()
		for range 2 * maxInTurn {
			later.Go(func() {
				verify.NoError(t, g.enter(t.Context(), kindInTurn))
				g.leave(kindInTurn, false)
			})
		}
		synctest.Wait()
		cancel()
		canceled.Wait()
		g.leave(kindNonBlocking, false)
		later.Wait()
		verify.That(t, !full(g), "the limit has become lower")
	})
}

// Otherwise they would be sent to an agent that is known to fail, a few at a time, and their
// callers would hear of that last.
func TestQueriesThatWaitFailWithTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		enter(t, g, 1)
		var failed sync.WaitGroup
		for _, kind := range []queryKind{kindNonBlocking, kindBlocking, kindInTurn} {
			for range 2 * maxInTurn {
				failed.Go(func() {
					err := g.enter(t.Context(), kind)
					verify.That(t, errors.Is(err, errNoLeader), "kind %d: %v, want %v", kind, err, errNoLeader)
				})
			}
		}
		synctest.Wait()
		g.setUnanswered(errNoLeader)
		failed.Wait()
		verify.That(t, full(g), "the limit is exceeded")
		g.leave(kindNonBlocking, false)
		verify.That(t, !full(g), "the limit has become lower")
	})
}

func Test429LowersTheLimitForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(128)
		time.Sleep(time.Minute)
		enter(t, g, 100)
		for range 30 { // concurrent ones count once
			g.refused()
		}
		verify.Equal(t, limitOf(g), 75, "limit after a 429 with 100 queries in flight")
		verify.That(t, full(g), "the limit is exceeded")
		for range 60 {
			time.Sleep(2 * shrinkInterval)
			g.refused()
		}
		verify.Equal(t, limitOf(g), fewest, "limit after many")
		for range 100 {
			g.leave(kindNonBlocking, false)
		}
		time.Sleep(growInterval)
		enter(t, g, 1)
		verify.Equal(t, limitOf(g), fewest+8, "limit some time later")
		for range 40 {
			time.Sleep(growInterval)
			g.leave(kindNonBlocking, false)
			enter(t, g, 1)
		}
		verify.Equal(t, limitOf(g), 128, "limit long after")
	})
}

func TestOversubscription(t *testing.T) {
	g := newGate(128)
	oversubscribed := func() bool { o, _ := g.oversubscription(); return o }
	for range 120 {
		g.countLoop()
	}
	verify.That(t, !oversubscribed(), "oversubscribed by 120 loops with 128 connections")
	_, lasting := g.oversubscription()
	leave := g.countLoop()
	verify.That(t, oversubscribed() && lasting.Err() != nil, "not oversubscribed by 121 loops with 128 connections")
	leave()
	verify.That(t, !oversubscribed(), "oversubscribed after a loop has left")
	g.refused()
	verify.That(t, oversubscribed(), "not oversubscribed after a 429")
}

func TestSharedConnectionsRaiseTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(10)
		for range 50 {
			g.countLoop()
		}
		var multiplexed atomic.Bool
		g.use(&multiplexed)
		multiplexed.Store(true)
		g.adapt()
		enter(t, g, 200)
		c, _ := g.oversubscription()
		verify.That(t, !c, "oversubscribed by 50 loops on shared connections")
		g.setLagging(true)
		c, _ = g.oversubscription()
		verify.That(t, c, "not oversubscribed by 50 loops while servers answer in place of views")
		g.setLagging(false)
		c, _ = g.oversubscription()
		verify.That(t, !c, "oversubscribed by 50 loops on shared connections after that")
		g.use(new(atomic.Bool))
		c, _ = g.oversubscription()
		verify.That(t, c && full(g), "not oversubscribed by 50 loops on 10 connections")
	})
}

func TestGateAdmitsFewQueriesWhileTheAgentDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(100)
		g.setUnanswered(errNoLeader)
		enter(t, g, minConnections)
		verify.That(t, full(g), "more than minConnections are admitted")
		const waiting = 50
		in, out := make(chan struct{}, waiting), make(chan struct{})
		var running sync.WaitGroup
		for range waiting {
			running.Go(func() {
				if g.enter(context.Background(), kindNonBlocking) == nil {
					in <- struct{}{}
					<-out
					g.leave(kindNonBlocking, false)
				}
			})
		}
		synctest.Wait()
		err := g.enter(t.Context(), kindBlocking)
		verify.That(t, err == nil && len(in) <= 0, "blocking query: %v; %d other queries were admitted", err, len(in))
		g.setUnanswered(nil)
		for n := range waiting {
			synctest.Wait()
			got, most := len(in), n+minConnections
			verify.Require(t, got <= most && got != n, "%d are admitted after %d have left, want up to %d", got, n, most)
			out <- struct{}{}
		}
		running.Wait()
		enter(t, g, 100-minConnections-1)
		verify.That(t, full(g), "the limit has become higher")
	})
}

// With more queries that block than places for long ones, the others take turns, and those keep
// theirs.
func TestLongQueriesLeaveTheLastPlaces(t *testing.T) {
	g := newGate(126)
	const last = 3
	for n := range 125 {
		wait, long := enterLong(t, g)
		verify.Equal(t, long, n < 126-last, "query %d blocks for %v, which is long", n, wait)
		verify.Equal(t, wait > lastWait, long, "query %d blocks for long", n)
	}
	g.leave(kindBlocking, true)
	_, long := enterLong(t, g)
	verify.That(t, long, "the next query of one that was long is not")
}

// An agent counts the connections of canceled queries that it continues.
func TestContinuedQueriesLowerTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(100)
		for n := range 90 {
			g.recordContinued(g.multiplexed, time.Now().Add(time.Duration(n+1)*time.Second))
		}
		verify.Equal(t, limitOf(g), 47, "limit")
		oversubscribed, _ := g.oversubscription()
		verify.That(t, !oversubscribed, "continued queries decide who follows an overview")
		time.Sleep(20 * time.Second)
		enter(t, g, 1)
		verify.Equal(t, limitOf(g), 67, "limit when 20 have ended")
		other := new(atomic.Bool)
		g.recordContinued(other, time.Now().Add(time.Hour))
		g.use(other)
		verify.Equal(t, limitOf(g), 100, "limit of another agent")
		time.Sleep(time.Minute)
		g.use(new(atomic.Bool))
		enter(t, g, 1)
		verify.Equal(t, limitOf(g), 100, "limit at the end")
	})
}

// With the queries that block in place, the limit after a 429 may be above what the agent accepts.
// Then they give way.
func TestQueriesGiveWayAfterA429(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Minute)
		g := newGate(126)
		defer g.countLoop()()
		for range 126 {
			defer g.countLoop()()
		}
		for range 6 {
			_, long := enterLong(t, g)
			verify.That(t, long, "a query is not long")
		}
		enter(t, g, 2)
		g.refused()
		verify.Equal(t, limitOf(g), 8, "limit after a 429")
		g.leave(kindBlocking, true)
		wait, _ := enterLong(t, g)
		verify.Equal(t, wait, lastWait, "the next query blocks for")
	})
}

// A gate that has yielded admits few queries, whatever the agent, and more loops than that share
// queries.
func TestGateYields(t *testing.T) {
	g := newGate(126)
	for range minConnections {
		defer g.countLoop()()
	}
	(&Client{gate: g}).ReleaseConnections()
	oversubscribed, _ := g.oversubscription()
	verify.That(t, !oversubscribed && limitOf(g) == minConnections, "oversubscribed %t, limit %d", oversubscribed, limitOf(g))
	defer g.countLoop()()
	oversubscribed, _ = g.oversubscription()
	verify.That(t, oversubscribed, "not oversubscribed")
	g.use(new(atomic.Bool))
	verify.Equal(t, limitOf(g), minConnections, "the limit with another agent")
}
