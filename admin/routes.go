package admin

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"

	"sluice/balancer/reading"
	"sluice/config"
	"sluice/observe/metrics"
	"sluice/route"
	"sluice/tags"
	"sluice/tags/claim"
)

// Route is an element of /api/routes.
type Route struct {
	// Protocol is tls, tls_ended or tcp for a route of connections, which has neither path nor
	// match; absent: of requests.
	Protocol   string    `json:"protocol,omitempty"`
	Host       string    `json:"host"` // empty: any, or HostRegexp
	HostRegexp string    `json:"host_regexp,omitempty"`
	Path       string    `json:"path"`
	Match      string    `json:"match"`                // prefix, exact, string_prefix, regexp
	Conditions []string  `json:"conditions,omitempty"` // for people, with methods and listeners
	Listeners  []string  `json:"listeners,omitempty"`  // empty: all
	Priority   int       `json:"priority"`
	Class      string    `json:"class"`              // who asks for it: document, tag, traefik
	Origin     string    `json:"origin"`             // the place: "sluice.yaml:12"
	Service    string    `json:"service"`            // empty: none, or several
	Weighted   *Weighted `json:"weighted,omitempty"` // null: at most one service
	Split      *Split    `json:"split,omitempty"`    // null: all peers of the service
	Mirror     *Mirror   `json:"mirror,omitempty"`
	RouteChain

	// Actions has the keys of the configuration file; absent: none.
	Actions json.RawMessage `json:"actions,omitempty"`
	// AskedBy has the tag that asks for the route; absent: an operator wrote it.
	AskedBy *TagAsk `json:"asked_by,omitempty"`
	// SharedWith are the tags of other services that share the requests.
	SharedWith []TagAsk `json:"shared_with,omitempty"`
	// WonAgainst are tags that ask for the same requests, and do not get them.
	WonAgainst []TagAsk `json:"won_against,omitempty"`
	// Problems are about tags of the route that are not used as they are.
	Problems []TagProblem `json:"problems,omitempty"`
	// Unused is true for what a tag asks for and does not get. Problems say why.
	Unused bool `json:"unused,omitempty"`
}

// Split is how the clients of a route are divided among groups.
type Split struct {
	Groups   []Share `json:"groups"`
	Key      string  `json:"key"` // of a client: cookie, header NAME, client_address or none
	Fallback string  `json:"fallback,omitempty"`
}

// Share is a group of a Split, with what the group does on all routes of the service.
type Share struct {
	Share float64 `json:"share"` // of the clients, 0 to 1
	Group
}

func describeSplit(s *route.Split, service *reading.Service) *Split {
	if s == nil {
		return nil
	}
	split := &Split{Key: s.Key.String(), Fallback: s.Fallback.Name()}
	for _, share := range s.All() {
		split.Groups = append(split.Groups, Share{Share: share.Size, Group: groupOf(service, share.Group.Name())})
	}
	return split
}

// groupOf returns a group of a service, which may be nil: it was removed just now.
func groupOf(service *reading.Service, name string) Group {
	if service != nil {
		for i := range service.Groups {
			if service.Groups[i].Name == name {
				return describeGroup(&service.Groups[i])
			}
		}
	}
	return Group{Group: name}
}

// describeRoute describes a route. readings may lack its services, as for groupOf.
func describeRoute(r *route.Route, readings map[string]*reading.Service) Route {
	return Route{
		Host: r.Host, HostRegexp: r.HostRegexp, Path: r.Path, Match: string(r.PathMatch), Conditions: r.Requirements(),
		Listeners: r.Listeners, Priority: r.Priority, Class: r.Class.String(), Origin: r.Origin, Service: r.ServiceName(),
		Weighted: describeWeighted(r.Weighted, readings), RouteChain: RouteChain{Chain: describeChain(r.Router, readings)},
		Split: describeSplit(r.Split, readings[r.ServiceName()]), Mirror: describeMirror(r.Mirror),
	}
}

// routeHandler answers about routes, and who asks for them.
type routeHandler struct{ Options }

