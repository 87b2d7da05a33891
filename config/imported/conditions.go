package imported

import (
	"maps"
	"reflect"
	"strconv"

	"sluice/tags"
)

// decision is what happens to requests that meet a condition.
type decision struct {
	when    condition
	backend string
	keys    tags.Keys // of a route without a backend; nil: it denies
	at      Place
}

// condition is met if one of its alternatives is. With wider they are met by more requests than
// the other load balancer's condition is.
type condition struct {
	any   []tags.Keys
	wider bool
}

// Conditions that are always met, the second since it has no counterpart.
var (
	met     = condition{any: []tags.Keys{{}}}
	unknown = condition{[]tags.Keys{{}}, true}
)

// maxAlternatives limits those of a condition.
const maxAlternatives = 64

// and returns a condition that is met if both are.
func (c condition) and(other condition) (both condition) {
	if both.wider = c.wider || other.wider; len(c.any)*len(other.any) > maxAlternatives {
		return unknown
	}
	for _, a := range c.any {
		for _, b := range other.any {
			merged := a.Clone()
			if !merge(merged, b) {
				merged, both.wider = a, true
			}
			both.any = append(both.any, merged)
		}
	}
	return both
}

// merge adds the keys of other, and returns false if there is another value of one of them.
func merge(keys, other tags.Keys) bool {
	for key, value := range other {
		mine, _ := keys[key].(tags.Keys)
		theirs, below := value.(tags.Keys)
		switch {
		case keys[key] == nil:
			keys[key] = value
		case mine != nil && below:
			if !merge(mine, theirs) {
				return false
			}
		case !reflect.DeepEqual(keys[key], value):
			return false
		}
	}
	return keys["host"] == nil || keys["host_regexp"] == nil
}

// route adds the routes for a decision, before all those that follow: the first that fits counts.
// nil denies. A condition that is met by more requests than it was denies them, or is left out.
func (d *draft) route(listeners []string, before condition, of decision, more tags.Keys) {
	when := before.and(of.when)
	if when.wider {
		d.note(of.at, "the condition has no counterpart: %s", map[bool]string{true: "denied is more than here", false: "left out"}[more == nil])
	}
	for _, match := range when.any {
		if more == nil || !when.wider {
			d.first(listeners, match, more, of.at)
		} else {
			d.routes++ // that of the route that is left out
		}
	}
}

// first adds a route before all those that follow. Without keys it denies.
func (d *draft) first(listeners []string, match, keys tags.Keys, at Place) {
	d.routes++
	all := match.Clone()
	all["listeners"], all["priority"] = listeners, strconv.Itoa(max(maxPriority-d.routes, -maxPriority))
	if maps.Copy(all, keys); keys == nil {
		all = shut(all)
	}
	d.add("routes", "", at, all)
}
