package route

import (
	"bytes"
	"slices"
)

// restrictions are the hosts of the routes that not every client may use.
type restrictions struct {
	exact map[string]struct{} // in lower case
	other []hostTest          // without duplicates
	all   bool
}

// Restricts reports whether a says that not every client may use the route.
func (a *Actions) Restricts() bool {
	return a != nil && (a.Access != nil || a.BasicAuth != nil || a.JWT != nil || a.ForwardAuth != nil || a.ClientCertificate || len(a.CertificateNames) > 0)
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

// Evades reports whether a path, as sent, has a segment ".." in any spelling, on a host with a
// route that restricts its clients. Match resolves such segments. A server that does not reads the
// path as another one: one of that route, of which Match has found none.
func (t *Table) Evades(host, path []byte, steps *Steps) bool {
	return (t.restricted.all || t.restricted.exact != nil || t.restricted.other != nil) && climbs(path) && t.restricted.restricts(host, steps)
}

// maxDecodings is how many times in sequence servers behind one another may decode a path.
const maxDecodings = 3

// climbs reports whether path has a segment "..", in any spelling that some server reads: with
// backslashes, with parameters, with blanks, or encoded, up to maxDecodings times.
func climbs(path []byte) bool {
	if literal(path) {
		return false
	}
	for range maxDecodings {
		for segment := range decodedSegments(path) {
			if string(bytes.TrimRight(segment, "\x00\t ")) == ".." {
				return true
			}
		}
		if bytes.IndexByte(path, '%') < 0 {
			return false
		}
		path = appendDecoded(make([]byte, 0, len(path)), path, '+')
	}
	return false
}
