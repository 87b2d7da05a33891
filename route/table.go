package route

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// Route sends the requests that match it to a service.
type Route struct {
	// Host is a host without a port ("star.example.com", "192.0.2.1",
	// "[2001:db8::1]"), a wildcard ("*.example.com": one or more labels for the
	// star), or empty for any host. Case does not matter.
	Host string
	// Path is a prefix by segment: "/api", and equally "/api/", matches "/api" and
	// "/api/x", not "/apix". Case matters. Percent-encoded octets are decoded.
	Path string

	Service *Service
}

// Table is an immutable set of routes. It is safe for concurrent use.
type Table struct {
	anyHost   *node            // routes without a host, nil if there are none
	exact     map[string]*node // by host in lower case, nil if there are none
	wildcards map[string]*node // by suffix with its leading dot: ".example.com"
	routes    []Route          // normalised, in order of precedence
}

// NewTable builds a table. Its error joins one *Error for each invalid field, in the
// order of the routes.
func NewTable(routes []Route) (*Table, error) {
	t := &Table{}
	var errs []error
	type ranked struct {
		Route
		host hostPattern
		path []string
	}
	list := make([]ranked, 0, len(routes))
	firstAt := make(map[*node]int) // index of a node's route
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

// Routes returns a copy of the routes with hosts and paths normalised, in order of
// precedence: exact hosts, wildcards (longest first), any host; longer paths first;
// else as given.
func (t *Table) Routes() []Route {
	return slices.Clone(t.routes)
}

// Match returns the most specific route for a request, or nil; see the package's
// comment.
//
// host is the value of Host or the authority of the target: its port, a final dot and
// case do not matter. path is the path of the target as sent; a query after it is
// ignored. An empty path and "*" count as "/"; any other without a leading slash
// matches nothing.
//
// Match does not retain the slices. The caller must not change the Route.
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
	if t.anyHost == nil {
		return nil
	}
	return t.anyHost.match(path)
}

var rootPath = []byte{'/'}

// matchHost matches against the routes with a host. name is in lower case.
func (t *Table) matchHost(name, path []byte) *Route {
	if n := t.exact[string(name)]; n != nil {
		if r := n.match(path); r != nil {
			return r
		}
	}
	if t.wildcards == nil || name[0] == '[' {
		return nil
	}
	for i := 1; i < len(name); i++ { // from 1: the star is not empty
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

// root returns the node for "/" of a host, and creates it if necessary.
func (t *Table) root(h hostPattern) *node {
	if h.kind == hostAny {
		if t.anyHost == nil {
			t.anyHost = new(node)
		}
		return t.anyHost
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
	if t.anyHost != nil {
		f(t.anyHost)
	}
}
