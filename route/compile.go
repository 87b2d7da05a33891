package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxConditions limits the depth of Conditions.Not and Any.
const maxConditions = 8

// compiler translates conditions to programs, and collects errors.
type compiler struct {
	errs    []*Error
	bounded bool // the expressions of the route
	parts   int  // of the regular expressions of the route
}

func (c *compiler) refuse(field, value, reason string) {
	c.errs = append(c.errs, &Error{Field: field, Value: value, Reason: reason})
}

// regexp compiles an expression of field; nil: it is refused. A request may have to try all those
// of a route, so they have together as many parts as one may have.
func (c *compiler) regexp(field, value, text string) *expression {
	re, err := compileRegexp(text, c.bounded)
	if err != nil {
		c.refuse(field, value, err.Error())
		return nil
	}
	c.count(field, value, text)
	return re
}

// count adds the parts of an expression, and refuses it if the route has too many.
func (c *compiler) count(field, value, expression string) {
	if c.parts += partsOf(expression); c.parts > maxParts {
		c.refuse(field, value, fmt.Sprintf("the regular expressions of the route have %d parts together, the limit is %d", c.parts, maxParts))
	}
}

// conditions returns the tests of a. key is the path of the key in a configuration.
func (c *compiler) conditions(a *Conditions, key string, depth int) (p program) {
	if depth > maxConditions {
		c.refuse(key, "", fmt.Sprintf("is nested too deeply, the limit is %d", maxConditions))
		return nil
	}
	if len(a.Methods) > 0 {
		methods := slices.Compact(slices.Sorted(slices.Values(a.Methods)))
		for _, method := range methods {
			if !isToken(method) {
				c.refuse("methods", method, "is not a method")
			}
		}
		p = append(p, test{kind: testMethod, words: methods})
	}
	switch a.Scheme {
	case "":
	case "http", "https":
		p = append(p, test{kind: testScheme, words: []string{a.Scheme}})
	default:
		c.refuse(key+".scheme", a.Scheme, "want http or https")
	}
	p = append(p, c.values(testHeader, a.Headers, key+".header")...)
	p = append(p, c.values(testCookie, a.Cookies, key+".cookie")...)
	p = append(p, c.values(testQuery, a.Queries, key+".query")...)
	if len(a.Clients) > 0 {
		p = append(p, c.clients(a.Clients, key+".client"))
	}
	if len(a.Certificates) > 0 {
		p = append(p, test{kind: testCertificate, certificates: slices.Compact(slices.SortedFunc(slices.Values(a.Certificates), CertificateName.compare))})
	}
	if len(a.Hosts)+len(a.HostRegexps) > 0 {
		p = append(p, c.hosts(a.Hosts, a.HostRegexps))
	}
	if len(a.Paths) > 0 {
		t := test{kind: testPath}
		for _, path := range a.Paths {
			pattern, err := parsePattern(path.Match, path.Text, c.bounded)
			if err != nil {
				c.refuse("path", path.Text, err.Error())
			} else if path.Match == PathRegexp {
				c.count("path", path.Text, path.Text)
			}
			t.paths = append(t.paths, pattern)
		}
		p = append(p, t)
	}
	if a.Not != nil {
		for _, t := range c.conditions(a.Not, key+".not", depth+1) {
			t.negate = !t.negate
			p = append(p, t)
		}
	}
	if len(a.Any) > 0 {
		t := test{kind: testAny}
		for i := range a.Any {
			t.any = append(t.any, c.conditions(&a.Any[i], fmt.Sprintf("%s.any[%d]", key, i), depth+1))
		}
		p = append(p, t)
	}
	slices.SortStableFunc(p, func(a, b test) int { return cmp.Compare(a.kind, b.kind) })
	return p
}

func (c *compiler) values(kind testKind, values []Value, key string) (p program) {
	if len(values) == 0 {
		return nil // most routes have none: a sort of nothing allocates
	}
	values = slices.SortedFunc(slices.Values(values), func(a, b Value) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Text, b.Text))
	})
	for _, v := range values {
		t := test{kind: kind, value: v}
		field := key + "." + v.Name
		switch {
		case v.Name == "":
			c.refuse(key, "", "a name is missing")
		case kind != testQuery && !isToken(v.Name):
			c.refuse(field, v.Name, "is not a valid name")
		case kind == testHeader && strings.EqualFold(v.Name, "host"):
			c.refuse(field, "", "use the host of the route")
		}
		if kind == testHeader {
			t.value.Name = strings.ToLower(v.Name)
		}
		if v.Kind == ValueMatches {
			t.regexp = c.regexp(field, v.String(), v.Text)
		}
		p = append(p, t)
	}
	return p
}

func (c *compiler) clients(prefixes []netip.Prefix, key string) test {
	t := test{kind: testClient}
	for _, p := range Unmapped(prefixes) {
		if !p.IsValid() || p.Addr().Is4In6() {
			c.refuse(key, p.String(), "is not a network")
			continue
		}
		t.prefixes = append(t.prefixes, p.Masked())
	}
	slices.SortFunc(t.prefixes, netip.Prefix.Compare)
	t.networks = newNetworks(t.prefixes)
	return t
}

func (c *compiler) hosts(names, expressions []string) test {
	t := test{kind: testHost}
	for _, name := range names {
		pattern, err := parseHost(name)
		if err != nil {
			c.refuse("host", name, err.Error())
		}
		t.hosts = append(t.hosts, hostTest{pattern: pattern})
	}
	for _, expression := range expressions {
		if re := c.regexp("host_regexp", expression, expression); re != nil {
			t.hosts = append(t.hosts, hostTest{regexp: re})
		}
	}
	return t
}

// compile checks and normalises a route. The errors have no index.
func compile(r Route) (*entry, []*Error) {
	c := compiler{bounded: r.Bounded}
	e := &entry{route: r}
	var err error
	if r.HostRegexp == "" {
		if e.host, err = parseHost(r.Host); err != nil {
			c.refuse("host", r.Host, err.Error())
		}
	} else if r.Host != "" {
		c.refuse("host_regexp", r.HostRegexp, "not together with host")
	} else {
		e.host = regexpHost(r.HostRegexp)
		t := c.hosts(nil, []string{r.HostRegexp})
		e.hostTest = &t
	}
	switch r.PathMatch {
	case "", PathPrefix, PathExact, PathStringPrefix, PathRegexp:
		if e.path, err = parsePattern(r.PathMatch, r.Path, c.bounded); err != nil {
			c.refuse("path", r.Path, err.Error())
		} else if r.PathMatch == PathRegexp {
			c.count("path", r.Path, r.Path)
		}
	default:
		c.refuse("match", string(r.PathMatch), fmt.Sprintf("want %s, %s, %s or %s", PathPrefix, PathExact, PathStringPrefix, PathRegexp))
	}
	e.conditions = c.conditions(&r.Conditions, "when", 0)
	if len(r.Listeners) > 0 {
		listeners := slices.Compact(slices.Sorted(slices.Values(r.Listeners)))
		e.conditions = slices.Insert(e.conditions, 0, test{kind: testListener, words: listeners})
	}
	if len(c.errs) > 0 {
		return nil, c.errs
	}
	e.parts = c.parts
	e.route.Host, e.route.Path, e.route.PathMatch = e.host.String(), e.path.text, e.path.match
	if r.HostRegexp != "" {
		e.route.Host = ""
	}
	return e, nil
}
