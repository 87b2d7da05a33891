package gateway

import (
	"strings"

	"sluice/config"
	"sluice/route"
)

// weightedOf returns how the requests of a route with these actions are divided among services;
// nil: it has at most one.
func (g *Gateway) weightedOf(r *config.Route, actions *route.Actions, targets map[string]*route.Service, p *plan) (*route.Weighted, error) {
	parts := r.Divided()
	if len(parts) == 0 {
		return nil, nil
	}
	w := &route.Weighted{ByPeers: len(r.Parts) > 0, Key: route.SplitKey{Source: route.SplitNone}}
	if !w.ByPeers {
		w.Key = r.Services.Key()
	}
	var names []string
	for i := range parts {
		part, own := &parts[i], actions
		if w.ByPeers {
			var err error
			if own, err = g.actionsOf(&part.Route, p); err != nil {
				return nil, err
			}
		}
		names = append(names, part.Route.Service)
		target := g.routeOf(&part.Route, own, targets, p)
		w.Targets = append(w.Targets, route.Target{Route: &target, Share: part.Share})
	}
	w.Seed = strings.Join(names, " ")
	return w, nil
}
