package config

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"sluice/route"
)

// Route sends the requests that match it to a service. The order of routes is the order of a
// route.Table.
type Route struct {
	Host       string      `key:"host"`        // as in route.Route; empty: any
	HostRegexp string      `key:"host_regexp"` // instead of Host
	Path       string      `key:"path" default:"/"`
	Match      string      `key:"match" default:"prefix" oneof:"prefix|exact|string_prefix|regexp"` // how Path is compared
	Methods    []string    `key:"methods" format:"method"`                                          // empty: all
	When       *Conditions `key:"when"`                                                             // nil: no further conditions
	Listeners  []string    `key:"listeners"`                                                        // names; empty: all with protocol http
	Priority   int         `key:"priority" default:"0" min:"-1000000" max:"1000000"`
	Name       string      `key:"name" format:"name"`         // for metrics and the access log
	Service    string      `key:"service"`                    // empty only with Redirect or Services
	Services   Split       `key:"services" format:"services"` // shares of several services, instead of Service
	Group      string      `key:"group"`                      // the only group that gets requests; empty: by Split
	Split      Split       `key:"split" format:"split"`       // empty: the service's
	Mirror     *Mirror     `key:"mirror"`
	Use        []string    `key:"use"` // names of [Config.Actions]; see [Actions]
	Actions

	// Origin is the place of the route, for people: "sluice.yaml:12". Merge sets an
	// empty one to the listeners of the addition.
	Origin string `key:"-" origin:"yes"`
	// Parts divide the requests as Services does, for a route that tags of several services ask
	// for, or of instances with other weights. The share of a part is for each usable peer, and
	// each part may have actions of its own.
	Parts []Part `key:"-"`
	// Dialect is the dialect of the tags that ask for the route; empty: an operator wrote it.
	Dialect string `key:"-"`
	// Protocol is one of tags.ProtocolTLS, tags.ProtocolEndedTLS and tags.ProtocolTCP for a route
	// of connections; empty: of requests.
	Protocol string `key:"-"`

	// checked is set by [Merge], and before it if the route is valid by itself. What the route
	// matches does not change after that, but by Limit.
	checked *route.Checked `key:"-"`
}

var routeType = reflect.TypeFor[Route]()

// DialectTraefik is the [Route.Dialect] whose priorities compete with the lengths of rules.
const DialectTraefik = "traefik"

// Conditions are what a request must fulfil beside host, path and method. All set keys
// must hold.
type Conditions struct {
	// Header, Query and Cookie have the names with conditions as in route.ParseValue.
	Header map[string]string `key:"header" format:"token"`
	Query  map[string]string `key:"query" format:"parameter"`
	Cookie map[string]string `key:"cookie" format:"token"`
	Scheme string            `key:"scheme" oneof:"http|https"`
	Client []Network         `key:"client" format:"network"`
	// ClientCertificates are names, of which the client's certificate has one.
	ClientCertificates []CertificateName `key:"client_certificates" format:"certificate"`
	Not                *Conditions       `key:"not"` // none of these holds
	Any                []Conditions      `key:"any"` // one of these holds

	// More has conditions of the rules in tags, which have no key: hosts and paths, and
	// below Not also methods.
	More *route.Conditions `key:"-"`
}

// Limits of conditions. An alias can make many out of a few lines.
const (
	maxConditionsDepth = 8
	maxConditions      = 256 // of a route
)

// Target returns r for a route table, without its service.
func (r Route) Target() route.Route {
	t := route.Route{
		Host: r.Host, HostRegexp: r.HostRegexp, Path: r.Path, PathMatch: route.PathMatch(r.Match),
		Listeners: r.Listeners, Priority: r.Priority, Origin: r.Origin, Checked: r.checked,
		Bounded: r.Dialect != "",
	}
	if r.checked != nil {
		t.Conditions = r.checked.Conditions()
	} else {
		if r.When != nil {
			t.Conditions = r.When.target()
		}
		if len(r.Methods) > 0 {
			t.Conditions.Methods = r.Methods
		}
	}
	switch r.Dialect {
	case "":
	case DialectTraefik:
		t.Class = route.ClassTraefik
	default:
		t.Class = route.ClassTag
	}
	return t
}

// Limit makes r match at these listeners only; without any, at all.
func (r *Route) Limit(listeners ...string) { r.Listeners, r.checked = listeners, nil }

// Key returns a text that is equal for routes that match the same requests.
func (r Route) Key() string {
	checked, err := route.Check(r.Target())
	if err != nil { // only before it is checked
		return err.Error()
	}
	return checked.Key
}

func (c *Conditions) target() (t route.Conditions) {
	if c.More != nil {
		t = *c.More
	}
	t.Headers = append(values(c.Header), t.Headers...)
	t.Queries = append(values(c.Query), t.Queries...)
	t.Cookies = append(values(c.Cookie), t.Cookies...)
	t.Scheme = cmp.Or(c.Scheme, t.Scheme)
	t.Clients = append(t.Clients, Values(c.Client)...)
	t.Certificates = append(t.Certificates, Values(c.ClientCertificates)...)
	if c.Not != nil {
		not := c.Not.target()
		if more := t.Not; more != nil {
			not.Methods = append(not.Methods, more.Methods...)
			not.Hosts = append(not.Hosts, more.Hosts...)
			not.HostRegexps = append(not.HostRegexps, more.HostRegexps...)
			not.Paths = append(not.Paths, more.Paths...)
		}
		t.Not = &not
	}
	for i := range c.Any {
		t.Any = append(t.Any, c.Any[i].target())
	}
	return t
}

// values returns conditions in the order of their names.
func values(table map[string]string) (list []route.Value) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		list = append(list, route.ParseValue(name, table[name]))
	}
	return list
}

// unindexed counts regular expressions, by [route.Checked.Unindexed].
type unindexed map[string]int

// full reports whether there are too many regular expressions for one more like checked.
func (u unindexed) full(checked *route.Checked) bool {
	if checked.Unindexed == "" {
		return false
	}
	u[checked.Unindexed]++
	return u[checked.Unindexed] > route.MaxUnindexed
}

// tooManyRegexps is the error for a route for which full is true.
func tooManyRegexps(checked *route.Checked) string {
	return fmt.Sprintf("want at most %d regular expressions for %q without a text that every match begins with, such as ^/api, "+
		`or for hosts ends with, such as \.example\.com$: sluice must try them one by one`, route.MaxUnindexed, checked.Unindexed)
}
