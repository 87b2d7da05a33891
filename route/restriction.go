package route

import "bytes"

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
	if r.Weighted != nil {
		for i := range r.Weighted.Targets {
			if r.Weighted.Targets[i].Route.Actions.Restricts() {
				return true
			}
		}
	}
	return r.Actions.Restricts()
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
		for i := range s.other {
			if s.other[i].pattern == e.host {
				return
			}
		}
		s.other = append(s.other, hostTest{pattern: e.host})
	}
}

// restricts reports whether a route with that host is restricted.
func (s *restrictions) restricts(host []byte) bool {
	if s.all {
		return true
	}
	var buf [maxHostLen]byte
	name := foldHost(buf[:0], host)
	if _, ok := s.exact[string(name)]; ok {
		return true
	}
	for i := range s.other {
		if s.other[i].matches(name) {
			return true
		}
	}
	return false
}

// Evades reports whether a path, as sent, has a segment ".." in any spelling, on a host with a
// route that restricts its clients. Match resolves such segments. A server that does not reads the
// path as another one: one of that route, of which Match has found none.
func (t *Table) Evades(host, path []byte) bool {
	return (t.restricted.all || t.restricted.exact != nil || t.restricted.other != nil) && climbs(path) && t.restricted.restricts(host)
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
		path = decodedOnce(path)
	}
	return false
}

// decodedOnce returns path with its percent-encoded octets decoded.
func decodedOnce(path []byte) []byte {
	decoded := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if d, ok := unhex(path[i+1:]); ok {
				c = d
				i += 2
			}
		}
		decoded = append(decoded, c)
	}
	return decoded
}
