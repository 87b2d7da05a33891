package discovery

import (
	"maps"
	"slices"
)

// An instance on probation is used because it probably still works. If another service has an
// instance in service at its address, another program has the address, and would get its requests.
// So it has failed, for good, as after a connection that fails. Only the manager knows the sets of
// all services.

// endpointOf is where an instance listens, on whichever machine.
type endpointOf struct {
	address string
	port    int
}

// withoutReusedLocked returns set, of w, where what is on probation has failed if another service is
// in service at its address.
func (m *Manager) withoutReusedLocked(w *watch, set []Instance) []Instance {
	lost := lostAt(set)
	if len(lost) == 0 || w.static {
		return set
	}
	for _, name := range slices.Sorted(maps.Keys(m.watches)) {
		if other := m.watches[name]; other != w && !other.static {
			set = withoutReused(set, lost, other.latest)
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
		if set := withoutReused(other.latest, lostAt(other.latest), w.latest); !equalSets(set, other.latest) {
			other.setLatestLocked(set)
		}
	}
}

// lostAt returns the indexes of the instances on probation that have not failed.
func lostAt(set []Instance) (lost map[endpointOf][]int) {
	for n, i := range set {
		if i.Probation.IsZero() || i.Failed != "" {
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

// withoutReused returns set, where the lost instances have failed at whose addresses others are in
// service, of another service.
func withoutReused(set []Instance, lost map[endpointOf][]int, others []Instance) []Instance {
	if len(lost) == 0 {
		return set
	}
	cloned := false
	for _, i := range others {
		if !i.Serving() {
			continue
		}
		for _, n := range lost[endpointOf{i.Address, i.Port}] {
			if set[n].Failed != "" || set[n].Service == i.Service || set[n].machine() != i.machine() {
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

// noteProbationLocked notes whether w has instances on probation.
func (m *Manager) noteProbationLocked(w *watch) {
	if w.status.Probation > 0 {
		m.onProbation[w] = true
	} else {
		delete(m.onProbation, w)
	}
}
