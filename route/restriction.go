package route

import "slices"

// restrictions are the hosts of the routes that not every client may use.
type restrictions struct {
	exact map[string]struct{} // in lower case
	other []hostTest          // without duplicates
	all   bool
}

// restricting are the keys of a route that say who may use it, each with whether actions have it.
var restricting = map[string]func(a *Actions) bool{
	"allow":               func(a *Actions) bool { return a.Access != nil },
	"deny":                func(a *Actions) bool { return a.Access != nil },
	"client_certificate":  func(a *Actions) bool { return a.ClientCertificate },
	"client_certificates": func(a *Actions) bool { return len(a.CertificateNames) > 0 },
	"basic_auth":          func(a *Actions) bool { return a.BasicAuth != nil },
	"jwt":                 func(a *Actions) bool { return a.JWT != nil },
	"forward_auth":        func(a *Actions) bool { return a.ForwardAuth != nil },
}

// KeyRestricts reports whether a key of a route says who may use it.
func KeyRestricts(key string) bool { return restricting[key] != nil }

// Restricts reports whether a says that not every client may use the route.
func (a *Actions) Restricts() bool {
	for _, has := range restricting {
		if a != nil && has(a) {
			return true
		}
	}
	return false
}

// restricts reports whether the route, or a target of it, is not for every client.
func (r *Route) restricts() bool {
	return r.Actions.Restricts() ||
		r.Weighted != nil && slices.ContainsFunc(r.Weighted.Targets, func(t Target) bool { return t.Route.Actions.Restricts() })
}

// add adds the host of e, whose conditions may narrow it: that makes no host safe.
func (s *restrictions) add(e *entry) {
	switch {
	case e.hostTest != nil:
		s.other = append(s.other, e.hostTest.hosts...)
	case e.host.kind == hostAny:
		s.all = true
	case e.host.kind == hostExact:
		if s.exact == nil {
			s.exact = make(map[string]struct{})
		}
		s.exact[e.host.name] = struct{}{}
	default:
		if host := (hostTest{pattern: e.host}); !slices.Contains(s.other, host) {
			s.other = append(s.other, host)
		}
	}
}

// restricts reports whether a route with that host is restricted.
func (s *restrictions) restricts(host []byte, steps *Steps) bool {
	if s.all {
		return true
	}
	var buf [maxHostLen]byte
	name := foldHost(buf[:0], host)
	if _, ok := s.exact[string(name)]; ok {
		return true
	}
	m := matching{steps: steps}
	return slices.ContainsFunc(s.other, func(h hostTest) bool { return h.matches(&m, name) || m.undecided })
}

// Evades reports whether some server reads a path, as sent, as one of a route that restricts its
// clients, where Match, with the same arguments, has found another one. keepsDots: a segment ".."
// is no reason by itself.
func (t *Table) Evades(host, path []byte, r Request, found *Route, keepsDots bool) bool {
	if !t.restricted.all && t.restricted.exact == nil && t.restricted.other == nil || hasOneReading(path) {
		return false
	}
	var steps *Steps
	if r != nil {
		steps = r.Steps()
	}
	if !t.restricted.restricts(host, steps) {
		return false
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	widest, w := appendWidest(s.path[:0], path)
	if s.path = widest; w.cut || w.climbs && !keepsDots {
		return true
	}
	other := t.Match(host, widest, r)
	return other != nil && other != found && other.restricts()
}
