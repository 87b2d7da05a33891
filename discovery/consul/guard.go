package consul

import (
	"slices"
	"time"

	"sluice/discovery"
)

// suddenWindow is how long ago a second instance may have been in service, or
// an error may have happened, for the loss of the last one to be sudden.
const suddenWindow = 10 * time.Second

// guard decides what the answers of Consul may take out of service: the rules
// in the package comment. It is not safe for concurrent use and knows no clock.
type guard struct {
	emptyHold     time.Duration
	keepAnswering time.Duration
	healthyOnly   bool // answers leave out what is critical: what is missing need not be gone

	known   []discovery.Instance // of the last answer that counted
	plural  time.Time            // when known last had two instances in service
	trouble time.Time            // when a query last failed
	held    map[process]held
	left    []departure // within suddenWindow before the last answer that counted, the oldest first
	before  int         // instances that were in service before those in held were lost
}

// departure is an instance in service that an answer no longer listed.
type departure struct {
	instance discovery.Instance
	at       time.Time
}

// inherit makes set what is known before the first answer.
func (g *guard) inherit(set []discovery.Instance) {
	g.known = nil
	for _, i := range set {
		if i.Unlisted.IsZero() {
			g.known = append(g.known, i)
			continue
		}
		since := i.Unlisted
		i.Unlisted = time.Time{}
		g.keep(since, i)
	}
	g.before = serving(g.known) + len(g.held)
}

// failed notes that a query failed.
func (g *guard) failed(now time.Time) { g.trouble = now }

// loss is what an answer would take out of service.
type loss struct {
	absent    []discovery.Instance // not listed, in service so far or not
	missing   []discovery.Instance // those of absent that were in service
	critical  []discovery.Instance // in service so far, and listed as critical
	unchecked []discovery.Instance // those of critical whose checks have not run yet
	last      bool                 // nothing listed is in service
}

// empties reports whether the pool would be empty for lack of an entry.
func (l loss) empties() bool { return l.last && len(l.missing) > 0 }

// loss compares set with the last answer that counted. Unchecked are those that
// are critical only because no check has run yet.
func (g *guard) loss(set []discovery.Instance, unchecked map[process]bool) loss {
	l := loss{last: !slices.ContainsFunc(set, discovery.Instance.Serving)}
	listed := byProcess(set)
	for _, i := range g.known {
		now, ok := listed[processOf(i)]
		if !ok {
			l.absent = append(l.absent, i)
		}
		if !i.Serving() {
			continue
		}
		if !ok {
			l.missing = append(l.missing, i)
		} else if now.Status == discovery.StatusCritical {
			l.critical = append(l.critical, i)
			if unchecked[processOf(i)] {
				l.unchecked = append(l.unchecked, i)
			}
		}
	}
	return l
}

// doubtful returns the instances of l that would go in a way that does not look
// like the truth. Forgot says that Consul seems to have lost its state, or the
// token its permissions.
func (g *guard) doubtful(now time.Time, l loss, forgot bool) []discovery.Instance {
	all := slices.Concat(l.missing, l.critical)
	switch {
	case g.emptyHold+g.keepAnswering == 0:
		return nil
	case forgot:
		// Instances have to register again, and are critical until their first
		// check has passed.
		return all
	case !l.last && g.recent(now, g.trouble):
		// They have been registered again. What is still listed in service may be
		// what the catalog has not heard of yet.
		return l.unchecked
	case !l.last:
		return nil
	case g.recent(now, g.trouble):
		return all
	case serving(g.known) > 1 || g.recent(now, g.plural):
		return l.missing
	}
	return nil
}

// unsettled reports whether l may be the first part of a larger loss: an agent
// that was restarted takes from the catalog what it does not know, one by one.
func (g *guard) unsettled(now time.Time, l loss) bool {
	return len(l.missing) > 0 && g.recent(now, g.trouble)
}

func (g *guard) recent(now, then time.Time) bool {
	return !then.IsZero() && now.Sub(then) <= suddenWindow
}

// hold keeps lost from now on, and takes those back that left shortly before
// and are not among listed: an agent that lost its state takes its instances
// from the catalog one by one. It returns how many it keeps.
func (g *guard) hold(now time.Time, lost, listed []discovery.Instance) int {
	if len(g.held) == 0 {
		g.before = 0
	}
	back := byProcess(listed)
	for _, d := range g.left {
		if _, ok := back[processOf(d.instance)]; !ok && g.recent(now, d.at) {
			g.keep(now, d.instance)
		}
	}
	for _, i := range lost {
		g.keep(now, i)
	}
	g.before = max(g.before, serving(listed)+len(g.held))
	return len(g.held)
}

// accept makes set the last answer that counted, and returns it together with
// what is kept beyond it.
func (g *guard) accept(now time.Time, set []discovery.Instance) (merged []discovery.Instance, k keeping) {
	if serving(g.known) > 1 {
		g.plural = now
	}
	listed := byProcess(set)
	g.depart(now, listed)
	g.known = set
	if len(g.held) == 0 {
		return set, keeping{}
	}
	k.expired = g.release(now, set, listed)
	merged = make([]discovery.Instance, 0, len(set)+len(g.held))
	for _, i := range set {
		if _, ok := g.held[processOf(i)]; !ok {
			merged = append(merged, i)
		}
	}
	for _, h := range g.held {
		i := h.instance
		if h.unlisted {
			i.Unlisted = h.since
			k.unlisted++
		} else {
			k.held++
		}
		merged = append(merged, i)
	}
	return merged, k
}

// depart notes which instances in service are not listed any more. What left
// before another one came into service left for good: an agent that loses its
// instances gets no new ones.
func (g *guard) depart(now time.Time, listed map[process]discovery.Instance) {
	if g.healthyOnly {
		return // it may have left because it is critical
	}
	g.left = slices.DeleteFunc(g.left, func(d departure) bool { return !g.recent(now, d.at) })
	if g.gained(listed) {
		g.left = nil
	}
	for _, i := range g.known {
		if _, ok := listed[processOf(i)]; !ok && i.Serving() {
			g.left = append(g.left, departure{i, now})
		}
	}
}

// gained reports whether an instance of listed has come into service that
// neither was there before nor has left of late.
func (g *guard) gained(listed map[process]discovery.Instance) bool {
	before := byProcess(g.known)
	for _, d := range g.left {
		before[processOf(d.instance)] = d.instance
	}
	for p, i := range listed {
		if was, ok := before[p]; i.Serving() && !(ok && was.Serving()) {
			return true
		}
	}
	return false
}

func byProcess(set []discovery.Instance) map[process]discovery.Instance {
	m := make(map[process]discovery.Instance, len(set))
	for _, i := range set {
		m[processOf(i)] = i
	}
	return m
}

func serving(set []discovery.Instance) int {
	n := 0
	for _, i := range set {
		if i.Serving() {
			n++
		}
	}
	return n
}
