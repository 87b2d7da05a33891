package routes

import (
	"strings"

	"sluice/config"
	"sluice/route"
)

// weightedOf returns how the requests of a route with these actions are divided among services;
// nil: it has at most one.
func (b *builder) weightedOf(r *config.Route, actions *route.Actions) (*route.Weighted, error) {
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
			if own, err = b.actionsOf(&part.Route); err != nil {
				return nil, err
			}
		}
		names = append(names, part.Route.Service)
		target, err := b.routeOf(&part.Route, own)
		if err != nil {
			return nil, err
		}
		w.Targets = append(w.Targets, route.Target{Route: &target, Share: part.Share})
	}
	w.Seed = strings.Join(names, " ")
	return w, nil
}
