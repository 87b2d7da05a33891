package config

import (
	"reflect"
	"strings"

	"sluice/config/decoding"
)

// Defaults are what services and routes have that say nothing else, wherever they come from.
type Defaults struct {
	Service ServiceSettings `key:"service"`
	Route   RouteDefaults   `key:"route"`
}

// RouteDefaults are actions that each route of requests uses last. What a route of the file says,
// or null, counts in their place; to a route of others they are as named actions.
type RouteDefaults struct {
	Use []string `key:"use"` // as [Route.Use]
	Actions
}

// DefaultService returns a service with the defaults of all keys, and without a source.
func DefaultService() Service { return new(Config).newService() }

// newService returns a service that says nothing.
func (c *Config) newService() (s Service) {
	schema.SetDefaults(&s)
	if c.Defaults != nil {
		s.ServiceSettings = c.Defaults.Service
	}
	return s
}

// absent is a [decoding.Decoder.Absent]. It may be used while c is decoded.
func (c *Config) absent() map[reflect.Type]func() any {
	return map[reflect.Type]func() any{reflect.TypeFor[Service](): func() any { return c.newService() }}
}

// checkDefaults adds to the defaults of routes the named actions that they use, and checks all as
// for a service in the catalog and a route.
func (c *Config) checkDefaults(d *decoder) {
	if c.Defaults == nil {
		return
	}
	const service, route = "defaults.service", "defaults.route"
	s := c.newService()
	s.Consul = new(ConsulService)
	schema.SetDefaults(s.Consul)
	s.Consul.Connect = c.Catalog != nil && c.Catalog.Connect
	s.check(d, service, "", &c.Consul)
	r := &c.Defaults.Route
	if r.use(d, route, r.Use, c.Actions); !d.Failed("actions") && !d.Failed(route) {
		r.build(d, "", route)
		r.openFiles(d, route)
		r.checkScope(d, route, c)
	}
	r.built = nil
}

// complete adds to the actions of a route the named ones that it uses, and the defaults. c may be
// nil. Restrictions of the defaults count beside those of a route, unless the file replaces them.
func (a *Actions) complete(d *decoder, key string, use []string, c *Config) {
	if c == nil {
		c = new(Config)
	}
	if a.use(d, key, use, c.Actions); c.Defaults == nil {
		return
	}
	byFile := d.by&^ByFile == 0
	twice := a.add(&c.Defaults.Route.Actions, func(name string, empty bool) bool {
		if empty { // maybe it is null
			return byFile && d.HasKey(decoding.Join(key, name))
		}
		return byFile && !strings.HasSuffix(name, "_headers")
	})
	if twice != "" {
		d.Refuse(decoding.Join(key, twice), "", "the file has another one in defaults.route, and neither may be lost")
	}
}

// findDefault returns the place of the value that [Config.Defaults] have for a key of a service or
// of a route, "" without one, and whether there is an error about it. It may be called
// concurrently.
func (w *whole) findDefault(key string) (place string, wrong bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	section, rest, more := strings.Cut(key, ".")
	at := "defaults.service."
	if strings.HasPrefix(section, "routes[") {
		at = "defaults.route."
	} else if section != "services" {
		return "", false
	}
	for ; more; _, rest, more = strings.Cut(rest, ".") { // the name of a service may have dots
		if wrong = w.file.Failed(at + rest); w.file.HasKey(at + rest) {
			return w.file.Place(at + rest).Origin, wrong
		} else if wrong {
			return "", true
		}
	}
	return "", false
}

// givesDefault reports whether the value of a key of a service or of a route, which d decodes, is
// from [Config.Defaults].
func (w *whole) givesDefault(d *decoder, key string) bool {
	if d.Says(key) {
		return false
	}
	place, _ := w.findDefault(key)
	return place != ""
}

// Refuse is as [decoding.Decoder.Refuse]. It tells where a value from the defaults is, and is
// silent about one that is refused there.
func (d *decoder) Refuse(key, value, want string) {
	if d.whole != nil && !d.Says(key) {
		place, wrong := d.whole.findDefault(key)
		if wrong {
			return
		}
		if place != "" {
			value, want = "", want+" (the value is from "+place+")"
		}
	}
	d.Decoder.Refuse(key, value, want)
}
