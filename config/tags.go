package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/catalog"
	"sluice/route"
)

// isClaimedHost reports whether s is a host of a [Claim].
func isClaimedHost(s string) bool {
	host := strings.ReplaceAll(s, "{service}", "service")
	if host == "*" {
		return true
	}
	_, err := route.Check(route.Route{Host: host, Path: "/"})
	return err == nil
}

// DecodeRoute returns the route with these keys, and the defaults of the others. Service and
// what needs the rest of the configuration are not checked. Its error names keys and what is
// allowed, on one line.
func DecodeRoute(keys catalog.Keys) (Route, error) {
	var r Route
	d, err := decodeKeys(keys, &r)
	if err != nil {
		return r, err
	}
	d.actions(&r.Actions, r.Match, "")
	return r, d.short()
}

// DecodeService returns s with the settings at these keys instead of its own.
func DecodeService(s Service, keys catalog.Keys, c *Config) (Service, error) {
	for key := range keys {
		switch key {
		case "upstream":
			s.Upstream = Upstream{}
		case "balance":
			s.Balance = Balance{}
		case "health", "proxy_protocol":
		default:
			return s, fmt.Errorf("%s: tags cannot set this", key)
		}
	}
	var set Service
	d, err := decodeKeys(keys, &set)
	if err != nil {
		return s, err
	}
	for key := range keys {
		switch key {
		case "upstream":
			s.Upstream = set.Upstream
		case "balance":
			s.Balance = set.Balance
		case "health":
			s.Health = set.Health
		case "proxy_protocol":
			s.ProxyProtocol = set.ProxyProtocol
		}
	}
	d.service(&s, "", &c.Consul)
	return s, d.short()
}

// decodeKeys decodes keys into the struct that to points to.
func decodeKeys(keys catalog.Keys, to any) (*decoder, error) {
	d := newDecoder("")
	var n yaml.Node
	if err := n.Encode(keys); err != nil {
		return nil, fmt.Errorf("cannot be used: %w", err)
	}
	d.decode(&n, reflect.ValueOf(to).Elem())
	return d, d.short()
}

// short returns the errors on one line, without their places.
func (d *decoder) short() error {
	texts := make([]string, len(d.errs))
	for i, e := range d.errs {
		texts[i] = e.Key
		if e.Value != "" {
			texts[i] += ": value " + e.Value
		}
		texts[i] += ": " + e.Want
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
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
