package routes

import (
	"strings"

	"sluice/balancer"
	"sluice/config"
	"sluice/route"
)

// splitOf returns how the requests of a route to target are divided among the groups of
// target, whose configuration is s; nil: not at all.
func splitOf(r *config.Route, s config.Service, target *route.Service) *route.Split {
	if r.Group != "" {
		return route.ToGroup(target.Pool.Group(r.Group))
	}
	from := r.Split
	judged := false
	if len(from) == 0 {
		from, judged = s.Split, s.Judge != nil
	}
	if len(from) == 0 {
		return nil
	}
	split := &route.Split{Rest: target.Pool.Group(balancer.RestGroup), Key: from.Key(), Seed: target.Name}
	if shares := from.Shares(); judged && len(shares) == 1 {
		split.Judged = route.ShareMark(shares[0].Size)
	}
	for _, share := range from.Shares() {
		split.Shares = append(split.Shares, route.Share{Group: target.Pool.Group(share.Group), Size: share.Size})
	}
	if fallback := from.Fallback(); fallback != "" {
		split.Fallback = target.Pool.Group(fallback)
	}
	return split
}

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
