package discovery

import (
	"cmp"
	"slices"
)

// Normalize returns set sorted by key, without duplicates. It does not modify set.
//
// Instances with the same key are one process that is registered with several agents.
// The result is the registration with the best status, so that a failed agent does not
// take a process out of service that another agent reports. Of two with the same
// status, a checked one has precedence. Only the node is always the first in
// alphabetical order, so that it is stable. A source sets what the registrations say, such as tags,
// to what is to count.
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
