package config

import (
	"path"
	"reflect"
	"slices"
	"strings"
)

// Catalog adds services from Consul that the file does not name.
type Catalog struct {
	Select CatalogSelect `key:"select"`
}

// CatalogSelect selects services, and the instances of them. All conditions that are
// set must be met.
type CatalogSelect struct {
	Name string   `key:"name" format:"pattern"` // pattern for the service name, as in path.Match
	Tag  string   `key:"tag"`                   // an instance must have it
	Meta []string `key:"meta" format:"catalog_meta"`
}

// isPattern reports whether s is a pattern for path.Match.
func isPattern(s string) bool {
	_, err := path.Match(s, "")
	return err == nil
}

// isCatalogMeta reports whether s is KEY=VALUE and can be quoted in a filter of Consul.
func isCatalogMeta(s string) bool {
	return strings.Index(s, "=") > 0 && !strings.Contains(s, "`")
}

// FoundService is a service in the catalog.
type FoundService struct {
	Name string
	Tags []string // union of the tags of all instances
}

// Found returns a fragment with the services, each with the defaults and with the
// instances that match filter, an expression in Consul's language. It omits sluice
// itself, and services that c already has, by name or by their name in Consul. It adds
// the services that routes of c refer to and c does not have. skipped lists the names
// that sluice does not allow. c.Catalog must not be nil.
func (c *Config) Found(services []FoundService, filter string) (f Fragment, skipped []string) {
	f = Fragment{Origin: "Consul's catalog", Services: make(map[string]Service)}
	taken := make(map[string]bool, len(c.Services))
	for name, s := range c.Services {
		taken[name] = true
		if s.Consul != nil {
			taken[s.Consul.Service] = true
		}
	}
	if c.Consul.Register != nil {
		taken[c.Consul.Register.Service] = true
	}
	template := c.foundService(filter)
	add := func(name string) {
		s := template
		selection := *template.Consul
		s.Consul = &selection
		s.Consul.Service = name
		f.Services[name] = s
	}
	for _, found := range services {
		switch {
		case taken[found.Name]:
		case !formats["name"].ok(found.Name):
			skipped = append(skipped, found.Name)
		default:
			add(found.Name)
		}
	}
	for _, r := range c.Routes {
		if _, ok := c.Services[r.Service]; !ok {
			add(r.Service)
		}
	}
	slices.Sort(skipped)
	return f, skipped
}

// foundService returns a service with the defaults that selects instances by c.Catalog
// and by filter.
func (c *Config) foundService(filter string) Service {
	d := &decoder{places: make(map[string]place)}
	s := Service{Consul: new(ConsulService)}
	d.value(nil, reflect.ValueOf(s.Consul).Elem(), "", rules{})
	source := s.Consul
	d.value(nil, reflect.ValueOf(&s).Elem(), "", rules{})
	s.Consul = source
	if tag := c.Catalog.Select.Tag; tag != "" {
		s.Consul.Tags = []string{tag}
	}
	s.Consul.Filter = filter
	d.service(&s, "", c)
	return s
}
