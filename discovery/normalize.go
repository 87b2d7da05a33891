package discovery

import (
	"cmp"
	"slices"
)

// Normalize returns set sorted by key, without duplicates; set itself stays
// as it is.
//
// Instances of one service with the same id at the same address are one
// process that was registered through several agents, and count once. The
// result bears the name of the first node in alphabetical order, so that its
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
	slices.SortFunc(merged, compareKeys)
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
		cmp.Compare(a.Node, b.Node),
	)
}

func sameProcess(a, b Instance) bool {
	return a.Service == b.Service && a.ID == b.ID && a.Address == b.Address && a.Port == b.Port
}
