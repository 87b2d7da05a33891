package proof

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/panics"
)

// witness is the witness of one pool. It implements balancer.Witness.
type witness struct {
	proof    *Proof
	pool     *balancer.Pool
	law      atomic.Pointer[law]
	changing atomic.Bool               // law and the standings may be behind the pool
	all      atomic.Pointer[[]*record] // in the set
	account  account
	requests atomic.Int64 // in flight, that count for Limits.Requests
	retrying atomic.Int64

	// The pool's mutex guards the fields below.

	options    balancer.Options
	configured bool
	set        map[discovery.Key]discovery.Instance
	orders     func(discovery.Instance) balancer.Orders
	records    map[*balancer.Peer]*record
	joined     uint64
}

// law is what follows from the options. It is immutable.
type law struct {
	since                      int64
	perPeer, requests, retries int64 // the largest limits that there were
	groups                     []balancer.GroupID
	policy                     balancer.Policy
	// orderly: which of two peers is first is certain. It is not with a subset, whose choice the
	// witness does not repeat, with limits on peers, which may have been full, and with a peer on
	// probation or at a refused address, which may be in use.
	orderly bool
}

// Witness is balancer.Options.NewWitness.
func (p *Proof) Witness(pool *balancer.Pool) balancer.Witness {
	w := &witness{proof: p, pool: pool, records: make(map[*balancer.Peer]*record), orders: func(discovery.Instance) balancer.Orders { return balancer.Orders{} }}
	w.law.Store(&law{})
	w.all.Store(new([]*record))
	return w
}

// report reports a violation. s is nil where the pool's snapshot is the one in use.
func (w *witness) report(k Kind, peer *balancer.Peer, s *balancer.Snapshot, format string, args ...any) {
	w.proof.violate(k, w.pool, peer, s.Generation, format, args...)
}

func (w *witness) lateRetries() int {
	counted := w.retrying.Load() // first: what is counted meanwhile was late
	_, retries := w.pool.Admission.Held()
	return max(0, retries-int(counted))
}

func (w *witness) Changing() { w.changing.Store(true) }

func (w *witness) Configured(o *balancer.Options) {
	before, wasConfigured := w.options, w.configured
	w.options, w.configured = *o, true
	if !wasConfigured || *before.RetryBudget != *o.RetryBudget {
		w.account.open(*o.RetryBudget, w.lateRetries())
	}
	for _, r := range w.records {
		if r.awaits && !o.MustPassFirst {
			r.against &^= balancer.ReasonActive
			r.unchecked, r.awaits = false, false
		}
		if wasConfigured && o.ActiveOverridesRegistry && !before.ActiveOverridesRegistry && r.critical {
			r.await()
		}
	}
	w.derive(true)
}

func (w *witness) Applied(set []discovery.Instance, began int64) {
	before := w.set
	w.set = make(map[discovery.Key]discovery.Instance, len(set))
	for _, i := range set {
		w.set[i.Key()] = i
	}
	for _, r := range w.records {
		i, listed := w.set[r.peer.ID]
		switch {
		case !listed && r.left == 0 && !r.fresh:
			r.left, r.timeout = began, w.options.DrainTimeout
		case listed:
			r.left = 0
			if i.Weight > 0 {
				r.usual = i.Weight
			}
			if r.fresh && w.options.MustPassFirst {
				r.await()
			}
			if was, had := before[r.peer.ID]; r.fresh || !had || !was.Equal(i) {
				r.orders = w.orders(i) // else those of the last Ordered: others may stand by now, and the pool has yet to hear
			}
			r.fresh = false
		}
	}
	w.derive(false)
}

func (w *witness) Judged(reason balancer.Reason, verdicts []balancer.Verdict) {
	for _, v := range verdicts {
		r := w.records[v.Peer]
		if r == nil {
			continue
		}
		r.against &^= reason
		r.awaits = r.awaits && reason&balancer.ReasonActive == 0
		if v.Down {
			r.against |= reason
		} else if reason&balancer.ReasonActive != 0 {
			r.unchecked = false
		}
	}
	w.derive(false)
}

func (w *witness) Ordered(of func(discovery.Instance) balancer.Orders) {
	w.orders = of
	for _, r := range w.records {
		if i, listed := w.set[r.peer.ID]; listed {
			r.orders = of(i)
		}
	}
	w.derive(false)
}

func (w *witness) Joined(p *balancer.Peer, before bool, against balancer.Reason) balancer.Record {
	w.joined++
	r := &record{witness: w, peer: p, number: w.joined, fresh: !before, whole: !before, against: against}
	r.standing.Store(&standing{since: math.MaxInt64}) // until a set has it
	w.records[p] = r
	return r
}

// settleTime is how long requests may take to end after their connections were cut, and settleSteps
// how often is looked.
const (
	settleTime  = time.Minute
	settleSteps = 60
)

