package discovery

import (
	"slices"
	"time"
)

// DefaultProbation is how long an instance stays on probation unless the
// configuration says otherwise.
const DefaultProbation = 10 * time.Minute

// settleTime is how long a loss may take. A Consul agent that was restarted without
// its data takes its instances from the catalog one by one: those that went missing
// within this time before the last one are part of the same loss; and for this time
// after a failure, what is still listed may be what the agent has not come to yet.
const settleTime = 10 * time.Second

// Guard decides what the answers of a registry may take out of service. The
// rules are the same for every source:
//
//  1. An error or a doubtful answer changes nothing: the source calls Failed.
//  2. A removal counts once the registry has confirmed it: while Absent or Loses say
//     that an answer takes something away, the source asks again in a way that leaves
//     no doubt, and only then calls Accept.
//  3. A removal that leaves the service without an instance, or comes with a loss
//     of the registry's state, puts what is missing on probation: it stays in the
//     set, marked with [Instance.Probation], and is used until it first fails. It
//     leaves the set when as many instances are in service as before the loss, when
//     the registry lists another one in service at its address, or when its time is
//     over. While the registry is away its time stands still. What goes missing
//     within 10 s after a failure is on probation, too, until these are over.
//
// What the registry lists counts at once, with one exception: of an instance that is
// [Instance.Unchecked] the registry does not know whether it works, so where an
// answer is a loss it is missing like one that is not listed.
//
// A Guard knows no clock and is not safe for concurrent use.
type Guard struct {
	// Probation is how long an instance stays on probation at most; 0: it is not
	// put there.
	Probation time.Duration
	// PassingOnly says that answers leave out what is critical, so that what is missing
	// while others are in service may have failed: it is not lost.
	PassingOnly bool

	known     []Instance // of the last answer that counted
	asOf      time.Time  // when that was; zero after a failure: the clock stands
	settled   time.Time  // when what follows the last failure is over
	departed  []departure
	probation map[Key]probationer
	before    int // instances that were in service before the loss
}

// departure is an instance in service that went missing within settleTime.
type departure struct {
	instance Instance
	at       time.Time
}

// probationer is an instance on probation.
type probationer struct {
	instance Instance      // with its Probation
	spent    time.Duration // of its time
	brief    bool          // only until the registry has settled
}

// OnProbation returns how many instances are on probation.
func (g *Guard) OnProbation() int { return len(g.probation) }

// Inherit makes set what is known before the first answer. Those of it that are on
// probation have all of their time again.
func (g *Guard) Inherit(set []Instance) {
	g.known, g.probation = nil, nil
	for _, i := range set {
		if i.Probation.IsZero() {
			g.known = append(g.known, i)
		} else {
			g.suspend(i, i.Probation, false)
		}
	}
	g.before = countServing(g.known) + len(g.probation)
}

// Failed says that a query failed, or that its answer is doubtful.
func (g *Guard) Failed(now time.Time) { g.asOf, g.settled = time.Time{}, now.Add(settleTime) }

// Absent returns the known instances that set lacks, in service or not.
func (g *Guard) Absent(set []Instance) []Instance {
	listed := mapped(set)
	var absent []Instance
	for _, i := range g.known {
		if _, ok := listed[i.Key()]; !ok {
			absent = append(absent, i)
		}
	}
	return absent
}

// Loses reports whether set is a loss that puts instances on probation. Forgot is as
// for Accept.
func (g *Guard) Loses(now time.Time, set []Instance, forgot bool) bool {
	unsettled := now.Before(g.settled) && !g.PassingOnly
	return (forgot || unsettled || countServing(set) == 0) && len(g.missing(mapped(set))) > 0
}

// missing returns the known instances in service of which the registry does not
// say any more whether they are.
func (g *Guard) missing(listed map[Key]Instance) []Instance {
	var missing []Instance
	for _, i := range g.known {
		if i.Serving() && !present(listed, i) {
			missing = append(missing, i)
		}
	}
	return missing
}

// Deselect takes those of set out of what is known. It is for instances that the
// registry has and the source does not select any more: they are not lost.
func (g *Guard) Deselect(set []Instance) {
	gone := mapped(set)
	left := func(i Instance) bool {
		_, ok := gone[i.Key()]
		return ok
	}
	g.known = slices.DeleteFunc(slices.Clone(g.known), left)
	g.departed = slices.DeleteFunc(g.departed, func(d departure) bool { return left(d.instance) })
}

