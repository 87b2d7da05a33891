package balancer

import (
	"errors"
	"math"
	"sync/atomic"
	"time"
)

// RetryBudget bounds the retries of a pool in relation to its requests, so that
// a service in trouble is not finished off by requests that come again. A share
// of few requests is next to nothing; MinPerSecond allows for those.
//
// As in Finagle (twitter.github.io/finagle, RetryBudget.scala) both are saved
// up for about ten seconds, so that a burst of failures, such as a peer's
// crash, finds a reserve: ten seconds' worth of MinPerSecond and of Ratio times
// the requests. A limit on the retries in flight, as Envoy's, has none.
type RetryBudget struct {
	// Ratio is how many retries there may be for each request, 0.2 for 20 %.
	Ratio float64
	// MinPerSecond is how many retries per second there may be besides.
	MinPerSecond float64
}

// DefaultRetryBudget is Options.RetryBudget when it is nil. The values are
// Finagle's.
var DefaultRetryBudget = RetryBudget{Ratio: 0.2, MinPerSecond: 10}

func (b RetryBudget) check() error {
	const most = 1e6
	if !(b.Ratio >= 0 && b.Ratio <= most && b.MinPerSecond >= 0 && b.MinPerSecond <= most) {
		return errors.New("retry budget: want a ratio and a number per second from 0 to 1000000")
	}
	return nil
}

// retryPrice is what a retry takes from a budget; a budget counts in fractions
// of it.
const retryPrice = 1 << 20

// budgetMemory is the time after which what was saved is 1/e of what it was.
const budgetMemory = 10 * time.Second

// budgetTerms are a RetryBudget in fractions of a retry.
type budgetTerms struct {
	perRequest int64
	reserve    float64 // what MinPerSecond amounts to
}

func newBudgetTerms(b *RetryBudget) budgetTerms {
	return budgetTerms{
		perRequest: int64(math.Ceil(b.Ratio * retryPrice)),
		reserve:    b.MinPerSecond * budgetMemory.Seconds() * retryPrice,
	}
}

// budget is an account to which each request pays in and from which each retry
// takes. It forgets old payments step by step, once a second. It is safe for
// concurrent use without a lock.
type budget struct {
	balance atomic.Int64 // in fractions of a retry; for a moment it may be below 0
	second  atomic.Int64 // in which balance was last brought up to date
}

// open fills a new account with its reserve.
func (b *budget) open(t budgetTerms, now int64) {
	b.balance.Store(int64(t.reserve))
	b.second.Store(now / int64(time.Second))
}

// deposit pays in for one request.
func (b *budget) deposit(t budgetTerms, now int64) {
	b.settle(t, now)
	b.balance.Add(t.perRequest)
}

// withdraw takes one retry, or reports false if there is not enough for it.
func (b *budget) withdraw(t budgetTerms, now int64) bool {
	b.settle(t, now)
	if b.balance.Add(-retryPrice) >= 0 {
		return true
	}
	b.refund()
	return false
}

// refund undoes withdraw.
func (b *budget) refund() { b.balance.Add(retryPrice) }

// settle lets the balance approach the reserve, as it does with time.
func (b *budget) settle(t budgetTerms, now int64) {
	second, last := now/int64(time.Second), b.second.Load()
	if second <= last || !b.second.CompareAndSwap(last, second) {
		return
	}
	keep := math.Exp(-float64(second-last) / budgetMemory.Seconds())
	for {
		balance := b.balance.Load()
		next := t.reserve + (float64(balance)-t.reserve)*keep
		if b.balance.CompareAndSwap(balance, int64(next)) {
			return
		}
	}
}
