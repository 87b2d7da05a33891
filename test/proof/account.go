package proof

import (
	"math"
	"sync"
	"sync/atomic"

	"sluice/balancer"
	"sluice/route/places"
)

// account bounds the balance of a retry budget from above, by requests and retries that it counts
// itself. Requests are counted before they pay into the budget, retries after they have paid, and
// whatever order they had within a second, the one that leaves most is assumed: so are retries of
// clients that are told apart paid by the reserve of clients, as long as it has some. So a bound
// below 0 is a violation.
type account struct {
	firsts, retries atomic.Uint64
	ofClients       atomic.Uint64 // of the retries: those of clients that are told apart
	second          atomic.Int64  // of the last audit

	mu sync.Mutex
	// mu guards the fields below.
	terms                                  balancer.RetryBudget
	seenFirsts, seenRetries, seenOfClients uint64
	most                                   float64 // bound of the balance, in retries
	decayed                                float64 // by the last decay: part of the difference
	inReserve                              float64 // bound of what the reserve of clients has left
}

const (
	memory = 10 // seconds: the time constant of the decay to the reserve; a period of that of clients
	nano   = 1e9

	maxReserve = 1024 // retries in the reserve of clients
)

func (a *account) retry(client places.Block) {
	if client != places.Many {
		a.ofClients.Add(1)
	}
	a.retries.Add(1)
}

// open begins anew, with the reserve and some retries more. Those before do not count, requests
// before do.
func (a *account) open(terms balancer.RetryBudget, more int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.terms = terms
	a.seenRetries, a.seenOfClients = a.retries.Load(), a.ofClients.Load()
	a.most = float64(terms.MinPerSecond)*memory + float64(more)
	a.inReserve, a.decayed = min(float64(terms.MinPerSecond)*memory, maxReserve), 0
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
	ofClients := a.ofClients.Load()
	firsts := a.firsts.Load()
	reserve := float64(a.terms.MinPerSecond) * memory
	ofReserve := min(reserve, maxReserve)
	a.inReserve += ofReserve * float64(second/memory-last/memory)
	byReserve := min(float64(ofClients-a.seenOfClients), a.inReserve)
	a.inReserve = min(a.inReserve-byReserve, ofReserve)
	byBudget := float64(retries-a.seenRetries) - byReserve
	a.most += byBudget * a.decayed // the last decay was perhaps as late as after them
	a.most -= byBudget
	keep := math.Exp(-float64(second-last) / memory)
	a.most = reserve + (a.most-reserve)*keep
	a.decayed = 1 - keep
	a.most += float64(a.terms.Ratio)*float64(firsts-a.seenFirsts)*(1+1e-6) + slack
	a.seenFirsts, a.seenRetries, a.seenOfClients = firsts, retries, ofClients
	if a.most < -1 {
		excess, a.most = -a.most, 0
	}
	return excess
}
