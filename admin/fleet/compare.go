package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// missing is the value of replicas without the service.
const missing = "missing"

// conclude derives Converged, Differences and Unknown from Replicas.
func (r *Report) conclude() {
	r.Differences, r.Unknown = []Difference{}, []Unknown{}
	var known, all []*Member
	for i := range r.Replicas {
		m := &r.Replicas[i]
		switch {
		case !m.counts():
		case m.answered():
			known = append(known, m)
			all = append(all, m)
		default:
			if m.ConfigHash != "" {
				all = append(all, m)
			}
			r.Unknown = append(r.Unknown, Unknown{m.Name, m.Error})
		}
	}
	// The registration's meta has the hash too.
	r.compare(Difference{Kind: KindConfig}, all, each(all, func(m *Member) item { return item{value: m.ConfigHash} }))
	r.comparePending(known)
	r.compareOrders(known)
	r.compareServices(known)
	converged := len(r.Differences) == 0
	if !converged || len(r.Unknown) == 0 && r.Error == "" {
		r.Converged = &converged
	}
}

// item is the value of a replica in a comparison.
type item struct {
	value     string
	source    string
	index     uint64
	instances int
}

func each(members []*Member, of func(*Member) item) []item {
	items := make([]item, len(members))
	for n, m := range members {
		items[n] = of(m)
	}
	return items
}

// compare adds d if the items of members are not all equal.
func (r *Report) compare(d Difference, members []*Member, items []item) {
	if !slices.ContainsFunc(items, func(i item) bool { return i.value != items[0].value }) {
		return
	}
	groups := make(map[string]*Group)
	for n, m := range members {
		i := items[n]
		g := groups[i.value]
		if g == nil {
			g = &Group{Value: i.value}
			groups[i.value] = g
		}
		g.Replicas = append(g.Replicas, m.Name)
		g.Index, g.Instances = max(g.Index, i.index), i.instances
	}
	for _, g := range groups {
		d.Groups = append(d.Groups, *g)
	}
	slices.SortFunc(d.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(len(b.Replicas), len(a.Replicas)), cmp.Compare(b.Index, a.Index), cmp.Compare(a.Value, b.Value))
	})
	d.Behind = behind(members, items)
	d.Summary = d.summary()
	r.Differences = append(r.Differences, d)
}

// behind returns the members whose index is smaller than that of another value from the
// same source.
func behind(members []*Member, items []item) []string {
	// Of each source the item with the largest index, and the largest with another
	// value.
	type leaders struct{ first, other item }
	sources := make(map[string]leaders)
	for _, i := range items {
		l := sources[i.source]
		switch {
		case i.index > l.first.index && i.value != l.first.value:
			l.first, l.other = i, l.first
		case i.index > l.first.index:
			l.first = i
		case i.index > l.other.index && i.value != l.first.value:
			l.other = i
		}
		sources[i.source] = l
	}
	names := []string{}
	for n, m := range members {
		mine := items[n]
		leader := sources[mine.source].first
		if leader.value == mine.value {
			leader = sources[mine.source].other
		}
		if mine.index > 0 && leader.index > mine.index {
			names = append(names, m.Name)
		}
	}
	return names
}

// comparePending adds the replicas with pending keys, even if all have the same.
func (r *Report) comparePending(members []*Member) {
	pending := each(members, func(m *Member) item { return item{value: strings.Join(m.Pending, ", ")} })
	before := len(r.Differences)
	r.compare(Difference{Kind: KindPending}, members, pending)
	if len(r.Differences) > before || len(members) == 0 || len(members[0].Pending) == 0 {
		return
	}
	g := Group{Value: pending[0].value}
	for _, m := range members {
		g.Replicas = append(g.Replicas, m.Name)
	}
	d := Difference{Kind: KindPending, Groups: []Group{g}, Behind: []string{}}
	d.Summary = d.summary()
	r.Differences = append(r.Differences, d)
}

// compareOrders compares the orders of the replicas that share them.
func (r *Report) compareOrders(members []*Member) {
	sharing := slices.DeleteFunc(slices.Clone(members), func(m *Member) bool { return m.Orders == "" })
	r.compare(Difference{Kind: KindOrders}, sharing, each(sharing, func(m *Member) item { return item{value: m.Orders} }))
}

// compareServices compares the services of members in linear time.
func (r *Report) compareServices(members []*Member) {
	services := make(map[string][]item) // by service, an item per member
	for n, m := range members {
		for _, s := range m.Services {
			items := services[s.Service]
			if items == nil {
				items = each(members, func(*Member) item { return item{value: missing} })
				services[s.Service] = items
			}
			if items[n].value == missing { // the first of a name counts
				items[n] = item{value: s.Digest, source: s.Source, index: s.Index, instances: s.Instances}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		items := services[name]
		d := Difference{Kind: KindInstances, Service: name}
		if slices.ContainsFunc(items, func(i item) bool { return i.value == missing }) {
			d.Kind = KindServices
		}
		r.compare(d, members, items)
	}
}

func (d Difference) summary() string {
	parts := make([]string, len(d.Groups))
	for i, g := range d.Groups {
		who := strings.Join(g.Replicas, ", ")
		switch {
		case d.Kind == KindConfig, d.Kind == KindOrders:
			parts[i] = fmt.Sprintf("%s: %s", who, g.Value)
		case d.Kind == KindPending && g.Value == "":
			parts[i] = who + ": nothing"
		case d.Kind == KindPending:
			parts[i] = fmt.Sprintf("%s: %s", who, g.Value)
		case g.Value == missing:
			parts[i] = who + ": missing"
		case g.Index == 0:
			parts[i] = fmt.Sprintf("%s: instances %d", who, g.Instances)
		default:
			parts[i] = fmt.Sprintf("%s: instances %d at index %d", who, g.Instances, g.Index)
		}
	}
	line := map[string]string{
		KindConfig:    "the configuration differs",
		KindPending:   "a restart is needed",
		KindOrders:    "operators' orders differ",
		KindServices:  fmt.Sprintf("not all have the service %q", d.Service),
		KindInstances: fmt.Sprintf("the instances of %q differ", d.Service),
	}[d.Kind] + ": " + strings.Join(parts, "; ")
	if len(d.Behind) > 0 {
		line += "; behind: " + strings.Join(d.Behind, ", ")
	}
	return line
}
