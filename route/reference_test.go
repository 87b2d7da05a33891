package route

import (
	"net/url"
	"path"
	"strings"
)

// naiveMatch is Match in the plainest words: build the list of all routes in
// order, normalise the request with strings, take the first that fits.
func naiveMatch(t *Table, host, target string) *Route {
	if target == "" || target == "*" {
		target = "/"
	}
	if target[0] != '/' {
		return nil
	}
	host = naiveHost(host)
	p := naivePath(target)
	for _, r := range t.Routes() {
		if naiveHostFits(r.Host, host) && (r.Path == "/" || p == r.Path || strings.HasPrefix(p, r.Path+"/")) {
			return &r
		}
	}
	return nil
}

func naiveHost(host string) string {
	if i := strings.LastIndex(host, ":"); i >= 0 && !strings.Contains(host[i:], "]") {
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	var b strings.Builder
	for _, c := range []byte(host) {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

func naiveHostFits(pattern, host string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(host) > len(suffix) && len(host) <= maxHostLen && strings.HasSuffix(host, suffix) && host[0] != '['
	}
	return pattern == "" || pattern == host
}

func naivePath(target string) string {
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		target = target[:i]
	}
	var b strings.Builder
	for i := 0; i < len(target); i++ {
		if target[i] == '%' && i+3 <= len(target) {
			if s, err := url.PathUnescape(target[i : i+3]); err == nil {
				b.WriteString(s)
				i += 2
				continue
			}
		}
		b.WriteByte(target[i])
	}
	segments := strings.Split(strings.ReplaceAll(b.String(), `\`, "/"), "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return path.Clean("/" + strings.Join(segments, "/"))
}
