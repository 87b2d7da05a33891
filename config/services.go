package config

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"sluice/config/decoding"
)

// Part is what some of the requests of a route get: the service, its group or split, the mirror
// and the actions of Route.
type Part struct {
	Route Route
	Share float64 // as [route.Target.Share]
}

// Divided returns the parts of a route with several services; none: it has at most one.
func (r *Route) Divided() []Part {
	if len(r.Parts) > 0 {
		return r.Parts
	}
	var parts []Part
	for _, share := range r.Services.Shares() {
		part := Part{Route: *r, Share: share.Size}
		part.Route.Service, part.Route.Services = share.Group, nil
		parts = append(parts, part)
	}
	return parts
}

// RoutedServices returns the names of the services that routes need; one may be "".
func RoutedServices(routes []Route) map[string]bool {
	names := make(map[string]bool, len(routes))
	for i := range routes {
		r := &routes[i]
		names[r.Service] = true
		if r.Mirror != nil {
			names[r.Mirror.Service] = true
		}
		for _, part := range r.Divided() {
			names[part.Route.Service] = true
		}
	}
	return names
}

// hasService reports whether r has a service, or several.
func (r *Route) hasService() bool { return r.Service != "" || len(r.Services) > 0 || len(r.Parts) > 0 }

// checkServices checks what depends on nothing but the services of a route.
func (r *Route) checkServices(d *decoder, key string) {
	if len(r.Services) == 0 {
		if r.ForwardAuth.decides("service") {
			d.Refuse(decoding.Join(key, "forward_auth.decides"), "service", "only with services, from which the answer chooses one; a share may be 0%")
		}
		return
	}
	for _, other := range []struct{ key, value string }{{"service", r.Service}, {"group", r.Group}} {
		if other.value != "" {
			d.Refuse(decoding.Join(key, other.key), other.value, "not with services: want one of them")
		}
	}
	if len(r.Split) > 0 {
		d.Refuse(decoding.Join(key, "split"), "", "not with services, each of which may have a split of its own: want one of them")
	}
	if m := r.Mirror; m != nil && m.Service == "" && m.Group != "" {
		d.Refuse(decoding.Join(key, "mirror.group"), m.Group, "only with mirror.service: the route has several services")
	}
	key = decoding.Join(key, "services")
	sum := 0.
	for _, name := range slices.Sorted(maps.Keys(r.Services)) {
		at, text := decoding.Join(key, name), r.Services[name].Text
		switch name {
		case splitKey:
			r.Services.needText(d, at, name)
		case splitFallback:
			d.Refuse(at, text, "not here: a service without usable peers gives its share to the others")
		default:
			r.Services.needText(d, at, name)
			sum += r.Services[name].Value.Share
		}
	}
	if math.Abs(sum-1) > 1e-9 && !d.Failed(key) {
		d.Refuse(key, "", fmt.Sprintf("the shares add up to %s, want 100%%", Percent(sum)))
	}
}

// needService checks that a service of a route exists, or may be in the catalog.
func (c *Config) needService(d *decoder, key, name string) {
	_, ok := c.Services[name]
	switch {
	case ok || d.Failed(decoding.Join("services", name)):
	case c.Catalog != nil && formats["name"].OK(name): // the catalog may have it
	default:
		d.Refuse(key, name, d.whole.serviceNames().want(name))
	}
}

// Mirror sends copies of some requests of a route to another service or group, and drops the
// answers. Service or Group is set.
type Mirror struct {
	Service  string `key:"service"` // empty: the route's
	Group    string `key:"group"`   // of the service; empty: all peers
	Share    Ratio  `key:"share" default:"100%" min:"0" max:"1"`
	Body     Size   `key:"body" default:"64KiB" min:"0" max:"16MiB"` // longest one that is copied
	InFlight int    `key:"in_flight" default:"100" min:"1" max:"10000"`
}

// mirrorTo returns the name of the service that gets the copies.
func (r *Route) mirrorTo() string { return cmp.Or(r.Mirror.Service, r.Service) }

// checkMirror checks the mirror of a route, which is not nil.
func (r *Route) checkMirror(d *decoder, key string, c *Config) {
	m := r.Mirror
	switch {
	case d.Failed(key):
		return
	case !r.hasService():
		d.Refuse(key, "", "only with a service: the route redirects every request")
		return
	case m.Service == "" && m.Group == "":
		d.Refuse(key, "", `want the service or the group that gets the copies, such as "mirror: { service: star-next, share: 5% }"`)
		return
	}
	name := r.mirrorTo()
	if name == "" {
		return // it has several services, and the decoder refuses the group
	}
	if s, ok := c.Services[name]; ok && m.Group != "" && !d.whole.awaited[name] {
		s.checkGroup(d, key+".group", m.Group, true)
	}
	if m.Service != "" {
		c.needService(d, key+".service", name)
	}
}

// missingMirror returns why the mirror of r cannot be used, if its service or group is not in
// services, or "".
func missingMirror(r *Route, services map[string]Service) string {
	if r.Mirror == nil {
		return ""
	}
	return missing(services, r.mirrorTo(), true, r.Mirror.Group)
}
