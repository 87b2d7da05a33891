package discovery

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// settleTime is the maximum duration of a loss. A Consul agent that restarts without
// its data removes its instances from the catalog one by one. Instances that went
// missing within this time before the last one belong to the same loss, and for this
// time after a failure more instances may go missing.
const settleTime = 10 * time.Second

// Guard decides which instances the answers of a registry may take out of service. The
// rules are the same for every source:
//
//  1. An error or a doubtful answer changes nothing: the source calls Failed.
//  2. A removal must be confirmed: if Absent or Judge say that an answer removes
//     instances, the source repeats the query with full consistency before it calls
//     Accept.
//  3. A removal that leaves the service without an instance, or comes with a loss of the
//     registry's state, puts the missing instances on probation: they stay in the set, marked
//     with [Instance.Probation], and are used until they first fail. Probation ends when as many
//     instances are in service as before the loss, when the registry lists another instance in
//     service at the same address, after the time Probation, or with Deselect. This time does
//     not run while the registry fails. Instances that go missing within 10 s after a failure
//     are on probation, too, until these 10 s are over. So are those that left in the 10 s
//     before, unless they were replaced: another one has come into service since, or, for each
//     one that an answer lacks, in the 10 s before. A registry that loses instances gets no new
//     ones.
//  4. With a loss of the registry's state, missing instances that were out of service stay in
//     the set and out of service, without [Instance.Probation]. They stay until the registry
//     lists them in any status, or as in rule 3, but however many are in service. So a route
//     that only they ask for, perhaps with restrictions, leaves no room for a broader one.
//
// Additions and updates count at once, with one exception: if an answer is a loss, an
// [Instance.Unchecked] instance counts as missing, until its [Instance.FirstResult] is due.
//
// A Guard does not read the clock and is not safe for concurrent use.
type Guard struct {
	// Probation is the maximum time on probation; 0: there is no probation.
	Probation time.Duration
	// PassingOnly says that answers omit critical instances. Then a missing instance
	// may be critical, and does not count as lost while others are in service.
	PassingOnly bool

	known     []Instance // of the last accepted answer
	asOf      time.Time  // of that answer; zero after a failure: the time on probation does not run
	settled   time.Time  // settleTime after the last failure
	departed  []Departure
	arrived   []time.Time // when instances came into service that have not replaced any yet
	probation map[Key]probationer
	before    int    // number of instances in service before the loss
	lost      uint64 // the newest Instance.Registered before the last loss; 0: there was none
}

// probationer is an instance on probation.
type probationer struct {
	instance Instance      // with its Probation; zero: it was out of service
	spent    time.Duration // on probation
	brief    bool          // probation ends at settled
	silent   time.Time     // since when it is listed as unchecked; zero: it is not
	due      time.Time     // with silent: when this counts as a failed check; zero: never
}

// Failed records that a query failed or that its answer is doubtful.
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

// A Judgement is what Accept would make of an answer.
type Judgement struct {
	Absent  []Instance // as of Guard.Absent
	Adds    bool       // it has an instance that is not known
	Differs bool       // it is another set than the known instances
	Loses   bool       // it is a loss that puts instances on probation
}

// Judge judges an answer, which is normalised. For forgot see Accept.
func (g *Guard) Judge(now time.Time, set []Instance, forgot bool) Judgement {
	absent := g.Absent(set)
	return Judgement{
		Absent:  absent,
		Adds:    len(set) > len(g.known)-len(absent),
		Differs: !slices.EqualFunc(g.known, set, Instance.Equal),
		Loses:   g.loses(now, set, forgot),
	}
}

func (g *Guard) loses(now time.Time, set []Instance, forgot bool) bool {
	unsettled := now.Before(g.settled) && !g.PassingOnly
	return (forgot || unsettled || CountServing(set) == 0) && len(g.missing(mapped(set), forgot)) > 0
}

// missing returns the known instances in service that listed lacks or has unchecked; with a loss of
// the registry's state, also those out of service that listed lacks.
func (g *Guard) missing(listed map[Key]Instance, forgot bool) []Instance {
	var missing []Instance
	for _, i := range g.known {
		if (i.Serving() || forgot) && !present(listed, i) {
			missing = append(missing, i)
		}
	}
	return missing
}

// Remembered returns the instances that set lacks, and that may still be used or get on probation:
// known, just departed, or on probation. lost: one of them is on probation.
func (g *Guard) Remembered(set []Instance) (instances []Instance, lost bool) {
	instances = g.Absent(set)
	listed := mapped(set)
	add := func(i Instance) bool {
		_, there := listed[i.Key()]
		if !there {
			instances = append(instances, i)
		}
		return !there
	}
	for _, d := range g.departed {
		add(d.Instance)
	}
	for _, p := range g.probation {
		lost = add(p.instance) || lost
	}
	return instances, lost
}

