package claim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxParts limits the parts of all regular expressions of the routes of a service. A request for its host may have to try all of
// them: without a limit, each tag of an instance takes time of a processor. It is five times what one route may have.
const maxParts = 10_000

// maxHostParts limits the parts for one host, of all services together.
const maxHostParts = 5 * maxParts

// limitParts takes their routes from instances with which the regular expressions of the service have too many parts. It
// counts those of the oldest instances first, so a new one takes nothing from them.
func (r *resolver) limitParts(members []member) {
	byAge := make([]*member, 0, len(members))
	for i := range members {
		byAge = append(byAge, &members[i])
	}
	slices.SortStableFunc(byAge, func(a, b *member) int {
		switch {
		case a.Before(b.Age):
			return -1
		case b.Before(a.Age):
			return 1
		}
		return 0
	})
	counted, total := make(map[string]bool), 0
	for _, m := range byAge {
		own := 0
		for key, a := range m.routes {
			if !counted[key] {
				own += a.parts
			}
		}
		if own > 0 && total+own > maxParts {
			r.dropRoutes(m, KindRefused, fmt.Sprintf("the regular expressions of the routes of the service have %d parts together, the limit is %d: "+
				"a request may have to try all of them", total+own, maxParts))
			continue
		}
		total += own
		for key := range m.routes {
			counted[key] = true
		}
	}
}

// limitHosts takes the routes out of wanted with which the regular expressions for a host have too many parts. Those in use
// come first, then the others by service: so no service takes away the routes of another one.
func limitHosts(wanted map[string][]*want, holders map[string]string, lost *problems) {
	hosts := make(map[string][]string) // keys in wanted of the routes with regular expressions
	for key, list := range wanted {
		if first := list[0]; first.parts > 0 {
			host := first.decoded.Host
			hosts[host] = append(hosts[host], key) // "": those for all hosts, and for the hosts of an expression
		}
	}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		keys, total := hosts[host], 0
		for _, key := range keys {
			total += wanted[key][0].parts
		}
		if total <= maxHostParts {
			continue
		}
		isNew := func(key string) int {
			if slices.ContainsFunc(wanted[key], func(w *want) bool { return slices.Contains(strings.Fields(holders[key]), w.service) }) {
				return 0
			}
			return 1
		}
		slices.SortFunc(keys, func(a, b string) int {
			return cmp.Or(isNew(a)-isNew(b), cmp.Compare(wanted[a][0].service, wanted[b][0].service), cmp.Compare(a, b))
		})
		total = 0
		for _, key := range keys {
			list := wanted[key]
			if total+list[0].parts <= maxHostParts {
				total += list[0].parts
				continue
			}
			for _, w := range list {
				p := w.lost(fmt.Sprintf("the regular expressions that tags of all services ask for at %s have %d parts together with this route, the limit is %d: "+
					"a request may have to try all of them, and those of other routes came first", cmp.Or(host, "all hosts"), total+w.parts, maxHostParts), nil)
				p.Kind = KindRefused
				lost.add(p)
			}
			delete(wanted, key)
		}
	}
}
