package fleet

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// conclude derives Converged, Differences and Unknown from Replicas.
func (r *Report) conclude() {
	r.Differences, r.Unknown = []Difference{}, []Unknown{}
	values := make(map[string]map[string][]string) // names of replicas, by kind and value
	add := func(kind, value, name string) {
		if values[kind] == nil {
			values[kind] = make(map[string][]string)
		}
		values[kind][value] = append(values[kind][value], name)
	}
	for i := range r.Replicas {
		m := &r.Replicas[i]
		if !m.counts() {
			continue
		}
		if m.answered() || m.ConfigHash != "" { // its registration has the hash too
			add(KindConfig, m.ConfigHash, m.Name)
		}
		if !m.answered() {
			r.Unknown = append(r.Unknown, Unknown{m.Name, m.Error})
			continue
		}
		add(KindPending, strings.Join(m.Pending, ", "), m.Name)
		for part, hash := range m.Parts {
			add(part, hash, m.Name)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(values)) {
		_, nothing := values[kind][""]
		if len(values[kind]) > 1 || kind == KindPending && !nothing { // even if all wait for one
			r.Differences = append(r.Differences, difference(kind, values[kind]))
		}
	}
	converged := len(r.Differences) == 0
	if !converged || len(r.Unknown) == 0 && r.Error == "" {
		r.Converged = &converged
	}
}

// summaries begin the summary of a difference.
var summaries = map[string]string{
	KindConfig: "the configuration differs", KindPending: "a restart is needed",
	PartServices: "the services differ", PartInstances: "the instances differ", PartRoutes: "the routes differ",
	PartOrders: "operators' orders differ", PartShares: "the shares of groups differ",
}

func difference(kind string, values map[string][]string) Difference {
	d := Difference{Kind: kind}
	for value, names := range values {
		d.Groups = append(d.Groups, Group{value, names})
	}
	slices.SortFunc(d.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(len(b.Replicas), len(a.Replicas)), cmp.Compare(a.Value, b.Value))
	})
	parts := make([]string, len(d.Groups))
	for i, g := range d.Groups {
		parts[i] = strings.Join(g.Replicas, ", ") + ": " + cmp.Or(g.Value, "nothing")
	}
	d.Summary = cmp.Or(summaries[kind], kind+" differ") + ": " + strings.Join(parts, "; ")
	return d
}
