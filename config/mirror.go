package config

import (
	"cmp"
	"fmt"
)

// Mirror sends copies of some requests of a route to another service or group, and drops the
// answers. Service or Group is set.
type Mirror struct {
	Service  string `key:"service"` // empty: that of the route
	Group    string `key:"group"`   // of the service; empty: all peers
	Share    Ratio  `key:"share" default:"100%" min:"0" max:"1"`
	Body     Size   `key:"body" default:"64KiB" min:"0" max:"16MiB"` // longest one that is copied
	InFlight int    `key:"in_flight" default:"100" min:"1" max:"10000"`
}

// mirrorTo returns the name of the service that gets the copies.
func (r *Route) mirrorTo() string { return cmp.Or(r.Mirror.Service, r.Service) }

// mirror checks the mirror of a route, which is not nil.
func (d *decoder) mirror(r *Route, key string, c *Config) {
	m := r.Mirror
	switch {
	case d.failed(key):
		return
	case !r.hasService():
		d.refuse(key, "", "only with a service: the route redirects every request")
		return
	case m.Service == "" && m.Group == "":
		d.refuse(key, "", `want the service or the group that gets the copies, such as "mirror: { service: star-next, share: 5% }"`)
		return
	}
	name := r.mirrorTo()
	if name == "" {
		return // it has several services, and the decoder refuses the group
	}
	switch s, ok := c.Services[name]; {
	case ok && m.Group != "" && !d.awaited[name]:
		d.groupOf(&s, key+".group", m.Group, true)
	case ok || m.Service == "" || d.failed(join("services", name)):
	case c.Catalog != nil && formats["name"].ok(name): // the catalog may have it
	default:
		d.refuse(key+".service", name, d.serviceNames().want(name))
	}
}

// missingMirror returns why the mirror of r cannot be used, if its service or group is not in
// services, or "".
func missingMirror(r *Route, services map[string]Service) string {
	if r.Mirror == nil {
		return ""
	}
	s, ok := services[r.mirrorTo()]
	if !ok {
		return fmt.Sprintf("there is no service %q", r.mirrorTo())
	}
	if s.hasGroup(r.Mirror.Group) {
		return ""
	}
	return fmt.Sprintf("the service %q has no group %q", r.mirrorTo(), r.Mirror.Group)
}
