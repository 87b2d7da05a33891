package traefik

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"sluice/route"
	"sluice/tags"
)

// match collects the conditions of a term in the keys of a route.
type match struct {
	keys tags.Keys
	more route.Conditions
	host string // exact host in lower case; empty: none
	path matcher

	never bool // no request meets the term
	err   *ruleError
}

// keysOf returns the conditions of t as keys of a route, and the conditions that have no key; nil:
// none. never says that no request meets them.
func keysOf(t term) (keys tags.Keys, more *route.Conditions, never bool, err error) {
	m := &match{keys: make(tags.Keys)}
	// Exact hosts and paths first: they decide other matchers of the same kind at once.
	for _, first := range []string{"Host", "Path", "PathPrefix", "", "!"} {
		for _, one := range t {
			rank := one.name
			switch {
			case one.not:
				rank = "!"
			case one.name != "Host" && one.name != "Path" && one.name != "PathPrefix":
				rank = ""
			}
			if rank == first {
				m.add(one)
			}
		}
	}
	if m.err != nil {
		return nil, nil, false, m.err
	}
	if !reflect.DeepEqual(m.more, route.Conditions{}) {
		more = &m.more
	}
	return m.keys, more, m.never, nil
}

// not returns the conditions of which none may hold.
func (m *match) not() *route.Conditions {
	if m.more.Not == nil {
		m.more.Not = new(route.Conditions)
	}
	return m.more.Not
}

func (m *match) fail(one matcher, want string) {
	if m.err == nil {
		m.err = &ruleError{one.column, want}
	}
}

func (m *match) add(one matcher) {
	switch one.name {
	case "Host", "HostRegexp":
		m.addHost(one)
	case "Path", "PathPrefix", "PathRegexp":
		m.addPath(one)
	case "Method":
		m.addMethod(one)
	case "Header", "HeaderRegexp":
		m.addNamed(one, "header")
	case "Query", "QueryRegexp":
		m.addNamed(one, "query")
	case "ClientIP":
		m.addClient(one)
	}
}

func (m *match) addHost(one matcher) {
	host := strings.TrimSuffix(strings.ToLower(one.values[0]), ".")
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]" // Traefik writes IPv6 addresses without brackets
	}
	suffix, wildcard := strings.CutPrefix(host, "*.")
	pattern := "^" + regexp.QuoteMeta(host) + "$"
	switch {
	case one.name == "HostRegexp":
		pattern = one.values[0]
	case host == "*":
		m.never = m.never || one.not
		return
	case wildcard:
		pattern = `^[^.]+\.` + regexp.QuoteMeta(suffix) + "$"
	case !one.not && m.host == "":
		m.host = host
		delete(m.keys, "host_regexp")
		m.keys["host"] = host
		return
	}
	fits := regexp.MustCompile(pattern) // checked by check
	switch known, other := m.keys["host_regexp"].(string); {
	case m.host != "":
		if fits.MatchString(strings.Trim(m.host, "[]")) == one.not && fits.MatchString(m.host) == one.not {
			m.never = true
		}
	case one.not && one.name == "Host" && !wildcard:
		m.not().Hosts = append(m.not().Hosts, host)
	case one.not:
		m.not().HostRegexps = append(m.not().HostRegexps, pattern)
	case other && known == pattern:
	case other && m.more.HostRegexps == nil:
		m.more.HostRegexps = []string{pattern}
	case other:
		m.fail(one, "more than two patterns for the host: want two")
	default:
		m.keys["host_regexp"] = pattern
	}
}

