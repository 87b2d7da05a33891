package route

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// program is a list of tests that must all hold, the cheapest first.
type program []test

// test is one condition.
type test struct {
	kind   testKind
	negate bool // it must not hold

	words    []string // of testListener, testMethod, testScheme: one of them
	value    Value    // of testHeader, testQuery, testCookie
	regexp   *expression
	hosts    []hostTest // one of them
	paths    []pathPattern
	networks networks
	prefixes []netip.Prefix // of networks, for people
	any      []program

	certificates []CertificateName // one of them
}

// testKind is what a test looks at, from the cheapest to the dearest.
type testKind uint8

const (
	testListener testKind = iota
	testMethod
	testScheme
	testCertificate
	testHeader
	testCookie
	testQuery
	testClient
	testHost
	testPath
	testAny
)

// hostTest is a host of a route or a regular expression.
type hostTest struct {
	pattern hostPattern
	regexp  *expression // nil: pattern
}

func (h *hostTest) matches(m *matching, name []byte) bool {
	switch {
	case len(name) == 0:
		return h.regexp == nil && h.pattern.kind == hostAny
	case h.regexp != nil:
		return h.regexp.matches(m, name)
	case h.pattern.kind == hostWildcard:
		suffix := h.pattern.name
		return len(name) > len(suffix) && string(name[len(name)-len(suffix):]) == suffix && name[0] != '['
	}
	return h.pattern.kind == hostAny || string(name) == h.pattern.name
}

func (h hostTest) String() string {
	if h.regexp != nil {
		return "~" + h.regexp.String()
	}
	return h.pattern.String()
}

// failing returns the first test that does not hold, or nil. Of an unknown client, neither a
// test nor its opposite holds. A test for which the request has too few steps, or its opposite,
// may hold: m is undecided if no other test fails.
func (p program) failing(m *matching) *test {
	for i := range p {
		t, before := &p[i], m.undecided
		m.undecided = false
		holds := t.holds(m)
		switch {
		case m.undecided:
		case holds == t.negate || t.negate && t.readsClient() && m.request != nil && !m.request.Client().IsValid():
			m.undecided = before
			return t
		default:
			m.undecided = before
		}
	}
	return nil
}

// holds reports whether t holds for the request of m, without negate.
func (t *test) holds(m *matching) bool {
	switch t.kind {
	case testHost:
		return slices.ContainsFunc(t.hosts, func(h hostTest) bool { return h.matches(m, m.host) })
	case testPath:
		path := m.normalPath()
		for i := range t.paths {
			if t.paths[i].matches(m, path) {
				return true
			}
		}
		return false
	case testAny:
		return slices.ContainsFunc(t.any, func(p program) bool { return p.failing(m) == nil })
	}
	r := m.request
	if r == nil {
		return false
	}
	switch t.kind {
	case testListener:
		return slices.Contains(t.words, r.Listener())
	case testMethod:
		method := r.Method()
		return slices.ContainsFunc(t.words, func(word string) bool { return string(method) == word })
	case testScheme:
		return r.Scheme() == t.words[0]
	case testCertificate:
		return r.Certificate().HasOneOf(t.certificates)
	case testHeader:
		for value, next := r.Field(t.value.Name, 0); next >= 0; value, next = r.Field(t.value.Name, next) {
			if t.accepts(m, value) {
				return true
			}
		}
	case testCookie:
		for value, next := r.Field("cookie", 0); next >= 0; value, next = r.Field("cookie", next) {
			if t.findCookie(m, value) {
				return true
			}
		}
	case testQuery:
		return t.findParameter(m, r.Query())
	case testClient:
		return t.networks.contains(r.Client())
	}
	return false
}

// readsClient reports whether t reads the client's address.
func (t *test) readsClient() bool {
	if t.kind == testAny {
		return slices.ContainsFunc(t.any, func(p program) bool {
			return slices.ContainsFunc(p, func(t test) bool { return t.readsClient() })
		})
	}
	return t.kind == testClient
}

// accepts reports whether a value fulfils t.
func (t *test) accepts(m *matching, value []byte) bool {
	switch t.value.Kind {
	case ValuePresent:
		return true
	case ValueMatches:
		return t.regexp.matches(m, value)
	}
	return string(value) == t.value.Text
}

// findCookie reports whether a cookie in a Cookie field fulfils t (RFC 6265, section
// 4.2.1).
func (t *test) findCookie(m *matching, field []byte) bool {
	for len(field) > 0 {
		var pair []byte
		pair, field, _ = bytes.Cut(field, semicolon)
		pair = bytes.Trim(pair, " \t")
		if n := len(t.value.Name); len(pair) > n && pair[n] == '=' && string(pair[:n]) == t.value.Name && t.accepts(m, pair[n+1:]) {
			return true
		}
	}
	return false
}

// findParameter reports whether a parameter of the query fulfils t, decoded as browsers
// encode forms: "+" is a space. A parameter without "=" has an empty value.
func (t *test) findParameter(m *matching, query []byte) bool {
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, ampersand)
		name, value, _ := bytes.Cut(pair, equals)
		if equalDecoded(name, t.value.Name) && t.accepts(m, m.decoded(value)) {
			return true
		}
	}
	return false
}

var semicolon, ampersand, equals = []byte{';'}, []byte{'&'}, []byte{'='}

// equalDecoded reports whether a part of a query, decoded, is text.
func equalDecoded(raw []byte, text string) bool {
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			if d, ok := unhex(raw[i+1:]); ok {
				c = d
				i += 2
			}
		}
		if text == "" || text[0] != c {
			return false
		}
		text = text[1:]
	}
	return text == ""
}

// String describes the test for people, as a request must be: "method is GET or HEAD".
func (t test) String() string {
	is := " is "
	if t.negate {
		is = " is not "
	}
	named := func(what string) string {
		s := fmt.Sprintf("%s %s", what, t.value.Name)
		switch t.value.Kind {
		case ValuePresent:
			return s + is + "present"
		case ValueMatches:
			is = strings.Replace(is, " is ", " matches ", 1)
			if t.negate {
				is = " does not match "
			}
		}
		return s + is + strconv.Quote(t.value.Text)
	}
	switch t.kind {
	case testListener:
		return "listener" + is + oneOf(t.words)
	case testMethod:
		return "method" + is + oneOf(t.words)
	case testScheme:
		return "scheme" + is + oneOf(t.words)
	case testCertificate:
		return "client certificate" + is + oneOf(texts(t.certificates))
	case testHeader:
		return named("header")
	case testCookie:
		return named("cookie")
	case testQuery:
		return named("query parameter")
	case testClient:
		return "client" + is + "in " + oneOf(texts(t.prefixes))
	case testHost:
		return "host" + is + oneOf(texts(t.hosts))
	case testPath:
		return "path" + is + oneOf(texts(t.paths))
	}
	programs := strings.Join(texts(t.any), "; ")
	if t.negate {
		return "none of: " + programs
	}
	return "one of: " + programs
}

// texts describes each of a list for people.
func texts[T fmt.Stringer](list []T) (all []string) {
	for _, one := range list {
		all = append(all, one.String())
	}
	return all
}

// String describes all tests for people.
func (p program) String() string { return strings.Join(texts(p), " and ") }

// String describes p for people.
func (p pathPattern) String() string {
	switch p.match {
	case PathExact:
		return p.text
	case PathStringPrefix:
		return p.text + "*"
	case PathRegexp:
		return "~" + p.text
	}
	return strings.TrimSuffix(p.text, "/") + "/**"
}

// oneOf joins words: "a, b or c".
func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