func (w *witness) Retired(p *balancer.Peer, cut bool) {
	r := w.records[p]
	delete(w.records, p)
	if r == nil {
		return
	}
	if !cut {
		r.checkEnd()
		return
	}
	left, timeout := r.left, r.timeout
	if left == 0 { // it leaves with the set that Applied gets next
		left, timeout = balancer.Now(), w.options.DrainTimeout
		if w.options.CutRemoved {
			timeout = 0
		}
	}
	if open, passed := r.picks.Load()-r.dones.Load(), time.Duration(balancer.Now()-left); open > 0 && passed < timeout {
		r.report(InFlight, p, w.pool.Snapshot(), "the peer is cut with %d requests in flight, %v before its time", open, timeout-passed)
	}
	time.AfterFunc(settleTime, func() {
		defer panics.Contain(panics.Task, nil)
		r.checkEnd()
	})
}

func (w *witness) Closed() { w.settle(settleSteps) }

// settle looks until nothing is in flight, so many times. A pick that finds no peer counts for a
// moment, so one look proves nothing.
func (w *witness) settle(looks int) {
	requests, retries := w.pool.Admission.Held()
	own, ownRetries := w.requests.Load(), w.retrying.Load()
	switch {
	case requests == 0 && retries == 0 && own == 0 && ownRetries == 0:
	case looks == 0:
		w.report(InFlight, nil, w.pool.Snapshot(), "the closed pool counts %d requests and %d retries in flight, there are %d and %d", requests, retries, own, ownRetries)
	default:
		time.AfterFunc(settleTime/settleSteps, func() {
			defer panics.Contain(panics.Task, nil)
			w.settle(looks - 1)
		})
	}
}

// await: the peer gets no request before an active check has passed.
func (r *record) await() {
	r.against |= balancer.ReasonActive
	r.unchecked, r.awaits = true, true
}

// derive decides anew which peers may get requests, from what the pool was told last.
func (w *witness) derive(configured bool) {
	defer w.changing.Store(false)
	if !w.configured {
		return
	}
	all := make([]*record, 0, len(w.records))
	for _, r := range w.records {
		if !r.fresh {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b *record) int { return int(a.number) - int(b.number) })
	now := balancer.Now()
	c := w.count(all)
	law := w.nextLaw(now, configured, c.sure)
	shares := c.shares(w.options.Overprovisioning)
	panics := c.mayPanic(w.options.PanicThreshold)
	if panics && c.healthy == 0 {
		law.orderly = false // failing peers have the shares
	}
	for _, r := range all {
		f := c.facts[r]
		next := standing{out: f.bad || f.failing && !(panics && f.usable), kind: Ineligible, why: f.why, place: f.place, since: now}
		next.resort = next.out && f.usable && w.options.PanicThreshold > 0
		if !f.listed {
			next.kind = Removed
		}
		if len(law.groups) > 0 {
			next.group = law.groups[f.group]
		}
		next.empty = shares[f.place] <= epsilon
		was := r.standing.Load()
		if next.out && was.out {
			next.since = was.since
		}
		if same := *was; !next.out {
			next.kind, next.why, same.since = Removed, "", now
			if same == next {
				continue
			}
		}
		r.standing.Store(&next)
	}
	present := slices.DeleteFunc(slices.Clone(all), func(r *record) bool { return !c.facts[r].listed })
	w.law.Store(&law)
	w.all.Store(&present)
}

// nextLaw returns the law of the options. Limits only grow: attempts that began under a larger one
// may be in flight.
func (w *witness) nextLaw(now int64, configured, sure bool) law {
	before, o := w.law.Load(), &w.options
	next := law{since: before.since, policy: o.Policy, groups: before.groups}
	if configured {
		next.since, next.groups = now, nil
		if len(o.Groups) > 0 {
			for _, g := range o.Groups {
				next.groups = append(next.groups, w.groupID(g.Name))
			}
			next.groups = append(next.groups, w.groupID(balancer.RestGroup))
		}
	}
	perPeer := o.Limits.PeerRequests
	if c := o.Limits.PeerConnections; c > 0 && (perPeer == 0 || c < perPeer) {
		perPeer = c
	}
	next.perPeer = max(before.perPeer, limit(perPeer))
	next.requests = max(before.requests, limit(o.Limits.Requests))
	next.retries = max(before.retries, limit(o.Limits.Retries))
	next.orderly = sure && perPeer == 0 && !o.Limits.Adaptive && o.Subset.Size == 0
	return next
}

// groupID returns the number of a group, which its part has in the snapshot in use.
func (w *witness) groupID(name string) balancer.GroupID {
	for _, part := range w.pool.Snapshot().Groups {
		if part.Group.Name() == name {
			return part.Group.ID()
		}
	}
	return 0
}

func limit(n int) int64 {
	if n == 0 {
		return 1 << 40
	}
	return int64(n)
}

// meets reports whether an instance meets all conditions of a selector.
func meets(s *balancer.Selector, i *discovery.Instance) bool {
	for _, tag := range s.Tags {
		if !slices.Contains(i.Tags, tag) {
			return false
		}
	}
	for key, value := range s.Meta {
		if has, known := i.Meta[key]; !known || has != value {
			return false
		}
	}
	return len(s.Nodes) == 0 || slices.Contains(s.Nodes, i.Node)
}
