package routes

import (
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
