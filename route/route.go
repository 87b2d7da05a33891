package route

import "sluice/observe/metrics"

// Route sends the requests that match it to a service. It does not change after it is in
// a [Table].
type Route struct {
	// Host is a host without a port ("star.example.com", "192.0.2.1",
	// "[2001:db8::1]"), a wildcard ("*.example.com": one or more labels for the
	// star), or empty for any host. Case does not matter.
	Host string
	// HostRegexp, instead of Host, is a regular expression in Go's syntax. It is
	// searched anywhere in the host, which is in lower case, without port and final
	// dot. A request without a host does not match.
	HostRegexp string
	// Path is read as PathMatch says.
	Path      string
	PathMatch PathMatch
	// Conditions must all hold.
	Conditions Conditions
	// Bounded: others than the configuration file have written the expressions, so that
	// each match takes Steps of its request.
	Bounded bool
	// Listeners are the names of the listeners whose requests match; empty: all.
	Listeners []string

	// Priority comes before specificity: the higher one is tried first. Of the class
	// ClassTraefik it is the router's priority, or the length of its rule.
	Priority int
	Class    Class
	// Origin says where the route comes from, for people: "sluice.yaml:12".
	Origin string
	// Name is the name that who wrote the route has given to it; "": none.
	Name string
	// Requests counts the requests of the routes with this name and service; nil: they are not
	// counted apart.
	Requests *metrics.Requests

	// Checked, if not nil, is what Check has found out about a route that differs from this
	// one only in the fields from Priority on. NewTable does not compile it again.
	Checked *Checked

	// EndsTLS says of connections for TCP that their TLS ends here; else it goes on to the peers as
	// it is.
	EndsTLS bool
	// Service may be nil if Actions answer every request, and with Weighted.
	Service *Service
	// Weighted, if not nil, chooses what else counts instead of the following fields.
	Weighted *Weighted
	// Router, if not nil, is the discovery chain of Service: it chooses after all that the other
	// fields do, and what it chooses counts instead of Service, Split, Mirror and Actions. A route
	// without Service has none.
	Router *Router
	// Split chooses a group of the service's peers. nil: any peer.
	Split *Split
	// Mirror, if not nil, sends copies of some requests elsewhere.
	Mirror *Mirror
	// Actions is nil for a route without.
	Actions *Actions

	number uint64 // of the routes that match the same requests, in Endpoint
	turn   *Turn  // see Turn
}

// ServiceName returns the name of the service; "": the route has none.
func (r *Route) ServiceName() string {
	if r.Service == nil {
		return ""
	}
	return r.Service.Name
}

// PathMatch is how the path of a route is compared with the path of a request, in the normal
// form of the package's comment, which has no final slash.
type PathMatch string

const (
	// PathPrefix, also "", is a prefix of whole segments: "/api", and equally "/api/",
	// matches "/api" and "/api/x", not "/apix". Case matters in all kinds but regular
	// expressions that say otherwise. Percent-encoded octets of the route are decoded.
	PathPrefix PathMatch = "prefix"
	// PathExact is the whole path: "/api" matches "/api" and "/api/", not "/api/x".
	PathExact PathMatch = "exact"
	// PathStringPrefix is a prefix of characters: "/api" matches "/api/x" and "/apix".
	// With a final slash it is the same as PathPrefix.
	PathStringPrefix PathMatch = "string_prefix"
	// PathRegexp is a regular expression in Go's syntax, searched anywhere in the path.
	// It matches if it finds something with or without a slash at the end of the path.
	PathRegexp PathMatch = "regexp"
)

// Class is who wrote a route. It decides the block of a route in the order of a [Table].
type Class uint8

const (
	// ClassDocument is for routes of operators: files and other documents.
	ClassDocument Class = iota
	// ClassTag is for routes that services ask for in the registry.
	ClassTag
	// ClassTraefik is for routes of Traefik's tags, whose priorities compete with the
	// lengths of rules.
	ClassTraefik
)

// String returns "document", "tag" or "traefik".
func (c Class) String() string { return [...]string{"document", "tag", "traefik"}[c] }

// Requirements describes the conditions and listeners of a valid route for people, each as
// a request must be: `header x-canary is "1"`. They are in the order in which Match checks
// them.
func (r *Route) Requirements() []string {
	e, errs := compile(*r)
	if len(errs) > 0 {
		return nil
	}
	return texts(e.conditions)
}