// readingsByName returns the state of all services by their names.
func (h routeHandler) readingsByName() map[string]*reading.Service {
	readings := make(map[string]*reading.Service)
	for _, service := range reading.Of(h.Pools()) {
		readings[service.Name] = service
	}
	return readings
}

// routes answers /api/routes: the table, the routes of connections, and then what tags ask for
// and do not get.
func (h routeHandler) routes(*http.Request) (any, error) {
	routes := []Route{}
	readings := h.readingsByName()
	configured, effective := make(map[string]config.Route), h.Effective()
	if effective != nil {
		for _, r := range effective.Routes {
			configured[keyOf(r.Target())] = r
		}
	}
	tags := h.Tags()
	origins, shown := newOrigins(tags), make(map[string]bool)
	for _, route := range h.Table().Routes() {
		d := describeRoute(&route, readings)
		key := keyOf(route)
		d.Actions = config.ActionsJSON(configured[key].Actions)
		d.Weighted.addActions(configured[key].Parts)
		d.showChainsOnce(effective, shown)
		origins.explain(&d, key)
		routes = append(routes, d)
	}
	for _, stream := range streamsOf(effective) {
		d := describeConfigured(stream)
		d.Service = stream.Service
		if stream.Group != "" {
			group := groupOf(readings[stream.Service], stream.Group)
			d.Split = &Split{Groups: []Share{{Share: 1, Group: group}}, Key: "none"}
		}
		origins.explain(&d, stream.StreamKey(stream.Listeners[0]))
		routes = append(routes, d)
	}
	return append(routes, origins.unused()...), nil
}

// describeConfigured describes a route as it is configured, without its service.
func describeConfigured(r config.Route) Route {
	target := r.Target()
	d := describeRoute(&target, nil)
	d.Actions = config.ActionsJSON(r.Actions)
	if d.Protocol = r.Protocol; d.Protocol != "" {
		d.Path, d.Match = "", ""
	}
	return d
}

// streamsOf returns the routes of connections of each listener: first the routes by server names.
func streamsOf(c *config.Config) (routes []config.Route) {
	if c == nil {
		return nil
	}
	for _, l := range c.Listeners {
		of := l.StreamRoutes()
		slices.SortStableFunc(of, func(a, b config.Route) int {
			// tls comes before tcp.
			return cmp.Or(cmp.Compare(b.Protocol, a.Protocol), cmp.Compare(a.Host, b.Host))
		})
		routes = append(routes, of...)
	}
	return routes
}

// keyOf returns the key of the requests that a valid route matches.
func keyOf(r route.Route) string {
	checked, _ := route.Check(r) // it is in the table
	return checked.Key
}

// origins explain routes by the tags that ask for them.
type origins struct {
	routes   map[string]*claim.Route // by key
	tagged   map[[2]string]bool      // service and tag of a route in use
	problems map[[2]string][]TagProblem
	all      []claim.Problem
}

func newOrigins(tags claim.Result) *origins {
	o := &origins{
		routes: make(map[string]*claim.Route), tagged: make(map[[2]string]bool),
		problems: make(map[[2]string][]TagProblem), all: tags.Problems,
	}
	for i := range tags.Routes {
		o.routes[tags.Routes[i].Key] = &tags.Routes[i]
	}
	for _, p := range tags.Problems {
		if p.Harmless && p.Winner == nil {
			of := [2]string{p.Service, p.Tag}
			o.problems[of] = append(o.problems[of], describeProblem(p))
		}
	}
	return o
}

// explain says which tag asks for the route with a key, what it won against, and what of its
// tags is not used.
func (o *origins) explain(d *Route, key string) {
	route := o.routes[key]
	if route == nil || route.Service != d.Service {
		return
	}
	d.AskedBy = new(describeAsk(route.By))
	d.WonAgainst = each(route.Over, describeAsk)
	for _, claim := range route.Claims() {
		if claim.Service != route.By.Service {
			d.SharedWith = append(d.SharedWith, describeAsk(claim.Ask))
		}
		for _, tag := range claim.Tags {
			of := [2]string{claim.Service, tag}
			o.tagged[of] = true
			d.Problems = append(d.Problems, o.problems[of]...)
		}
	}
}