func (m *match) addPath(one matcher) {
	value := one.values[0]
	if one.name == "PathPrefix" && value == "/" {
		m.never = m.never || one.not
		return
	}
	known := m.path
	switch {
	case known.name == "" && one.not:
		m.not().Paths = append(m.not().Paths, pathOf(one))
	case known.name == "":
		m.setPath(one)
	case known.name == "Path":
		if fitsPath(one, known.values[0]) == one.not {
			m.never = true
		}
	case known.name == "PathPrefix" && one.name == "PathPrefix":
		mine := known.values[0]
		switch longer := strings.HasPrefix(value, mine); {
		case !one.not && longer:
			m.setPath(one)
		case !one.not:
			m.never = m.never || !strings.HasPrefix(mine, value)
		case strings.HasPrefix(mine, value):
			m.never = true
		case longer:
			m.not().Paths = append(m.not().Paths, pathOf(one))
		}
	case known.name == one.name && known.values[0] == value && !one.not:
	case one.not:
		m.not().Paths = append(m.not().Paths, pathOf(one))
	case m.more.Paths == nil:
		m.more.Paths = []route.Path{pathOf(one)}
	default:
		m.fail(one, "more than two conditions for the path: want one PathRegexp")
	}
}

func pathOf(one matcher) route.Path {
	kinds := map[string]route.PathMatch{"Path": route.PathExact, "PathPrefix": route.PathStringPrefix, "PathRegexp": route.PathRegexp}
	return route.Path{Match: kinds[one.name], Text: one.values[0]}
}

func (m *match) setPath(one matcher) {
	m.path = one
	path := pathOf(one)
	m.keys["path"], m.keys["match"] = path.Text, string(path.Match)
}

// fitsPath reports whether one, without its negation, accepts a path.
func fitsPath(one matcher, path string) bool {
	switch value := one.values[0]; one.name {
	case "Path":
		return path == value
	case "PathPrefix":
		return strings.HasPrefix(path, value)
	default:
		return regexp.MustCompile(value).MatchString(path) // checked by check
	}
}

func (m *match) addMethod(one matcher) {
	method := strings.ToUpper(one.values[0])
	known, _ := m.keys["methods"].([]string)
	switch {
	case one.not && known == nil:
		m.not().Methods = append(m.not().Methods, method)
	case one.not:
		m.never = m.never || slices.Contains(known, method)
	case known == nil:
		m.keys["methods"] = []string{method}
	default:
		m.never = m.never || !slices.Contains(known, method)
	}
}

// addNamed adds a condition for a field of the head or a parameter of the query.
func (m *match) addNamed(one matcher, kind string) {
	name, value := one.values[0], "~^$" // Query with one argument: only the empty value
	if len(one.values) == 2 {
		value = one.values[1]
		switch {
		case strings.HasSuffix(one.name, "Regexp"):
			value = "~" + value
		case strings.HasPrefix(value, "~") || value == "*":
			value = "~^" + regexp.QuoteMeta(value) + "$" // a text, not a pattern
		}
	}
	if kind == "header" {
		name = strings.ToLower(name)
	}
	if one.not {
		known, both := m.keys.Get("when", "not", kind, name).(string)
		if both && known != value {
			value = "~(?:" + asPattern(known) + ")|(?:" + asPattern(value) + ")"
		}
		m.keys.Set(value, "when", "not", kind, name)
		return
	}
	switch known, both := m.keys.Get("when", kind, name).(string); {
	case !both:
		m.keys.Set(value, "when", kind, name)
	case known == value:
	case m.keys.Get("when", "any") == nil:
		m.keys.Set([]tags.Keys{{kind: tags.Keys{name: value}}}, "when", "any")
	default:
		m.fail(one, fmt.Sprintf("more than two conditions for the same %s: want one pattern", kind))
	}
}

// asPattern returns the value of a condition as a regular expression.
func asPattern(value string) string {
	if pattern, ok := strings.CutPrefix(value, "~"); ok {
		return pattern
	}
	return "^" + regexp.QuoteMeta(value) + "$"
}

func (m *match) addClient(one matcher) {
	value, _ := tags.Network(one.values[0])
	if one.not {
		known, _ := m.keys.Get("when", "not", "client").([]string)
		m.keys.Set(append(slices.Clone(known), value), "when", "not", "client")
		return
	}
	switch known, both := m.keys.Get("when", "client").([]string); {
	case !both:
		m.keys.Set([]string{value}, "when", "client")
	case known[0] != value:
		m.fail(one, "two conditions for the client: want one network")
	}
}
