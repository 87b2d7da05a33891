package balancer

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/route/places"
	"sluice/test/verify"
)

// retries returns how many retries p allows now.
func retries(t *testing.T, p *Pool) int {
	t.Helper()
	n := 0
	for {
		q := triedOne()
		token, err := p.Pick(&q)
		if err == ErrRetryBudget {
			return n
		}
		verify.NoError(t, err)
		token.Done(Outcome{})
		n++
	}
}

// triedOne returns the query of a retry, which has tried one peer.
func triedOne() Query {
	var q Query
	q.Tried.Add(&Peer{})
	return q
}

// requests sends n requests that succeed.
func requests(t *testing.T, p *Pool, n int) {
	t.Helper()
	for range n {
		mustPick(t, p, nil).Done(Outcome{})
	}
}

func TestRetriesAreAShareOfTheRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{RetryBudget: &RetryBudget{Ratio: 0.2}}, instances(2)...)
		verify.Equal(t, retries(t, p), 0, "retries before any request")
		requests(t, p, 1001)
		verify.Equal(t, p.Admission.RetriesLeft(p.Snapshot()), 200, "retries are left after 1001 requests")
		verify.Equal(t, retries(t, p), 200, "retries after 1001 requests")
		verify.Equal(t, p.Admission.RetriesLeft(p.Snapshot()), 0, "retries are left after all of them")
		// If all attempts fail, one in five requests is retried.
		var first, again int
		for range 60 {
			for range 100 {
				mustPick(t, p, nil).Done(Outcome{Class: OutcomeConnectFailure})
				first++
			}
			again += retries(t, p)
			time.Sleep(time.Second)
		}
		share := float64(again) / float64(first)
		verify.That(t, share >= 0.199 && share <= 0.201, "%.1f %% retries, want 20 %%", share*100)
	})
}

// A client whose requests fail at every peer uses up the budget. Requests of others are retried
// nevertheless, and all retries together stay bounded.
func TestAClientThatFailsEverywhereLeavesRetriesToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{RetryBudget: &RetryBudget{MinPerSecond: 10}}, instances(2)...)
		retriesOf := func(client places.Block) (n int) {
			q := triedOne()
			for q.Block = client; ; n++ {
				may := p.Admission.MayRetry(p.Snapshot(), client)
				token, err := p.Pick(&q)
				verify.Equal(t, may, err == nil, "MayRetry")
				if err == ErrRetryBudget {
					return n
				}
				verify.NoError(t, err)
				token.Done(Outcome{})
			}
		}
		q := Query{Block: addressed(9)}
		for _, peer := range p.Snapshot().All {
			q.Tried.Add(peer)
		}
		expectPick(t, p, &q, ErrAllTried)
		verify.Equal(t, retriesOf(addressed(0)), 100+13, "retries of the client that fails: the budget, and a share of the reserve")
		expectPick(t, p, &q, ErrAllTried) // takes nothing
		for n := range byte(6) {
			verify.Equal(t, retriesOf(addressed(1+n)), 13, "retries of another client")
		}
		verify.Equal(t, retriesOf(addressed(7)), 100-7*13, "the rest of the reserve")
		verify.Equal(t, retriesOf(places.Many), 0, "retries of clients that nobody tells apart")
		time.Sleep(budgetMemory)
		verify.That(t, retriesOf(addressed(0)) > 13, "retries later")
		verify.Equal(t, retriesOf(addressed(1)), 13, "retries of another client later")
	})
}

// A pick may have begun in the period before, and have stood still since.
func TestALatePickDoesNotRefillTheReserve(t *testing.T) {
	var r reserve
	terms := newBudgetTerms(&RetryBudget{MinPerSecond: 10})
	period := int64(budgetMemory)
	for range 13 {
		verify.That(t, r.withdraw(terms, addressed(0), 5*period), "a retry of the client's share")
	}
	verify.That(t, r.withdraw(terms, addressed(1), 5*period-1), "a late retry of another client")
	verify.That(t, !r.withdraw(terms, addressed(0), 5*period), "the client has a second share")
	verify.That(t, r.withdraw(terms, addressed(0), 6*period), "a retry in the next period")
}

func TestBudgetAccumulatesForTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{RetryBudget: &RetryBudget{Ratio: 0.2}}, instances(2)...)
		for range 120 { // two minutes
			requests(t, p, 400)
			time.Sleep(time.Second)
		}
		got := retries(t, p)
		verify.That(t, got >= 700 && got <= 900, "%d retries at once after a long time with 400 requests a second, want about 800", got)
		requests(t, p, 400)
		time.Sleep(10 * time.Second)
		got = retries(t, p)
		verify.That(t, got >= 25 && got <= 35, "%d retries 10 seconds after 400 requests, want about 80/e", got)
	})
}

// With few requests, each may be retried.
func TestMinimumOfRetriesIsAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{RetryBudget: &RetryBudget{MinPerSecond: 10}}, instances(2)...)
		verify.Equal(t, retries(t, p), 100, "retries at the start")
		total := 0
		for range 100 {
			time.Sleep(time.Second)
			total += retries(t, p)
		}
		verify.That(t, total >= 900 && total <= 1000, "%d retries in 100 seconds, want nearly 1000", total)
		time.Sleep(time.Hour)
		verify.Equal(t, retries(t, p), 100, "retries after an hour")
	})
}

// Concurrent retries together do not exceed the budget.
func TestConcurrentRetriesDoNotExceedTheBudget(t *testing.T) {
	const goroutines, each = 8, 2000
	terms := newBudgetTerms(&RetryBudget{Ratio: 0.5})
	var b budget
	var taken atomic.Int64
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			for i := range each {
				now := int64(time.Second) * int64(i/500) // the same time in all goroutines
				if g%2 == 0 {
					b.deposit(terms, now)
				} else if b.withdraw(terms, now) {
					taken.Add(1)
				}
			}
		})
	}
	all.Wait()
	paid := int64(goroutines / 2 * each / 2)
	verify.That(t, taken.Load() <= paid, "%d retries, but only %d were paid for", taken.Load(), paid)
	verify.That(t, b.balance.Load() >= 0, "balance %d", b.balance.Load())
}

func TestBudgetAfterALongPauseOrABackwardClock(t *testing.T) {
	terms := newBudgetTerms(&RetryBudget{Ratio: 1e6, MinPerSecond: 1e6})
	var b budget
	b.open(terms, 0)
	for range 1000 {
		b.deposit(terms, math.MaxInt64)
	}
	b.deposit(terms, math.MinInt64)
	b.deposit(terms, math.MaxInt64)
	verify.That(t, b.withdraw(terms, 0), "no retry")
}
