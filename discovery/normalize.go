package discovery

import (
	"cmp"
	"slices"
)

// Normalize returns set sorted by key, without duplicates; set itself stays
// as it is.
//
// Instances with the same key are one process that was registered through several
// agents, and count once. The result takes everything from the registration in the
// best status: an agent that died does not take down a process that another one
// still sees. Of two with the same status, what a check has found comes before what
// none has. Only the node is the first in alphabetical order, whichever agent
// answers well at the moment.
func Normalize(set []Instance) []Instance {
	if len(set) == 0 {
		return nil
	}
	sorted := slices.Clone(set)
	slices.SortStableFunc(sorted, func(a, b Instance) int {
		return cmp.Or(compareKeys(a, b), cmp.Compare(a.Node, b.Node))
	})
	merged := sorted[:1]
	for _, next := range sorted[1:] {
		last := &merged[len(merged)-1]
		if compareKeys(*last, next) != 0 {
			merged = append(merged, next)
			continue
		}
		if next.Status < last.Status || next.Status == last.Status && last.Unchecked && !next.Unchecked {
			next.Node, next.NodeAddress = last.Node, last.NodeAddress
			*last = next
		}
	}
	return slices.Clip(merged)
}
