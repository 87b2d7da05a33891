package balancer

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"sluice/config/units"
	"sluice/route/places"
)

// RetryBudget bounds retries in proportion to requests, so that retries do not overload
// a failing service. MinPerSecond allows retries when there are few requests.
//
// As in Finagle (twitter.github.io/finagle, RetryBudget.scala) the budget accumulates
// over about ten seconds, so that a burst of failures, such as the crash of a peer,
// finds a reserve. Envoy's limit on concurrent retries has no reserve.
type RetryBudget struct {
	// Ratio is the number of retries per request: 0.2 for 20 %.
	Ratio units.Ratio `key:"budget" default:"20%" min:"0" max:"10"`
	// MinPerSecond is the number of retries per second on top of Ratio.
	MinPerSecond int `key:"min_per_second" default:"10" min:"0" max:"1000000"`
}

// retryPrice is the cost of one retry in the units of a budget.
const retryPrice = 1 << 20

// budgetMemory is the time constant of the decay towards the reserve.
const budgetMemory = 10 * time.Second

// budgetTerms are a RetryBudget in the units of a budget.
type budgetTerms struct {
	perRequest int64
	reserve    float64 // MinPerSecond × budgetMemory
}

func newBudgetTerms(b *RetryBudget) budgetTerms {
	return budgetTerms{
		perRequest: int64(math.Ceil(float64(b.Ratio) * retryPrice)),
		reserve:    float64(b.MinPerSecond) * budgetMemory.Seconds() * retryPrice,
	}
}

// budget is an account: each request adds to it, each retry takes from it, and once a
// second it decays towards the reserve. It is safe for concurrent use without a lock.
type budget struct {
	balance atomic.Int64 // may be below 0 for a moment
	second  atomic.Int64 // of the last decay
}

func (b *budget) open(t budgetTerms, now int64) {
	b.balance.Store(int64(t.reserve))
	b.second.Store(now / int64(time.Second))
}

func (b *budget) deposit(t budgetTerms, now int64) {
	b.decay(t, now)
	b.balance.Add(t.perRequest)
}

// withdraw takes one retry; false if the balance is too low.
func (b *budget) withdraw(t budgetTerms, now int64) bool {
	b.decay(t, now)
	if b.balance.Add(-retryPrice) >= 0 {
		return true
	}
	b.refund()
	return false
}

// left returns how many retries can be withdrawn now.
func (b *budget) left(t budgetTerms, now int64) int {
	b.decay(t, now)
	return int(max(0, b.balance.Load()) / retryPrice)
}

func (b *budget) refund() { b.balance.Add(retryPrice) }

func (b *budget) decay(t budgetTerms, now int64) {
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

const (
	// reserveShare is the part of a reserve that a client may use.
	reserveShare = 8
	// maxReserve bounds the memory of a reserve: the retries in it.
	maxReserve = 1024
)

// reserve is a second MinPerSecond of a [RetryBudget], for clients that use little of it. Requests
// of one client that fail at every peer may use up the budget: the reserve retries those of others
// when a peer crashes. The zero value is full. It is safe for concurrent use.
type reserve struct {
	mu sync.Mutex
	// mu guards the fields below.
	period  int64 // of budgetMemory, in which the rest was used
	used    int
	clients map[places.Block]int // how much each has used
}

// withdraw takes one retry of a client; false if it has used its share, or if nothing is left.
// Clients that nobody tells apart have the budget only.
func (r *reserve) withdraw(t budgetTerms, client places.Block, now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.allowsLocked(t, client, now) {
		return false
	}
	if r.clients == nil {
		r.clients = make(map[places.Block]int)
	}
	r.used++
	r.clients[client]++
	return true
}

// refund undoes withdraw.
func (r *reserve) refund(client places.Block) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.clients[client] > 0 { // else the period is over
		r.used--
		r.clients[client]--
	}
}

// allows reports whether withdraw would take a retry.
func (r *reserve) allows(t budgetTerms, client places.Block, now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.allowsLocked(t, client, now)
}

func (r *reserve) allowsLocked(t budgetTerms, client places.Block, now int64) bool {
	// A pick that began in an earlier period may be late.
	if period := now / int64(budgetMemory); period > r.period || r.clients == nil {
		r.period, r.used = period, 0
		clear(r.clients)
	}
	all := min(int(t.reserve/retryPrice), maxReserve)
	share := (all + reserveShare - 1) / reserveShare
	return client != places.Many && r.used < all && r.clients[client] < share
}
