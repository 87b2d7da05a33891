package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// missing is the value of the replicas that do not have a service.
const missing = "missing"

// conclude fills in what follows from the replicas of a report.
func (r *Report) conclude() {
	r.Differences, r.Unknown = []Difference{}, []Unknown{}
	var known, all []*Member
	for i := range r.Replicas {
		m := &r.Replicas[i]
		switch {
		case !m.counts():
		case m.asked():
			known = append(known, m)
			all = append(all, m)
		default:
			if m.ConfigHash != "" {
				all = append(all, m)
			}
			r.Unknown = append(r.Unknown, Unknown{m.Name, m.Error})
		}
	}
	// The hash is in the meta of a registration too.
	r.compare(Difference{Kind: KindConfig}, all, func(m *Member) item { return item{value: m.ConfigHash} })
	r.comparePending(known)
	for _, name := range servicesOf(known) {
		r.compareService(name, known)
	}
	converged := len(r.Differences) == 0
	if !converged || len(r.Unknown) == 0 && r.Error == "" {
		r.Converged = &converged
	}
}

// item is what a replica has of something.
type item struct {
	value     string
	source    string
	index     uint64
	instances int
}

// compare adds d if members do not all have the same.
func (r *Report) compare(d Difference, members []*Member, of func(*Member) item) {
	groups := make(map[string]*Group)
	for _, m := range members {
		i := of(m)
		g := groups[i.value]
		if g == nil {
			g = &Group{Value: i.value}
			groups[i.value] = g
		}
		g.Replicas = append(g.Replicas, m.Name)
		g.Index, g.Instances = max(g.Index, i.index), i.instances
	}
	if len(groups) < 2 {
		return
	}
	for _, g := range groups {
		d.Groups = append(d.Groups, *g)
	}
	slices.SortFunc(d.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(len(b.Replicas), len(a.Replicas)), cmp.Compare(b.Index, a.Index), cmp.Compare(a.Value, b.Value))
	})
	d.Behind = []string{}
	for _, m := range members {
		mine := of(m)
		if mine.index > 0 && slices.ContainsFunc(members, func(o *Member) bool {
			theirs := of(o)
			return theirs.index > mine.index && theirs.source == mine.source && theirs.value != mine.value
		}) {
			d.Behind = append(d.Behind, m.Name)
		}
	}
	d.Summary = d.summary()
	r.Differences = append(r.Differences, d)
}

// comparePending adds the replicas that do not run what their file says: each is
// a difference to the others, even if all have it.
func (r *Report) comparePending(members []*Member) {
	pending := func(m *Member) item { return item{value: strings.Join(m.Pending, ", ")} }
	before := len(r.Differences)
	r.compare(Difference{Kind: KindPending}, members, pending)
	if len(r.Differences) > before || len(members) == 0 || len(members[0].Pending) == 0 {
		return
	}
	g := Group{Value: pending(members[0]).value}
	for _, m := range members {
		g.Replicas = append(g.Replicas, m.Name)
	}
	d := Difference{Kind: KindPending, Groups: []Group{g}, Behind: []string{}}
	d.Summary = d.summary()
	r.Differences = append(r.Differences, d)
}

// compareService adds what differs in a service.
func (r *Report) compareService(name string, members []*Member) {
	with := func(m *Member) *Service {
		if i := slices.IndexFunc(m.Services, func(s Service) bool { return s.Service == name }); i >= 0 {
			return &m.Services[i]
		}
		return nil
	}
	d := Difference{Kind: KindInstances, Service: name}
	if slices.ContainsFunc(members, func(m *Member) bool { return with(m) == nil }) {
		d.Kind = KindServices
	}
	r.compare(d, members, func(m *Member) item {
		s := with(m)
		if s == nil {
			return item{value: missing}
		}
		return item{value: s.Digest, source: s.Source, index: s.Index, instances: s.Instances}
	})
}

// servicesOf returns the names of all services that any of members has, sorted.
func servicesOf(members []*Member) []string {
	var names []string
	for _, m := range members {
		for _, s := range m.Services {
			names = append(names, s.Service)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// summary says d in one line.
func (d Difference) summary() string {
	parts := make([]string, len(d.Groups))
	for i, g := range d.Groups {
		who := strings.Join(g.Replicas, ", ")
		switch {
		case d.Kind == KindConfig:
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
		KindServices:  fmt.Sprintf("not all have the service %q", d.Service),
		KindInstances: fmt.Sprintf("the instances of %q differ", d.Service),
	}[d.Kind] + ": " + strings.Join(parts, "; ")
	if len(d.Behind) > 0 {
		line += "; behind: " + strings.Join(d.Behind, ", ")
	}
	return line
}