// Accept makes set, which is normalised and confirmed as far as it takes
// something away, the last answer that counts. Forgot says that the registry has lost
// its state: its index went backwards. It returns the set to report: that answer, and
// what is on probation.
func (g *Guard) Accept(now time.Time, set []Instance, forgot bool) []Instance {
	g.advance(now)
	listed, serving := mapped(set), countServing(set)
	missing := g.missing(listed)
	if g.gained(set) {
		g.departed = nil
	}
	g.departed = slices.DeleteFunc(g.departed, func(d departure) bool { return present(listed, d.instance) })
	if g.Probation > 0 && g.Loses(now, set, forgot) {
		g.lose(now, missing, serving > 0 && !forgot)
	} else if !g.PassingOnly {
		for _, i := range missing {
			g.departed = append(g.departed, departure{i, now})
		}
	}
	g.known = set
	g.release(now, set, listed, serving)
	if len(g.probation) == 0 {
		return set
	}
	merged := make([]Instance, 0, len(set)+len(g.probation))
	for _, i := range set {
		if _, ok := g.probation[i.Key()]; !ok {
			merged = append(merged, i)
		}
	}
	for _, p := range g.probation {
		merged = append(merged, p.instance)
	}
	slices.SortFunc(merged, compareKeys)
	return merged
}

// gained reports whether an instance of set has come into service that neither was
// before nor has departed. What departed before that was replaced, as in a roll-out:
// a registry that loses instances gets no new ones.
func (g *Guard) gained(set []Instance) bool {
	before := mapped(g.known)
	for _, d := range g.departed {
		before[d.instance.Key()] = d.instance
	}
	return slices.ContainsFunc(set, func(i Instance) bool {
		return i.Serving() && !before[i.Key()].Serving()
	})
}

// advance lets the time since the last answer pass, unless a query failed
// meanwhile.
func (g *Guard) advance(now time.Time) {
	if !g.asOf.IsZero() {
		for key, p := range g.probation {
			p.spent += now.Sub(g.asOf)
			g.probation[key] = p
		}
	}
	g.asOf = now
	g.departed = slices.DeleteFunc(g.departed, func(d departure) bool { return now.Sub(d.at) > settleTime })
}

// lose puts missing on probation: with what went missing shortly before and was not
// replaced or, if the loss is brief, only until the registry has settled.
func (g *Guard) lose(now time.Time, missing []Instance, brief bool) {
	if len(g.probation) == 0 {
		g.before = 0
	}
	before := countServing(g.known)
	if !brief {
		for key, p := range g.probation {
			p.brief = false
			g.probation[key] = p
		}
		for _, d := range g.departed {
			g.suspend(d.instance, now, false)
			before++
		}
		g.departed = nil
	}
	for _, i := range missing {
		g.suspend(i, now, brief)
	}
	g.before = max(g.before, before)
}

func (g *Guard) suspend(i Instance, since time.Time, brief bool) {
	if g.probation == nil {
		g.probation = make(map[Key]probationer)
	}
	i.Probation = since
	g.probation[i.Key()] = probationer{instance: i, brief: brief}
}

// release ends the probation of what set says something about, and of all once as
// many are in service as before the loss.
func (g *Guard) release(now time.Time, set []Instance, listed map[Key]Instance, serving int) {
	taken := make(map[Key]bool) // places, whatever the id
	for _, i := range set {
		if i.Serving() {
			taken[place(i)] = true
		}
	}
	for key, p := range g.probation {
		if present(listed, p.instance) || taken[place(p.instance)] || serving >= g.before || p.spent >= g.Probation ||
			p.brief && serving > 0 && !now.Before(g.settled) {
			delete(g.probation, key)
		}
	}
}

// Expiry returns when the time of an instance on probation is over, if the
// registry goes on to answer. It reports false if there is none.
func (g *Guard) Expiry() (time.Time, bool) {
	var first time.Time
	for _, p := range g.probation {
		end := g.asOf.Add(g.Probation - p.spent)
		if p.brief && g.asOf.Before(g.settled) && g.settled.Before(end) {
			end = g.settled
		}
		if first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return first, len(g.probation) > 0 && !g.asOf.IsZero()
}

// mapped returns set by key.
func mapped(set []Instance) map[Key]Instance {
	m := make(map[Key]Instance, len(set))
	for _, i := range set {
		m[i.Key()] = i
	}
	return m
}

// present reports whether the registry lists i and knows whether it works.
func present(listed map[Key]Instance, i Instance) bool {
	there, ok := listed[i.Key()]
	return ok && !there.Unchecked
}

// place returns where i is, whatever its id.
func place(i Instance) Key {
	key := i.Key()
	key.ID = ""
	return key
}

func countServing(set []Instance) int {
	n := 0
	for _, i := range set {
		if i.Serving() {
			n++
		}
	}
	return n
}
