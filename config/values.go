package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/config/decoding"
	"sluice/tags"
)

// Value is the value of a key, and where it is from.
type Value struct {
	Key   string `json:"key"`   // an entry of routes has its index among all routes
	Value string `json:"value"` // secrets masked
	// From is FILE:LINE, a flag or a variable, with what stands for Key in brackets; or tags,
	// Consul's catalog or "built in".
	From string `json:"from"`
}

const (
	builtIn     = "built in"
	fromTags    = "tags"
	fromCatalog = "Consul's catalog"
)

// Values returns the values of all keys, in their order, or those of a service and of the routes to
// it. running is the configuration with what was found in Consul; nil: only what documents say.
// Then a service that none of them has is as one that is found in the catalog.
func (b *Built) Values(service string, running *Config) ([]Value, error) {
	w, c := b.whole, b.Config
	if service == "" {
		return w.values("", schema.Encode(*c, true), place{of: w.file}), nil
	}
	now := cmp.Or(running, c)
	s, known := now.Services[service]
	if !known && (running != nil || c.Catalog == nil || !formats["name"].OK(service)) {
		names := slices.Sorted(maps.Keys(now.Services))
		return nil, fmt.Errorf("no service has the name %q%s", service, decoding.DidYouMean(service, names))
	}
	untagged, written := c.Services[service]
	if !written {
		untagged = c.foundService("")
		untagged.Consul.Service = service
	}
	if !known {
		s = untagged
	}
	key, p := decoding.Join("services", service), place{of: w.ownerOf(service)}.below("services").below(service)
	all := asked(w.values(key, schema.Encode(s, true), p), w.values(key, schema.Encode(untagged, true), p), fromTags)
	for i := range all {
		if !written && strings.HasPrefix(all[i].Key, key+".consul.") {
			all[i].From = fromCatalog
		}
	}
	routes := make(map[string]int, len(c.Routes)) // by their requests
	for i := range c.Routes {
		routes[c.Routes[i].Key()] = i
	}
	for i := range now.Routes {
		r := &now.Routes[i]
		if !RoutedServices(now.Routes[i : i+1])[service] {
			continue
		}
		key, p, untagged := decoding.Item("routes", i), place{of: w.file, key: "routes[]", use: r.Use}, *r
		if at, written := routes[r.Key()]; written && r.Dialect == "" {
			p = w.placeOf(at)
		} else if bare, err := DecodeRoute(tags.Keys{"use": r.Use}, ByTag, c); err == nil {
			untagged = bare
		}
		all = append(all, asked(w.values(key, schema.Encode(*r, true), p), w.values(key, schema.Encode(untagged, true), p), r.Origin)...)
	}
	return all, nil
}

// asked returns values with the place from for those that differ without tags.
func asked(all, untagged []Value, from string) []Value {
	known := make(map[string]string, len(untagged))
	for _, v := range untagged {
		known[v.Key] = v.Value
	}
	for i, v := range all {
		if value, ok := known[v.Key]; !ok || value != v.Value {
			all[i].From = from
		}
	}
	return all
}

// place is where a document says a key.
type place struct {
	of   *decoder
	key  string
	use  []string // of the route that has the key
	rest string   // of the key below that route
}

func (p place) below(name string) place {
	p.key, p.rest = decoding.Join(p.key, name), decoding.Join(p.rest, name)
	return p
}

func (w *whole) placeOf(route int) place {
	at := w.routes[route]
	return place{of: at.of.decoder, key: at.key(), use: w.config.Routes[route].Use}
}

// values returns the values in the tree of a key, which p says.
func (w *whole) values(key string, n *yaml.Node, p place) (all []Value) {
	switch {
	case n.Kind == yaml.MappingNode && len(n.Content) > 0:
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i].Value
			next := p.below(name)
			if key == "services" {
				next.of = w.ownerOf(name)
			}
			all = append(all, w.values(decoding.Join(key, name), n.Content[i+1], next)...)
		}
		return all
	case n.Kind == yaml.SequenceNode && len(n.Content) > 0 && keyed(n):
		for i, item := range n.Content {
			next := p
			next.key, next.rest = decoding.Item(p.key, i), decoding.Item(p.rest, i)
			if key == "routes" {
				next = w.placeOf(i)
			}
			all = append(all, w.values(decoding.Item(key, i), item, next)...)
		}
		return all
	}
	return []Value{{key, flow(n), w.from(p)}}
}

// from returns where the value of a key is from.
func (w *whole) from(p place) string {
	if p.of.Says(p.key) {
		return p.of.Place(p.key).Origin
	}
	if used := w.usedBy(p.use, p.rest); used != "" {
		return used
	}
	if from, _ := w.findDefault(p.key); from != "" {
		return from + " (defaults)"
	}
	if c := w.config; c.Defaults != nil && strings.HasPrefix(p.key, "routes[") {
		if used := w.usedBy(c.Defaults.Route.Use, p.rest); used != "" {
			return used
		}
	}
	for end, key := range map[string]string{
		".consul.consistency": "consul.consistency", ".consul.datacenters": "consul.datacenter", ".probation": "consul.probation",
	} {
		if strings.HasPrefix(p.key, "services.") && strings.HasSuffix(p.key, end) && w.file.HasKey(key) {
			return w.file.Place(key).Origin + " (" + key + ")"
		}
	}
	return builtIn
}

// usedBy returns where the named actions that a list names have a key, or "".
func (w *whole) usedBy(names []string, key string) string {
	for _, name := range slices.Backward(names) {
		if at := decoding.Join(decoding.Join("actions", name), key); w.file.HasKey(at) {
			return w.file.Place(at).Origin + " (actions." + name + ")"
		}
		if used := w.usedBy(w.config.Actions[name].Use, key); used != "" {
			return used
		}
	}
	return ""
}
