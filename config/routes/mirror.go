package routes

import (
	"cmp"

	"sluice/config"
	"sluice/route"
)

// mirrors are the counters of copies. They go on in the next configuration that has copies of
// the same service for the same service or group.
type mirrors map[mirrorID]*route.Copies

type mirrorID struct{ from, to, group string }

// of returns the counters for id, which it takes from before or creates.
func (m mirrors) of(id mirrorID, before mirrors) *route.Copies {
	copies, _ := keep(m, before, id, func(mirrorID) (*route.Copies, error) { return route.NewCopies(id.from, id.to, id.group), nil })
	return copies
}

// mirrorOf returns the mirror of a route with these actions; nil: it has none.
func (b *builder) mirrorOf(r *config.Route, actions *route.Actions) *route.Mirror {
	if r.Mirror == nil || b.services[r.Service] == nil {
		return nil
	}
	to := b.services[cmp.Or(r.Mirror.Service, r.Service)]
	m := &route.Mirror{
		Service: route.MirrorService(to), Share: float64(r.Mirror.Share), BodyBytes: int64(r.Mirror.Body), InFlight: int64(r.Mirror.InFlight),
		Actions: route.MirrorActions(actions, r.Service),
		Copies:  b.mirrors.of(mirrorID{r.Service, to.Name, r.Mirror.Group}, b.before.mirrors),
	}
	if r.Mirror.Group != "" {
		m.Group = to.Pool.Group(r.Mirror.Group)
	}
	return m
}
