package discovery

import (
	"cmp"
	"slices"

	"sluice/locality"
)

// Normalize returns set sorted by key, without duplicates; set itself stays
// as it is.
//
// Instances of one service with the same id at the same address are one
// process that was registered through several agents, and count once, unless the
// address is one that each machine has for itself, such as 127.0.0.1, and the
// nodes are several machines. The result bears the name of the first node in alphabetical order, so that its
// key does not depend on which agent answers well at the moment, and takes
// everything else from the registration in the best status: an agent that
// died does not take down a process that another one still sees.
func Normalize(set []Instance) []Instance {
	if len(set) == 0 {
		return nil
	}
	sorted := slices.Clone(set)
	slices.SortStableFunc(sorted, compareProcesses)
	merged := sorted[:1]
	for _, next := range sorted[1:] {
		last := &merged[len(merged)-1]
		if !sameProcess(*last, next) {
			merged = append(merged, next)
			continue
		}
		if next.Status < last.Status {
			next.Node = last.Node
			*last = next
		}
	}
	slices.SortStableFunc(merged, compareKeys)
	// Two machines may have one name, in two data centres.
	merged = slices.CompactFunc(merged, func(a, b Instance) bool { return compareKeys(a, b) == 0 })
	return slices.Clip(merged)
}

// compareProcesses brings the registrations of one process next to each
// other, the first node first.
func compareProcesses(a, b Instance) int {
	return cmp.Or(
		cmp.Compare(a.Service, b.Service),
		cmp.Compare(a.ID, b.ID),
		cmp.Compare(a.Address, b.Address),
		cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.machine(), b.machine()),
		cmp.Compare(a.Node, b.Node),
	)
}

// machine is what tells instances at the same address apart: the address of the
// machine, if their own means another place on each.
func (i Instance) machine() string {
	if locality.Ambiguous(i.Address) {
		return i.NodeAddress
	}
	return ""
}

func sameProcess(a, b Instance) bool {
	return a.Service == b.Service && a.ID == b.ID && a.Address == b.Address && a.Port == b.Port && a.machine() == b.machine()
}
