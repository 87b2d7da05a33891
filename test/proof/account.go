package proof

import (
	"math"
	"sync"
	"sync/atomic"

	"sluice/balancer"
)

// account bounds the balance of a retry budget from above, by requests and retries that it counts
// itself. Requests are counted before they pay into the budget, retries after they have paid, and
// whatever order they had within a second, the one that leaves most is assumed. So a bound below 0
// is a violation.
type account struct {
	firsts, retries atomic.Uint64
	second          atomic.Int64 // of the last audit

	mu sync.Mutex
	// mu guards the fields below.
	terms                   balancer.RetryBudget
	seenFirsts, seenRetries uint64
	most                    float64 // bound of the balance, in retries
}

const (
	memory = 10 // seconds: the time constant with which a balance falls to its reserve
	nano   = 1e9
)

// open begins anew, with the reserve and some retries more. Those before do not count, requests
// before do.
func (a *account) open(terms balancer.RetryBudget, more int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.terms = terms
	a.seenRetries = a.retries.Load()
	a.most = float64(terms.MinPerSecond)*memory + float64(more)
	a.second.Store(balancer.Now() / nano)
}

// audit brings the bound to now, once in a second, and returns by how many retries the budget was
// exceeded. late returns how many retries have paid and may not be counted yet.
func (a *account) audit(now int64, late func() int) (excess float64) {
	second, last := now/nano, a.second.Load()
	if second <= last || !a.mu.TryLock() {
		return 0
	}
	defer a.mu.Unlock()
	if !a.second.CompareAndSwap(last, second) {
		return 0
	}
	slack := float64(late())
	retries := a.retries.Load() // before firsts: those that they use are counted
	firsts := a.firsts.Load()
	reserve := float64(a.terms.MinPerSecond) * memory
	a.most -= float64(retries - a.seenRetries)
	a.most = reserve + (a.most-reserve)*math.Exp(-float64(second-last)/memory)
	a.most += float64(a.terms.Ratio)*float64(firsts-a.seenFirsts)*(1+1e-6) + slack
	a.seenFirsts, a.seenRetries = firsts, retries
	if a.most < -1 {
		excess, a.most = -a.most, 0
	}
	return excess
}
