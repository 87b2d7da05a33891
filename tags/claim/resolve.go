package claim

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"sluice/config"
	"sluice/tags"
)

// Resolver resolves again and again. Services whose instances are the same slice as the last
// time, with the same rules, cost almost nothing. It is not safe for concurrent use; the zero
// value is ready.
type Resolver struct {
	rules    *Rules
	services map[string]resolved // by name
}

// resolved is what a service wants, as long as nothing about it changes. It is not written again.
type resolved struct {
	service  Service
	wants    []*want
	problems []Problem
	settings tags.Keys
	groups   map[string]config.Group
}

// is reports whether r is the result of s.
func (r *resolved) is(s Service) bool {
	return r.service.InConsul == s.InConsul && len(s.Instances) > 0 && len(r.service.Instances) == len(s.Instances) &&
		&r.service.Instances[0] == &s.Instances[0]
}

// Resolve resolves once.
func Resolve(services []Service, rules Rules, holders map[string]string) Result {
	return new(Resolver).Resolve(services, &rules, holders)
}

// Resolve decides which routes are used. holders are the holders in the last result:
// of two services that ask for the same route, the holder keeps it, or shares it. Neither services
// nor rules may be written later.
func (m *Resolver) Resolve(services []Service, rules *Rules, holders map[string]string) Result {
	if rules != m.rules {
		m.rules, m.services = rules, nil
	}
	before := m.services
	m.services = make(map[string]resolved, len(services))
	result := Result{
		Settings: make(map[string]tags.Keys), Groups: make(map[string]map[string]config.Group), Holders: make(map[string]string),
	}
	services = slices.SortedFunc(slices.Values(services), func(a, b Service) int { return cmp.Compare(a.Name, b.Name) })
	wanted := make(map[string][]*want)
	decoded := make(decodings)
	for _, s := range services {
		one, known := before[s.Name]
		if !known || !one.is(s) {
			r := &resolver{service: s, rules: rules, decoded: decoded, problems: newProblems()}
			one = resolved{service: s, wants: r.resolve(), settings: r.settings, groups: r.groups}
			one.problems = r.problems.list()
		}
		m.services[s.Name] = one
		for _, w := range one.wants {
			wanted[w.key] = append(wanted[w.key], w)
		}
		if one.settings != nil {
			result.Settings[s.Name] = one.settings
		}
		if one.groups != nil {
			result.Groups[s.Name] = one.groups
		}
		result.Problems = append(result.Problems, one.problems...)
	}
	lost := newProblems()
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		list := wanted[key]
		if origin, taken := rules.Taken[key]; taken {
			for _, w := range list {
				lost.add(w.lost("the operator has a route for the same requests: "+origin, nil))
			}
			continue
		}
		sharers, losers := contest(list, strings.Fields(holders[key]), rules)
		route := routeOf(sharers)
		route.Over = slices.Clip(route.Over) // it may be a service's
		for _, w := range losers {
			how := "and keeps it"
			if w.dialect == config.DialectTraefik && route.Dialect == w.dialect && w.used.Priority < route.Priority {
				how = "by a higher priority"
			}
			reason := "the service " + route.By.Service + " has a route for the same requests, " + how
			if !rules.Share && w.dialect == config.DialectFabio && route.Dialect == w.dialect {
				reason += ": they share it with catalog.fabio.share and entries of catalog.claims that allow both"
			}
			lost.add(w.lost(reason, &route.By))
			route.Over = append(route.Over, w.ask())
		}
		result.Routes = append(result.Routes, route)
		result.Holders[key] = strings.Join(route.services(), " ")
	}
	result.Problems = append(result.Problems, lost.list()...)
	return result
}

// contest returns which of the services that want the same route have it, and which do not.
// A holder keeps it, else the first one has it. It shares it with others if rules say so, and
// fabio's tags of all of them ask for it. If claims allow it to each, and Traefik's tags ask for
// it, the router with the highest priority that a tag sets has it, as in Traefik.
func contest(list []*want, holders []string, rules *Rules) (sharers, losers []*want) {
	winner := list[max(0, slices.IndexFunc(list, func(w *want) bool { return slices.Contains(holders, w.service) }))]
	both := func(w *want, dialect string) bool { return w.dialect == dialect && winner.dialect == dialect }
	for _, w := range list {
		if len(rules.Claims) > 0 && both(w, config.DialectTraefik) && w.route.PrioritySet && w.used.Priority > winner.used.Priority {
			winner = w
		}
	}
	for _, w := range list {
		if w == winner || rules.Share && both(w, config.DialectFabio) {
			sharers = append(sharers, w)
		} else {
			losers = append(losers, w)
		}
	}
	return sharers, losers
}

// routeOf returns the route that services share, or that one has.
func routeOf(sharers []*want) Route {
	first := sharers[0]
	r := Route{Route: first.used, Key: first.key, Members: first.group, By: first.ask(), Tags: first.route.Tags, Over: first.over}
	if len(sharers) == 1 && len(first.weights) == 1 {
		return r
	}
	r.Service, r.Members, r.Actions = "", "", config.Actions{}
	for _, w := range sharers {
		if w != first {
			r.With = append(r.With, Claim{w.ask(), w.route.Tags})
			r.Over = append(slices.Clip(r.Over), w.over...)
		}
		for _, group := range slices.Sorted(maps.Keys(w.weights)) {
			part := config.Part{Route: w.used, Share: w.weights[group]}
			part.Route.Group = group
			r.Parts = append(r.Parts, part)
		}
	}
	return r
}

// want is a route that a service wants to have.
type want struct {
	asked
	service string
	used    config.Route
	group   string
	members []Named
	weights map[string]float64 // by group; of all members the group is ""
	over    []Ask              // of instances of the service with other options
}

func (w *want) ask() Ask { return askOf(w.service, w.members, w.asked) }

// lost returns the problem of a route that another one, whose ask is winner, takes the place of.
func (w *want) lost(reason string, winner *Ask) Problem {
	return Problem{Ask: w.ask(), Kind: KindConflict, Reason: reason, Wanted: &w.used, Winner: winner}
}
