package claim

import (
	"fmt"
	"maps"
	"slices"
)

// maxParts limits the parts of all regular expressions of a service's routes, to five times those
// of one route. A request for its host may try them all, so each tag costs time.
const maxParts = 10_000

// limitParts removes the routes of instances with which the service's regular expressions have too
// many parts; routes with restrictions deny every request instead. It counts those of the oldest
// instances first, so a new instance removes nothing of theirs.
func (r *resolver) limitParts(members []member) {
	byAge := make([]*member, 0, len(members))
	for i := range members {
		byAge = append(byAge, &members[i])
	}
	slices.SortStableFunc(byAge, func(a, b *member) int { return a.Compare(b.Age) })
	counted, total := make(map[string]bool), 0
	for _, m := range byAge {
		own := 0
		for key, a := range m.routes {
			if !counted[key] {
				own += a.parts
			}
		}
		if own > 0 && total+own > maxParts {
			reason := fmt.Sprintf("the regular expressions of the routes of the service have %d parts together, the limit is %d: "+
				"a request may have to try all of them", total+own, maxParts)
			for _, key := range slices.Sorted(maps.Keys(m.routes)) {
				if a := m.routes[key]; a.parts > 0 {
					r.add(KindRefused, a, reason, false, m.named())
					delete(m.routes, key)
				}
			}
			r.closeRoutes(m, KindRefused, reason)
			continue
		}
		total += own
		for key := range m.routes {
			counted[key] = true
		}
	}
}
