package route

import (
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// naiveMatch is Match in the plainest words: normalise the request with strings, take the
// first of all routes in order that fits.
func naiveMatch(t *Table, host, target string, r Request) *Route {
	if target == "" || target == "*" {
		target = "/"
	}
	if target[0] != '/' {
		return nil
	}
	if host = naiveHost(host); len(host) > maxHostLen {
		host = ""
	}
	p := naivePath(target)
	for _, e := range t.entries {
		route := &e.route
		if naiveHostFits(route, host) && naivePathFits(route.PathMatch, route.Path, p) &&
			(len(route.Listeners) == 0 || r != nil && slices.Contains(route.Listeners, r.Listener())) &&
			!slices.Contains(naiveConditions(&route.Conditions, host, p, r), false) {
			return route
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

func naiveHostFits(route *Route, host string) bool {
	if route.HostRegexp != "" {
		return host != "" && regexp.MustCompile(route.HostRegexp).MatchString(host)
	}
	if suffix, ok := strings.CutPrefix(route.Host, "*"); ok {
		return len(host) > len(suffix) && strings.HasSuffix(host, suffix) && host[0] != '['
	}
	return route.Host == "" || route.Host == host
}

func naivePathFits(match PathMatch, pattern, p string) bool {
	switch match {
	case PathExact:
		return p == pattern
	case PathStringPrefix:
		return strings.HasPrefix(p, pattern)
	case PathRegexp:
		re := regexp.MustCompile(pattern)
		return re.MatchString(p) || p != "/" && re.MatchString(p+"/")
	}
	return pattern == "/" || p == pattern || strings.HasPrefix(p, pattern+"/")
}

// naivePathConditionFits is naivePathFits for a pattern that is not normalised.
func naivePathConditionFits(pattern Path, p string) bool {
	if pattern.Match == PathRegexp {
		return naivePathFits(PathRegexp, pattern.Text, p)
	}
	text, slash := strings.CutSuffix(naiveUnescape(pattern.Text), "/")
	if slash && pattern.Match == PathStringPrefix {
		pattern.Match = PathPrefix
	}
	if text == "" {
		text = "/"
	}
	return naivePathFits(pattern.Match, text, p)
}

func naivePath(target string) string {
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		target = target[:i]
	}
	segments := strings.Split(strings.ReplaceAll(naiveUnescape(target), `\`, "/"), "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return path.Clean("/" + strings.Join(segments, "/"))
}

// naiveUnescape decodes the octets that are encoded correctly.
func naiveUnescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+3 <= len(s) {
			if octet, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(octet)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func prefixed(prefix string, all []string) (with []string) {
	for _, s := range all {
		with = append(with, prefix+s)
	}
	return with
}

// naiveConditions returns for each condition whether it holds.
func naiveConditions(c *Conditions, host, p string, r Request) (all []bool) {
	add := func(holds func() bool) { all = append(all, r != nil && holds()) }
	if len(c.Methods) > 0 {
		add(func() bool { return slices.Contains(c.Methods, string(r.Method())) })
	}
	if c.Scheme != "" {
		add(func() bool { return r.Scheme() == c.Scheme })
	}
	if len(c.Clients) > 0 {
		add(func() bool {
			return slices.ContainsFunc(c.Clients, func(n netip.Prefix) bool { return n.Contains(r.Client()) })
		})
	}
	if len(c.Certificates) > 0 {
		add(func() bool {
			of := r.Certificate()
			return of != nil && slices.ContainsFunc(c.Certificates, func(n CertificateName) bool {
				all := append([]string{"any", "cn=" + of.CommonName, "sha256=" + of.SHA256}, prefixed("dns=", of.DNSNames)...)
				return slices.Contains(append(all, prefixed("uri=", of.URIs)...), n.String())
			})
		})
	}
	for _, v := range c.Headers {
		add(func() bool { return naiveValue(v, naiveFields(r, v.Name)) })
	}
	for _, v := range c.Cookies {
		add(func() bool {
			var values []string
			for _, field := range naiveFields(r, "cookie") {
				for pair := range strings.SplitSeq(field, ";") {
					if name, value, ok := strings.Cut(strings.Trim(pair, " \t"), "="); ok && name == v.Name {
						values = append(values, value)
					}
				}
			}
			return naiveValue(v, values)
		})
	}
	for _, v := range c.Queries {
		add(func() bool {
			var values []string
			for pair := range strings.SplitSeq(string(r.Query()), "&") {
				name, value, _ := strings.Cut(strings.ReplaceAll(pair, "+", "%20"), "=")
				if pair != "" && naiveUnescape(name) == v.Name {
					values = append(values, naiveUnescape(value))
				}
			}
			return naiveValue(v, values)
		})
	}
	if len(c.Hosts)+len(c.HostRegexps) > 0 {
		fits := false
		for _, h := range c.Hosts {
			fits = fits || naiveHostFits(&Route{Host: h}, host)
		}
		for _, h := range c.HostRegexps {
			fits = fits || naiveHostFits(&Route{HostRegexp: h}, host)
		}
		all = append(all, fits)
	}
	if len(c.Paths) > 0 {
		all = append(all, slices.ContainsFunc(c.Paths, func(pattern Path) bool { return naivePathConditionFits(pattern, p) }))
	}
	if c.Not != nil {
		for _, holds := range naiveConditions(c.Not, host, p, r) {
			all = append(all, !holds)
		}
	}
	if len(c.Any) > 0 {
		all = append(all, slices.ContainsFunc(c.Any, func(one Conditions) bool {
			return !slices.Contains(naiveConditions(&one, host, p, r), false)
		}))
	}
	return all
}

func naiveValue(v Value, values []string) bool {
	return slices.ContainsFunc(values, func(s string) bool {
		switch v.Kind {
		case ValuePresent:
			return true
		case ValueMatches:
			return regexp.MustCompile(v.Text).MatchString(s)
		}
		return s == v.Text
	})
}

// naiveFields returns the values of all header fields of that name.
func naiveFields(r Request, name string) (values []string) {
	name = strings.ToLower(name)
	for value, next := r.Field(name, 0); next >= 0; value, next = r.Field(name, next) {
		values = append(values, string(value))
	}
	return values
}