// unused returns what tags ask for and do not get, after explain for each route of the table.
func (o *origins) unused() (routes []Route) {
	for _, p := range o.all {
		if p.Harmless && p.Winner == nil && o.tagged[[2]string{p.Service, p.Tag}] {
			continue // it is shown with its route
		}
		var d Route
		if p.Wanted != nil {
			d = describeConfigured(*p.Wanted)
		}
		d.Service, d.AskedBy, d.Unused, d.Problems = p.Service, new(describeAsk(p.Ask)), true, []TagProblem{describeProblem(p)}
		routes = append(routes, d)
	}
	return routes
}

// TagProblem is an element of /api/tags: a tag that is not used as it is, or not at all.
type TagProblem struct {
	TagAsk
	Kind     string  `json:"kind"`             // bad, refused, conflict, different
	Column   int     `json:"column,omitempty"` // of the first wrong byte, from 1
	Reason   string  `json:"reason"`
	Harmless bool    `json:"harmless"`          // the route exists, without what the reason names
	LostTo   *TagAsk `json:"lost_to,omitempty"` // that has the route instead
}

// TagAsk is what instances of a service ask for with a tag.
type TagAsk struct {
	Service   string   `json:"service"`
	Instances []string `json:"instances"` // ids
	Dialect   string   `json:"dialect"`   // sluice, fabio, traefik, default_rule
	Tag       string   `json:"tag"`
}

func describeAsk(a claim.Ask) TagAsk {
	return TagAsk{a.Service, list(a.IDs()), a.Dialect, tags.Masked(a.Tag)}
}

func describeProblem(p claim.Problem) TagProblem {
	d := TagProblem{TagAsk: describeAsk(p.Ask), Kind: string(p.Kind), Column: p.Column, Reason: p.Reason, Harmless: p.Harmless}
	if p.Winner != nil {
		d.LostTo = new(describeAsk(*p.Winner))
	}
	return d
}

func (h routeHandler) tags(*http.Request) (any, error) {
	return each(h.Tags().Problems, describeProblem), nil
}

// Mirror is where copies of a route's requests go. The counters are sums over all routes that
// copy requests to the same service to the same service or group, since the start.
type Mirror struct {
	Service   string  `json:"service"`
	Group     string  `json:"group,omitempty"` // empty: all peers
	Share     float64 `json:"share"`           // of the requests, 0 to 1
	BodyBytes int64   `json:"body_bytes"`      // longest body that is copied
	Limit     int64   `json:"limit"`           // of copies in flight

	InFlight int               `json:"in_flight"`
	Sent     uint64            `json:"sent"`   // copies that have ended
	Errors   uint64            `json:"errors"` // of Sent: with a status of 5xx or without an answer
	Failed   uint64            `json:"failed"` // of Sent: without an answer
	P50MS    float64           `json:"p50_ms"` // estimates over Sent
	P99MS    float64           `json:"p99_ms"`
	Dropped  map[string]uint64 `json:"dropped"` // by reason, above 0
}

// describeMirror describes the mirror of a route, which may be nil.
func describeMirror(m *route.Mirror) *Mirror {
	if m == nil {
		return nil
	}
	answers := m.Copies.Answers().Snapshot()
	described := &Mirror{
		Service: m.Copies.To, Group: m.Copies.Group, Share: m.Share, BodyBytes: m.BodyBytes, Limit: m.InFlight,
		InFlight: m.Copies.InFlight(), Sent: answers.Total(), Errors: answers.Class(metrics.Class5xx), Failed: m.Copies.Failed(),
		P50MS: millis(answers.Quantile(.5)), P99MS: millis(answers.Quantile(.99)),
		Dropped: make(map[string]uint64),
	}
	for why, n := range m.Copies.Dropped() {
		if n > 0 {
			described.Dropped[route.Dropped(why).String()] = n
		}
	}
	return described
}
