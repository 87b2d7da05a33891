package admin

import (
	"encoding/json"

	"sluice/balancer/reading"
	"sluice/config"
	"sluice/route"
)

// Branch is a branch of the discovery chain of a route's service: the requests of which it is the
// first that matches go where it says, after all that the route does.
type Branch struct {
	Origin     string   `json:"origin"` // "service-router web, route 2"
	Path       string   `json:"path"`   // compared with the path that the route sends
	Match      string   `json:"match"`  // prefix, exact, string_prefix, regexp
	IgnoreCase bool     `json:"ignore_case,omitempty"`
	Conditions []string `json:"conditions,omitempty"` // for people
	// PrefixRewrite is what takes the place of Path; empty: nothing.
	PrefixRewrite string          `json:"prefix_rewrite,omitempty"`
	Service       string          `json:"service"`            // empty: several
	Weighted      *Weighted       `json:"weighted,omitempty"` // null: one service
	Split         *Split          `json:"split,omitempty"`    // null: all peers of the service
	Actions       json.RawMessage `json:"actions,omitempty"`  // keys as in the file; absent: none
}

// RouteChain is the discovery chain of the service of a Route, or of a Target of one: its branches,
// in order, where the chain comes first in a list of routes, and its service in all other places. A
// request that takes no branch goes to the service.
type RouteChain struct {
	Chain   []Branch `json:"chain,omitempty"`
	ChainOf string   `json:"chain_of,omitempty"`
}

// showOnce leaves out the branches of the service's chain if they were shown, and else adds the
// actions that c has of them.
func (r *RouteChain) showOnce(service string, c *config.Config, shown map[string]bool) {
	switch {
	case len(r.Chain) == 0:
	case shown[service]:
		*r = RouteChain{ChainOf: service}
	default:
		shown[service] = true
		addActions(r.Chain, service, c)
	}
}

// showChainsOnce leaves out the chains of the route that were shown: a chain has many branches, and
// a service many routes. To the others it adds the actions that c has.
func (described *Route) showChainsOnce(c *config.Config, shown map[string]bool) {
	described.showOnce(described.Service, c, shown)
	if described.Weighted != nil {
		for i := range described.Weighted.Targets {
			target := &described.Weighted.Targets[i]
			target.showOnce(target.Service, c, shown)
		}
	}
}

// describeChain describes the branches of r, which may be nil.
func describeChain(r *route.Router, readings map[string]*reading.Service) (all []Branch) {
	if r == nil {
		return nil
	}
	for i := range r.Ways {
		b, way := &r.Chain.Branches()[i], &r.Ways[i]
		all = append(all, Branch{
			Origin: b.Route.Origin, Path: b.Route.Path, Match: string(b.Route.PathMatch), IgnoreCase: b.IgnoreCase, Conditions: b.Requirements(),
			PrefixRewrite: b.Rewrite.Replacement(), Service: way.ServiceName(),
			Weighted: describeWeighted(way.Weighted, readings), Split: describeSplit(way.Split, readings[way.ServiceName()]),
		})
	}
	return all
}

// addActions adds the actions of the branches of a service's chain to their descriptions.
func addActions(described []Branch, service string, c *config.Config) {
	if c == nil {
		return
	}
	chain := c.Services[service].Chain
	if len(chain) != len(described) {
		return // the configuration has changed just now
	}
	for i := range described {
		from := &chain[i].Route
		described[i].Actions = config.ActionsJSON(from.Actions)
		described[i].Weighted.addActions(from.Parts)
	}
}
