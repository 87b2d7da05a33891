package routes

import (
	"cmp"
	"fmt"

	"sluice/config"
	"sluice/route"
)

// chain is the discovery chain of a service, compiled.
type chain struct {
	*route.Chain
	// plain is the router of all routes that add nothing of their own to what the chain does; nil:
	// not needed yet.
	plain *route.Router
}

// routerOf returns the router of a route with these actions to a service; nil: the service has no
// chain, or the route chooses peers of the service itself.
func (b *builder) routerOf(r *config.Route, actions *route.Actions) (*route.Router, error) {
	configured := b.config.Services[r.Service].Chain
	if len(configured) == 0 || r.Group != "" || len(r.Split) > 0 {
		return nil, nil
	}
	c := b.chains[r.Service]
	if c == nil {
		compiled, err := b.compileChain(configured)
		if err != nil {
			return nil, fmt.Errorf("discovery chain of service %q: %w", r.Service, err)
		}
		c = &chain{Chain: compiled}
		b.chains[r.Service] = c
	}
	plain := actions == nil && r.Mirror == nil && r.Timeouts == nil && r.Retry == nil
	if plain && c.plain != nil {
		return c.plain, nil
	}
	router := &route.Router{Chain: c.Chain, Ways: make([]route.Route, len(configured))}
	for i := range configured {
		router.Ways[i] = b.wayOf(r, actions, &configured[i])
	}
	if plain {
		c.plain = router
	}
	return router, nil
}

// compileChain compiles a chain. It has an error only if the branches are not checked, or their
// services are missing.
func (b *builder) compileChain(configured []config.Branch) (*route.Chain, error) {
	branches := make([]route.Branch, len(configured))
	for i := range configured {
		from := &configured[i]
		for _, name := range from.Services() {
			if b.services[name] == nil {
				return nil, fmt.Errorf("%s: there is no service %q", from.Origin, name)
			}
		}
		branches[i] = route.Branch{Route: from.Route.Target(), IgnoreCase: from.IgnoreCase, Rewrite: from.Rewrite}
		branches[i].Route.Origin = from.Origin
	}
	return route.NewChain(branches)
}

// wayOf returns where a branch leads the requests of a route with these actions.
func (b *builder) wayOf(r *config.Route, actions *route.Actions, branch *config.Branch) route.Route {
	actions = actions.With(branch.Route.Built())
	if len(branch.Route.Parts) == 0 {
		return b.endOf(r, actions, &branch.Route, branch.Route.Service)
	}
	w := &route.Weighted{Key: branch.Key, Seed: "splitter " + cmp.Or(branch.Splitter, r.Service)}
	for i := range branch.Route.Parts {
		part := &branch.Route.Parts[i]
		end := b.endOf(r, actions.With(part.Route.Built()), &branch.Route, part.Route.Service)
		end.Origin = part.Route.Origin
		w.Targets = append(w.Targets, route.Target{Route: &end, Share: part.Share})
	}
	return route.Route{Weighted: w}
}

// endOf returns what a branch does with the requests of r to a service, with all actions.
func (b *builder) endOf(r *config.Route, actions *route.Actions, branch *config.Route, to string) route.Route {
	service := b.services[to]
	return route.Route{
		Service: withSettings(withSettings(service, branch), r),
		Split:   splitOf(r, b.config.Services[to], service),
		Mirror:  b.mirrorOf(r, actions),
		Actions: actions,
	}
}
