package config

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"sluice/config/decoding"
	"sluice/route"
)

// Branch is a way of some requests in the discovery chain of a service, which is a router: before a
// peer is picked, a request takes the first branch whose conditions it fulfils, and the way to the
// service's own peers if it fulfils none. The conditions are about the request as the route that
// leads to the service has edited it: its path and its fields.
//
// A chain belongs to the routes that name the service, but not to the ones with a group or a split
// of their own, nor to listeners for TCP.
type Branch struct {
	// Route has what requests must be, with Path, Match, Methods and When; where they go, with
	// Service, or with Parts, whose shares add up to 1; and of the actions RequestHeaders,
	// ResponseHeaders, Timeouts and Retry. A part has header edits at most. The timeouts and
	// retries that the route to the service sets itself win; its header edits are the first of a
	// request and the last of a response.
	Route Route
	// IgnoreCase: ASCII letters of Path may be in the other case. Not for a regular expression,
	// which can say it.
	IgnoreCase bool
	// PrefixRewrite takes the place of Path, as route.PathOptions.Replacement does. Empty: none.
	PrefixRewrite string
	// Key is what identifies a client to Parts. The zero value is a cookie.
	Key route.SplitKey
	// Splitter names what Parts are from: a client is on the same side of it by all branches with
	// this name, of all services. Empty: the name of the service whose chain it is.
	Splitter string
	// Origin says where the branch comes from, for people: "service-router web, route 2".
	Origin string

	// Rewrite are the edits of the path, which Check sets.
	Rewrite route.PathEdits
}

// Check completes b. Its error says, on one line, what cannot be used; then b must not be used.
func (b *Branch) Check() error {
	d, r := newDecoder(""), &b.Route
	r.checked = r.match(d, "")
	r.build(d, r.Match, "")
	options := route.PathOptions{
		Strip: r.Path, StripString: r.Match == string(route.PathStringPrefix), IgnoreCase: b.IgnoreCase, Replacement: b.PrefixRewrite,
	}
	regular := r.Match == string(route.PathRegexp)
	switch {
	case b.PrefixRewrite != "" && regular:
		d.Refuse("prefix_rewrite", b.PrefixRewrite, "not with a regular expression")
	case b.IgnoreCase && regular:
		d.Refuse("path", r.Path, "a regular expression says itself whether case matters: want (?i)")
	case b.PrefixRewrite != "":
		var err error
		b.Rewrite, err = route.NewPathEdits(options)
		refuseOption(d, "", err)
	}
	sum := 0.
	for i := range r.Parts {
		part := &r.Parts[i]
		part.Route.build(d, "", decoding.Item("parts", i))
		sum += part.Share
	}
	if len(r.Parts) > 0 && (math.Abs(sum-1) > 1e-9 || r.Service != "") {
		d.Refuse("parts", "", fmt.Sprintf("the shares add up to %s, want 100%%, and no service beside them", Percent(sum)))
	}
	return d.Errs.Short()
}

// Services returns the names of the services to which the branch leads.
func (b *Branch) Services() (names []string) {
	for _, part := range b.Route.Parts {
		names = append(names, part.Route.Service)
	}
	if len(names) == 0 {
		names = append(names, b.Route.Service)
	}
	return names
}

// RoutedServices returns the names of the services that the routes of c need, also by discovery
// chains.
func (c *Config) RoutedServices() map[string]bool {
	names := RoutedServices(c.Routes)
	for _, name := range slices.Collect(maps.Keys(names)) {
		for _, branch := range c.Services[name].Chain {
			for _, to := range branch.Services() {
				names[to] = true
			}
		}
	}
	return names
}
