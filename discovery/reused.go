package discovery

import (
	"maps"
	"slices"
	"time"
)

// An instance on probation is used because it probably still works. If another service has come
// to its address, another program has the address, and would get its requests. So it has failed,
// for good, as after a connection that fails. A service that was there before says nothing: one
// process may have several services, and a registry that loses them does not lose them all at
// once. Only the manager knows the sets of all services.

// reuseTime is how long before a loss another service may have come for it: the answers about the
// two services come in any order.
const reuseTime = 10 * time.Second

// endpointOf is where an instance listens, on whichever machine.
type endpointOf struct {
	address string
	port    int
}

// arriveLocked notes which instances of set, which the source of w has reported, have come to their
// addresses.
func (w *watch) arriveLocked(set []Instance, now time.Time) {
	known, before, source := w.known, w.latest, w.origin
	if !known { // the source began with what was saved
		known, before, source = w.saved.Known, w.saved.Set, w.saved.Source
	}
	if !known {
		w.first = now
		return
	}
	maps.DeleteFunc(w.arrived, func(_ Key, until time.Time) bool { return until.Before(now) })
	if equalSets(before, set) {
		return
	}
	until := now.Add(reuseTime)
	if source != w.status.Source {
		until = now // another source may list what the one before did not: it has not come just now
	}
	addresses := make(map[Key]bool, len(before))
	for _, i := range before {
		addresses[addressOf(i)] = true
	}
	for _, i := range set {
		if addresses[addressOf(i)] {
			continue
		}
		if w.arrived == nil {
			w.arrived = make(map[Key]time.Time)
		}
		w.arrived[addressOf(i)] = until
	}
}

// tookLocked reports whether i, of the latest set of w, has the address of what another service has
// lost at that time.
func (w *watch) tookLocked(i Instance, lost time.Time) bool {
	until, ok := w.arrived[addressOf(i)]
	if !ok {
		until = w.first // it came then or before, or so long after that arrived no longer has it
	}
	return until.After(lost)
}

// withFailuresLocked returns set with Instance.Failed of the instances that are still on the same
// probation: a source does not know it.
func (w *watch) withFailuresLocked(set []Instance) []Instance {
	if w.status.Probation == 0 {
		return set
	}
	before, cloned := mapped(w.latest), false
	for n, i := range set {
		was := before[i.Key()]
		if i.Probation.IsZero() || i.Failed != "" || was.Failed == "" || !was.Probation.Equal(i.Probation) {
			continue
		}
		if !cloned {
			set, cloned = slices.Clone(set), true
		}
		set[n].Failed = was.Failed
	}
	return set
}

// withoutReusedLocked returns set, of w, where what is on probation has failed if another service
// has come to its address.
func (m *Manager) withoutReusedLocked(w *watch, set []Instance) []Instance {
	lost := lostAt(set)
	if len(lost) == 0 || w.static {
		return set
	}
	for _, name := range slices.Sorted(maps.Keys(m.watches)) {
		if other := m.watches[name]; other != w && !other.static {
			set = withoutReusedLocked(set, lost, other)
		}
	}
	return set
}

// reuseLocked applies a new set of w to the sets of other services with instances on probation.
func (m *Manager) reuseLocked(w *watch) {
	if w.static {
		return // an address in the file says nothing about who listens there
	}
	for other := range m.onProbation {
		if other == w {
			continue
		}
		if set := withoutReusedLocked(other.latest, lostAt(other.latest), w); !equalSets(set, other.latest) {
			other.setLatestLocked(set)
		}
	}
}

// lostAt returns the indexes of the instances on probation that have not failed. In a mesh nobody
// else can answer for them.
func lostAt(set []Instance) (lost map[endpointOf][]int) {
	for n, i := range set {
		if i.Probation.IsZero() || i.Failed != "" || i.Identity != "" {
			continue
		}
		if lost == nil {
			lost = make(map[endpointOf][]int)
		}
		at := endpointOf{i.Address, i.Port}
		lost[at] = append(lost[at], n)
	}
	return lost
}

// withoutReusedLocked returns set, where the lost instances have failed whose addresses other has
// taken for another service.
func withoutReusedLocked(set []Instance, lost map[endpointOf][]int, other *watch) []Instance {
	if len(lost) == 0 {
		return set
	}
	cloned := false
	for _, i := range other.latest {
		if !i.Serving() {
			continue
		}
		for _, n := range lost[endpointOf{i.Address, i.Port}] {
			if was := set[n]; was.Failed != "" || was.Service == i.Service || was.machine() != i.machine() || !other.tookLocked(i, was.Probation) {
				continue
			}
			if !cloned {
				set, cloned = slices.Clone(set), true
			}
			set[n].Failed = "the service " + i.Service + " is in service at its address"
		}
	}
	return set
}

// recordProbationLocked notes whether w has instances on probation.
func (m *Manager) recordProbationLocked(w *watch) {
	if w.status.Probation > 0 {
		m.onProbation[w] = true
	} else {
		delete(m.onProbation, w)
	}
}
