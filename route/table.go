package route

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// Route sends the requests that match it to a service.
type Route struct {
	// Host is a host name without a port ("star.example.com", "192.0.2.1",
	// "[2001:db8::1]"), a wildcard ("*.example.com": one or more labels in the
	// place of the star), or empty for any host. Case does not matter.
	Host string
	// Path is a prefix by segment: "/api" matches "/api" and "/api/x", not
	// "/apix". A slash at its end changes nothing, so "/api/" is "/api". Case
	// matters. Percent-encoded octets are decoded.
	Path string

	Service *Service
}

// Table is an immutable set of routes. It is safe for concurrent use.
type Table struct {
	any       *node            // routes without a host, nil if there are none
	exact     map[string]*node // by lower-cased host, nil if there are none
	wildcards map[string]*node // by suffix with its leading dot: ".example.com"
	routes    []Route          // normalised, in the order they are tried
}

// NewTable builds a table. Its error joins one *Error for each thing wrong
// with any of the routes, in their order; errors.As finds the first, and the
// joined error's Unwrap() []error all of them.
func NewTable(routes []Route) (*Table, error) {
	t := &Table{}
	var errs []error
	type ranked struct {
		Route
		host hostPattern
		path []string
	}
	list := make([]ranked, 0, len(routes))
	firstAt := make(map[*node]int) // where the route of a node was given
	for i, r := range routes {
		host, herr := parseHost(r.Host)
		path, perr := parsePath(r.Path)
		var serr error
		if r.Service == nil {
			serr = errors.New("is missing")
		}
		if herr != nil || perr != nil || serr != nil {
			errs = appendErrors(errs, i, r, herr, perr, serr)
			continue
		}
		n := t.root(host).grow(path)
		if first, taken := firstAt[n]; taken {
			errs = append(errs, duplicateError(i, first, r))
			continue
		}
		firstAt[n] = i
		r.Host, r.Path = host.String(), "/"+strings.Join(path, "/")
		route := &Route{r.Host, r.Path, r.Service}
		n.route = route
		list = append(list, ranked{*route, host, path})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}

	t.eachRoot(func(n *node) { n.inherit(nil) })
	slices.SortStableFunc(list, func(a, b ranked) int {
		return cmp.Or(
			a.host.compare(b.host),
			cmp.Compare(len(b.path), len(a.path)),
		)
	})
	t.routes = make([]Route, len(list))
	for i := range list {
		t.routes[i] = list[i].Route
	}
	return t, nil
}

// Routes returns the routes with their hosts and paths normalised, most
// specific first: exact hosts, then wildcards (longest first), then any host;
// longer paths before shorter ones; otherwise in the order given. The caller
// may keep and change the slice.
func (t *Table) Routes() []Route {
	return slices.Clone(t.routes)
}

// Match returns the most specific route for a request, or nil if there is
// none. The host decides before the path: an exact host wins over a wildcard
// and a longer wildcard over a shorter one; but where none of a host's paths
// match, the less specific hosts are asked.
//
// host is the Host header's value or the authority of the request's target: a
// port, a dot at the end and the case of letters do not matter.
//
// path is the path of the request's target as it arrived, still encoded; a
// query may follow it and is ignored. See the package's comment for how it is
// read. A path that is empty (as in "http://host") or "*" (as in "OPTIONS *")
// counts as "/"; any other that does not start with a slash matches nothing.
//
// Match allocates nothing, keeps neither slice and never panics. The Route it
// returns must not be changed.
func (t *Table) Match(host, path []byte) *Route {
	if len(path) == 0 || len(path) == 1 && path[0] == '*' {
		path = rootPath
	}
	if path[0] != '/' {
		return nil
	}
	if t.exact != nil || t.wildcards != nil {
		var buf [maxHostLen]byte
		if name := foldHost(buf[:0], host); len(name) > 0 {
			if r := t.matchHost(name, path); r != nil {
				return r
			}
		}
	}
	if t.any == nil {
		return nil
	}
	return t.any.match(path)
}

var rootPath = []byte{'/'}

// matchHost matches against the routes that have a host. name is lower-cased.
func (t *Table) matchHost(name, path []byte) *Route {
	if n := t.exact[string(name)]; n != nil {
		if r := n.match(path); r != nil {
			return r
		}
	}
	if t.wildcards == nil || name[0] == '[' {
		return nil
	}
	for i := 1; i < len(name); i++ { // from 1: the star stands for something
		if name[i] != '.' {
			continue
		}
		if n := t.wildcards[string(name[i:])]; n != nil {
			if r := n.match(path); r != nil {
				return r
			}
		}
	}
	return nil
}

// root returns the node for the path "/" of a host, made if need be.
func (t *Table) root(h hostPattern) *node {
	if h.kind == hostAny {
		if t.any == nil {
			t.any = new(node)
		}
		return t.any
	}
	m := &t.exact
	if h.kind == hostWildcard {
		m = &t.wildcards
	}
	if *m == nil {
		*m = make(map[string]*node)
	}
	n := (*m)[h.name]
	if n == nil {
		n = new(node)
		(*m)[h.name] = n
	}
	return n
}

func (t *Table) eachRoot(f func(*node)) {
	for _, n := range t.exact {
		f(n)
	}
	for _, n := range t.wildcards {
		f(n)
	}
	if t.any != nil {
		f(t.any)
	}
}
