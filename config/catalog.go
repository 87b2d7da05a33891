package config

import (
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"sluice/discovery/consul"
)

// Catalog finds services in Consul that the file does not name.
type Catalog struct {
	Select CatalogSelect `key:"select"`
}

// CatalogSelect says which services and, where they have several kinds, which
// of their instances. All that is given must hold.
type CatalogSelect struct {
	Name string   `key:"name" format:"pattern"` // of the service, as for path.Match
	Tag  string   `key:"tag"`                   // of an instance
	Meta []string `key:"meta" format:"catalog_meta"`
}

// Selection returns s in the terms of Consul's client.
func (s CatalogSelect) Selection() consul.Selection {
	selection := consul.Selection{Name: s.Name, Tag: s.Tag}
	for _, entry := range s.Meta {
		key, value, _ := strings.Cut(entry, "=")
		if selection.Meta == nil {
			selection.Meta = make(map[string]string)
		}
		selection.Meta[key] = value
	}
	return selection
}

// isPattern reports whether s is a pattern for path.Match.
func isPattern(s string) bool {
	_, err := path.Match(s, "")
	return err == nil
}

// isCatalogMeta reports whether s is KEY=VALUE without what Consul's filters
// cannot quote.
func isCatalogMeta(s string) bool {
	return strings.Index(s, "=") > 0 && !strings.Contains(s, "`")
}

// WithFound returns a configuration that has c's services and, under them, one
// with the defaults for each name that was found in the catalog or that a route
// names. What c says wins: a found service is left out if c has one by its name, or
// one that comes from it. Skipped are names that cannot be a service's here. c is
// not changed.
func (c *Config) WithFound(names []string) (merged *Config, skipped []string) {
	if c.Catalog == nil {
		return c, nil
	}
	taken := make(map[string]bool, len(c.Services))
	for name, s := range c.Services {
		taken[name] = true
		if s.Consul != nil {
			taken[s.Consul.Service] = true
		}
	}
	if c.Consul.Register != nil {
		taken[c.Consul.Register.Service] = true // sluice itself
	}
	services := maps.Clone(c.Services)
	if services == nil {
		services = make(map[string]Service)
	}
	template := c.foundService()
	add := func(name string) {
		s := template
		selection := *template.Consul
		s.Consul = &selection
		s.Consul.Service = name
		services[name] = s
	}
	for _, name := range names {
		switch {
		case taken[name]:
		case !formats["name"].ok(name):
			skipped = append(skipped, name)
		default:
			add(name)
		}
	}
	for _, r := range c.Routes {
		if _, ok := services[r.Service]; !ok {
			add(r.Service)
		}
	}
	copied := *c
	copied.Services = services
	slices.Sort(skipped)
	return &copied, skipped
}

// foundService returns a service with the defaults, whose instances are those
// that the catalog's selection accepts.
func (c *Config) foundService() Service {
	d := &decoder{places: make(map[string]place)}
	s := Service{Consul: new(ConsulService)}
	d.value(nil, reflect.ValueOf(s.Consul).Elem(), "", rules{})
	source := s.Consul
	d.value(nil, reflect.ValueOf(&s).Elem(), "", rules{})
	s.Consul = source
	if tag := c.Catalog.Select.Tag; tag != "" {
		s.Consul.Tags = []string{tag}
	}
	s.Consul.Filter = c.Catalog.Select.Selection().InstanceFilter()
	d.service(&s, "", &c.Consul)
	return s
}
