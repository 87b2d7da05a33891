package claim

import (
	"cmp"
	"slices"
	"strings"

	"sluice/tags"
)

// problems collects problems: one for all instances that have the same.
type problems struct {
	all []Problem
	at  map[problemKey]int // index in all
}

// problemKey is a problem without its instances.
type problemKey struct {
	service, dialect, tag, reason string
	column                        int
}

func newProblems() *problems { return &problems{at: make(map[problemKey]int)} }

func (l *problems) add(p Problem) {
	key := problemKey{p.Service, p.Dialect, p.Tag, p.Reason, p.Column}
	at, known := l.at[key]
	if !known {
		l.at[key] = len(l.all)
		p.Instances = slices.Clone(p.Instances)
		l.all = append(l.all, p)
		return
	}
	l.all[at].Instances = append(l.all[at].Instances, p.Instances...)
}

// list returns the problems, in the order in which they were added first.
func (l *problems) list() []Problem {
	for i := range l.all {
		list := &l.all[i].Instances
		slices.SortFunc(*list, func(a, b Named) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Node, b.Node)) })
		*list = slices.Compact(*list)
	}
	return l.all
}

// askOf returns what instances of a service ask for with a route.
func askOf(service string, instances []Named, a asked) Ask {
	return Ask{Service: service, Instances: instances, Dialect: a.dialect, Tag: tagOf(a.route)}
}

// tagOf returns the tag that best names a route: that with its rule, or the only one.
func tagOf(route tags.Route) string {
	for _, tag := range route.Tags {
		if strings.Contains(tag, ".rule=") {
			return tag
		}
	}
	return route.Tags[0]
}
