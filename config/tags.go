package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/config/decoding"
	"sluice/route"
	"sluice/tags"
)

func isClaimedHost(s string) bool {
	host := strings.ReplaceAll(s, "{service}", "service")
	if host == "*" {
		return true
	}
	_, err := route.Check(route.Route{Host: host, Path: "/"})
	return err == nil
}

// isServiceHost reports whether s is an exact host of one service.
func isServiceHost(s string) bool {
	return strings.Contains(s, "{service}") && !strings.Contains(s, "*") && isClaimedHost(s)
}

// DecodeRoute returns the route with these keys, with the named actions of c that it uses, and the
// defaults of c; nil: there are none. Only what by may set and use is allowed: see [Setter].
// Service and what needs the rest of the configuration are not checked. Its error names keys and
// what is allowed, on one line.
func DecodeRoute(keys tags.Keys, by Setter, c *Config) (Route, error) {
	var r Route
	schema.SetDefaults(&r)
	d, err := decodeKeys(keys, by, allRights().Below["routes"], &r)
	if err != nil {
		return r, err
	}
	if r.complete(d, "", r.Use, c); len(d.Errs) == 0 {
		r.build(d, r.Match, "")
	}
	return r, d.Errs.Short()
}

// Compile checks what a route of DecodeRoute matches, with more conditions, which have no key; nil:
// none. The route keeps the result. The error is as in DecodeRoute.
func (r *Route) Compile(more *route.Conditions) (*route.Checked, error) {
	if more != nil {
		if r.When == nil {
			r.When = new(Conditions)
		}
		r.When.More = more
	}
	d := newDecoder("")
	d.by = ByTag
	r.checked = r.match(d, "")
	return r.checked, d.Errs.Short()
}

// MayRestrict reports whether keys of a route restrict who may use it, or have an unknown one whose
// nearest known key does.
func MayRestrict(keys tags.Keys) bool {
	known := slices.Concat(schema.Keys(routeType), slices.Sorted(maps.Keys(tags.ShortKeys)))
	return keys.Restricts() || slices.ContainsFunc(slices.Collect(maps.Keys(keys)), func(key string) bool {
		return !slices.Contains(known, key) && tags.Keys{decoding.Suggest(key, known): true}.Restricts()
	})
}

// DecodeService returns s with the settings at these keys, which tags ask for, instead of its
// own. Its error is as in DecodeRoute.
func DecodeService(s Service, keys tags.Keys, c *Config) (Service, error) {
	before := s
	d, err := decodeKeys(keys, ByTag, allRights().Below["services"].Entry, &s)
	if err != nil {
		return before, err
	}
	if d.HasKey("health.active") && s.Health.Active != nil {
		s.Health.Active.ByTag = true
	}
	s.check(d, "", "", &c.Consul)
	return s, d.Errs.Short()
}

// CheckTagUpstream checks the setting upstream that tags ask for, for a service that is found in
// the catalog. c.Catalog must not be nil.
func (c *Config) CheckTagUpstream(upstream tags.Keys) error {
	_, err := DecodeService(c.foundService(""), tags.Keys{"upstream": upstream}, c)
	return err
}

// decodeKeys decodes keys with these rights into the struct that to points to.
func decodeKeys(keys tags.Keys, by Setter, rights *decoding.Rights, to any) (*decoder, error) {
	d := newRestricted("", by, rights)
	var n yaml.Node
	if err := n.Encode(keys); err != nil {
		return nil, fmt.Errorf("cannot be used: %w", err)
	}
	d.Decode(&n, to)
	return d, d.Errs.Short()
}

// TagListeners returns the names of the listeners with a protocol that routes of tags may have,
// and whether these are all with it. c.Catalog must not be nil.
func (c *Config) TagListeners(protocol string) (names []string, all bool) {
	all = true
	for _, l := range c.Listeners {
		switch open := c.Catalog.Listeners; {
		case l.Protocol != protocol:
		case len(open) == 0 || slices.Contains(open, l.Name):
			names = append(names, l.Name)
		default:
			all = false
		}
	}
	return names, all
}
