package consul

import (
	"maps"
	"slices"
)

// way is how an overview finds out what changed.
type way uint8

const (
	byNodes way = iota
	byNames
)

// overviewReserve is how many queries for single services there are at a time
// beside an overview.
const overviewReserve = 16

// choose returns the names of all nodes, and the way that suits. Known is false
// until there is an answer. By nodes takes at most half of the connections: Consul
// goes on with a query when its client is gone, so after an outage each of these
// counts twice.
func (v *overview) choose() (names []string, w way, known bool) {
	limit, _ := v.client.gate.size()
	v.mu.Lock()
	defer v.mu.Unlock()
	names = slices.Sorted(maps.Keys(v.addresses))
	if len(names) > limit/2 {
		return names, byNames, true
	}
	return names, byNodes, v.addresses != nil
}