// Deselect removes set from the known instances, and from those on probation. It is for instances
// that the registry has and the source no longer selects: they are not lost.
func (g *Guard) Deselect(set []Instance) {
	keys := mapped(set)
	deselected := func(i Instance) bool {
		_, ok := keys[i.Key()]
		return ok
	}
	g.known = slices.DeleteFunc(slices.Clone(g.known), deselected)
	g.departed = slices.DeleteFunc(g.departed, func(d Departure) bool { return deselected(d.Instance) })
	lost := g.lostInService()
	maps.DeleteFunc(g.probation, func(_ Key, p probationer) bool { return deselected(p.instance) })
	g.before = max(g.before-(lost-g.lostInService()), g.lostInService())
}

// Accept makes set the known instances. set must be normalised, and its removals confirmed.
// forgot says that the registry has lost its state, such as when its index went backwards.
// It returns the set to report: set and the instances on probation. An instance with the tags and
// the meta that it had before a loss is as old as before: its Instance.Registered does not change.
func (g *Guard) Accept(now time.Time, set []Instance, forgot bool) []Instance {
	g.advance(now)
	listed, serving := mapped(set), CountServing(set)
	missing := g.missing(listed, forgot)
	if forgot || serving == 0 && len(missing) > 0 {
		g.recordNewest()
	}
	set = g.dated(set)
	g.arrive(now, g.gained(set))
	g.departed = slices.DeleteFunc(g.departed, func(d Departure) bool { return present(listed, d.Instance) })
	if g.Probation > 0 && g.loses(now, set, forgot) {
		g.lose(now, missing, serving > 0 && !forgot)
	} else if !g.PassingOnly {
		g.depart(now, missing)
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

// recordNewest records the age of the newest instance before a loss.
func (g *Guard) recordNewest() {
	for _, i := range g.known {
		g.lost = max(g.lost, i.Registered)
	}
	for _, p := range g.probation {
		g.lost = max(g.lost, p.instance.Registered)
	}
}

// dated returns set with an Instance.Registered that compares with the known instances also after
// a loss: then the registry may count from the beginning again, and its instances register in
// another order.
func (g *Guard) dated(set []Instance) []Instance {
	if g.lost == 0 {
		return set
	}
	before := mapped(g.known)
	for key, p := range g.probation {
		before[key] = p.instance
	}
	set = slices.Clone(set)
	for n, i := range set {
		was, known := before[i.Key()]
		if known && was.Registered <= g.lost && slices.Equal(was.Tags, i.Tags) && maps.Equal(was.Meta, i.Meta) {
			set[n].Registered = was.Registered
		} else {
			set[n].Registered += g.lost
		}
	}
	return set
}

// gained returns how many instances of set have come into service that were neither in
// service before, nor have departed, nor are on probation: what returns is nothing new.
func (g *Guard) gained(set []Instance) (n int) {
	before := mapped(g.known)
	for _, d := range g.departed {
		before[d.Instance.Key()] = d.Instance
	}
	for _, i := range set {
		if _, lost := g.probation[i.Key()]; i.Serving() && !before[i.Key()].Serving() && !lost {
			n++
		}
	}
	return n
}

// arrive records that n instances have come into service. They have replaced the departed
// ones, as in a roll-out, and those beyond may replace others that depart within settleTime.
// The first instances of a service replace none.
func (g *Guard) arrive(now time.Time, n int) {
	if n == 0 {
		return
	}
	if CountServing(g.known) > 0 {
		for range n - len(g.departed) {
			g.arrived = append(g.arrived, now)
		}
	}
	g.departed = nil
}

// depart records that missing are gone, unless as many others have arrived: then these have
// replaced them.
func (g *Guard) depart(now time.Time, missing []Instance) {
	if len(missing) <= len(g.arrived) {
		g.arrived = g.arrived[len(missing):]
		return
	}
	for _, i := range missing {
		g.departed = append(g.departed, Departure{i, now})
	}
}

// advance adds the time since the last answer to the time on probation, unless a query failed
// since. The times of another process may be after now: the clock may have been set back.
func (g *Guard) advance(now time.Time) {
	if !g.asOf.IsZero() {
		for key, p := range g.probation {
			p.spent += max(0, now.Sub(g.asOf))
			g.probation[key] = p
		}
	}
	g.asOf = now
	g.settled = earlier(g.settled, now.Add(settleTime))
	for n := range g.departed {
		g.departed[n].At = earlier(g.departed[n].At, now)
	}
	for n := range g.arrived {
		g.arrived[n] = earlier(g.arrived[n], now)
	}
	g.departed = slices.DeleteFunc(g.departed, func(d Departure) bool { return now.Sub(d.At) > settleTime })
	g.arrived = slices.DeleteFunc(g.arrived, func(at time.Time) bool { return now.Sub(at) > settleTime })
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// lose puts missing on probation. If brief, probation ends at settled; otherwise the
// departed instances, which were not replaced, are put on probation, too.
func (g *Guard) lose(now time.Time, missing []Instance, brief bool) {
	if g.lostInService() == 0 {
		g.before = 0
	}
	g.arrived = nil
	before := CountServing(g.known)
	if !brief {
		for key, p := range g.probation {
			p.brief = false
			g.probation[key] = p
		}
		for _, d := range g.departed {
			g.suspend(onProbation(d.Instance, now, false))
			before++
		}
		g.departed = nil
	}
	for _, i := range missing {
		g.suspend(onProbation(i, now, brief))
	}
	g.before = max(g.before, before)
}

// onProbation returns i as it is since the registry has lost it.
func onProbation(i Instance, since time.Time, brief bool) probationer {
	if i.Serving() {
		i.Probation = since
	} else {
		i.Detail = strings.TrimSuffix("lost since "+since.UTC().Format(time.RFC3339)+": "+i.Detail, ": ")
	}
	return probationer{instance: i, brief: brief}
}

func (g *Guard) suspend(p probationer) {
	if g.probation == nil {
		g.probation = make(map[Key]probationer)
	}
	g.probation[p.instance.Key()] = p
}

// lostInService returns how many instances on probation were in service when they were lost.
func (g *Guard) lostInService() (n int) {
	for _, p := range g.probation {
		if p.instance.Usable() {
			n++
		}
	}
	return n
}

// release ends probation where one of the conditions in [Guard] is met.
func (g *Guard) release(now time.Time, set []Instance, listed map[Key]Instance, serving int) {
	taken := make(map[Key]bool) // addresses with an instance in service
	for _, i := range set {
		if i.Serving() {
			taken[addressOf(i)] = true
		}
	}
	for key, p := range g.probation {
		g.probation[key] = p.listen(now, listed)
		replaced := serving >= g.before || p.brief && serving > 0 && !now.Before(g.settled)
		if present(listed, p.instance) || g.probation[key].overdue(now) || taken[addressOf(p.instance)] || p.spent >= g.Probation || replaced && p.instance.Usable() {
			delete(g.probation, key)
		}
	}
}

// listen returns p as it is after an answer that lists these instances.
func (p probationer) listen(now time.Time, listed map[Key]Instance) probationer {
	i, ok := listed[p.instance.Key()]
	if !ok || !i.Unchecked {
		p.silent, p.due = time.Time{}, time.Time{}
		return p
	}
	if p.silent.IsZero() || p.silent.After(now) { // the clock may have been set back
		p.silent = now
	}
	if p.due = (time.Time{}); i.FirstResult > 0 {
		p.due = p.silent.Add(i.FirstResult)
	}
	return p
}

// overdue reports whether the first result of a check of p is: it has run, and failed.
func (p probationer) overdue(now time.Time) bool { return !p.due.IsZero() && !now.Before(p.due) }

// Expiry returns when the first probation ends if the registry continues to answer. It
// returns false if no time on probation runs.
func (g *Guard) Expiry() (time.Time, bool) {
	var first time.Time
	for _, p := range g.probation {
		end := g.asOf.Add(g.Probation - p.spent)
		if p.brief && g.asOf.Before(g.settled) && g.settled.Before(end) {
			end = g.settled
		}
		if p.due.After(g.asOf) && p.due.Before(end) {
			end = p.due
		}
		if first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return first, len(g.probation) > 0 && !g.asOf.IsZero()
}

// Within returns wait, or the time until Expiry if that is shorter.
func (g *Guard) Within(now time.Time, wait time.Duration) time.Duration {
	if expiry, ok := g.Expiry(); ok {
		return min(wait, max(expiry.Sub(now), 10*time.Millisecond))
	}
	return wait
}

// mapped returns set by key.
func mapped(set []Instance) map[Key]Instance {
	m := make(map[Key]Instance, len(set))
	for _, i := range set {
		m[i.Key()] = i
	}
	return m
}

// present reports whether listed has i, and not as unchecked if i may get requests.
func present(listed map[Key]Instance, i Instance) bool {
	l, ok := listed[i.Key()]
	return ok && !(l.Unchecked && i.Usable())
}

// addressOf returns the key of i without its id.
func addressOf(i Instance) Key {
	key := i.Key()
	key.ID = ""
	return key
}

// CountServing returns the number of instances in service.
func CountServing(set []Instance) int {
	n := 0
	for _, i := range set {
		if i.Serving() {
			n++
		}
	}
	return n
}
