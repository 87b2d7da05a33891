// Package proof checks the rules of pools while a test runs: the invariants of test/simulation, as
// far as one process can see them. A [Proof] makes the witness of each pool ([Proof.Witness] is
// balancer.Options.NewWitness). A witness reads what the pool is told (sets, verdicts, orders,
// options), decides by itself which peers may get requests and in which order, and counts attempts
// by itself. It looks at no condition of a peer, no picker and no counter of the pool but to
// compare.
//
// # Time
//
// A request belongs to the snapshot that its pick loaded, however long its goroutine stands still
// afterwards. So an attempt is judged by the time of its pick, which is read before the snapshot
// is: a peer is out of use since the moment when the snapshot without it was stored, and only a
// pick that began more than [Grace] later breaks the rule.
//
// # What a count proves
//
// A witness counts an attempt after the pool has, and its end before. So its own count is never
// above the true one, and a count of it above a limit is a violation, whatever else runs.
package proof

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/balancer"
)

// Kind is the rule that was broken.
type Kind uint8

const (
	// Removed: a request began at a peer that had left the set of its service.
	Removed Kind = iota
	// Ineligible: at a peer that was critical, drained or ejected, or that failed its checks; not
	// in panic.
	Ineligible
	// Group: at a peer outside the group of the route and its fallback, or of the fallback before
	// the group was tried.
	Group
	// Tier: at a peer of a tier without a share, though a peer of an earlier tier had not been
	// tried.
	Tier
	// Tried: at a peer that the request had tried.
	Tried
	// Limit: more requests or retries in flight than a limit allows.
	Limit
	// RetryBudget: more retries than the budget allows.
	RetryBudget
	// TokenKind: a token was done twice.
	TokenKind
	// InFlight: requests were in flight when a drain ended before its time, or counts of them are
	// not 0 after the end.
	InFlight
	// Outcomes: the sum of a peer's outcomes is not the number of its picks.
	Outcomes

	// NumKinds is the number of kinds; they count from 0.
	NumKinds = int(Outcomes) + 1
)

func (k Kind) String() string {
	return [NumKinds]string{
		"removed", "ineligible", "group", "tier", "tried", "limit", "retry_budget", "token", "in_flight", "outcomes",
	}[k]
}

// Grace is how long after the snapshot without a peer a pick may still find it.
const Grace = 100 * time.Millisecond

// Proof counts the violations of all pools. It is safe for concurrent use.
type Proof struct {
	notify func(string)
	totals [NumKinds]atomic.Uint64

	mu         sync.Mutex // guards the field below
	violations []string

	// open counts the attempts that are not done, by a hash of peer and pick: a token that is done
	// twice is seen at once unless another attempt has the same hash, and else when that one is
	// done.
	open [1 << openBits]atomic.Int32
}

const openBits = 14

// New returns a proof. notify, which may be nil, gets the first violation of each kind. It is
// called by requests and must not block.
func New(notify func(string)) *Proof { return &Proof{notify: notify} }

// Total returns the number of violations of a kind.
func (p *Proof) Total(k Kind) uint64 { return p.totals[k].Load() }

// Violations returns the first violation of each kind, in their order.
func (p *Proof) Violations() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.violations)
}

// slot returns where an attempt that is not done is counted.
func (p *Proof) slot(number uint64, start int64) *atomic.Int32 {
	return &p.open[(uint64(start)^number<<40)*0x9e3779b97f4a7c15>>(64-openBits)]
}

func (p *Proof) violate(k Kind, pool *balancer.Pool, peer *balancer.Peer, generation uint64, format string, args ...any) {
	if p.totals[k].Add(1) > 1 {
		return
	}
	text := fmt.Sprintf("%s: %v: %s, in generation %d: %s", pool.Name, peer, k, generation, fmt.Sprintf(format, args...))
	p.mu.Lock()
	p.violations = append(p.violations, text)
	p.mu.Unlock()
	if p.notify != nil {
		p.notify(text)
	}
}
