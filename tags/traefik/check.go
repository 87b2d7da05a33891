package traefik

import (
	"regexp"
	"strings"

	"sluice/route"
	"sluice/tags"
)

// placeholder is a part of a pattern in version 2: {name:expression}. Counted repetitions such
// as {2,3} do not begin with a letter.
var placeholder = regexp.MustCompile(`\{([A-Za-z_][A-Za-z0-9_-]*)(:([^{}]*))?\}`)

// class is what has braces in the syntax of Go, such as \p{Greek}.
var class = regexp.MustCompile(`\\[pPx]\{[^{}]*\}`)

// hasPlaceholder reports whether a regular expression is one of version 2.
func hasPlaceholder(pattern string) bool {
	return placeholder.MatchString(class.ReplaceAllString(pattern, ""))
}

// check checks the arguments of m. Its error is a *ruleError.
func (m matcher) check() error {
	refuse := func(want string) error { return &ruleError{m.column, m.name + ": " + want} }
	last := m.values[len(m.values)-1]
	for _, r := range m.values {
		if strings.ContainsFunc(r, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return refuse("want printable text")
		}
	}
	switch m.name {
	case "Host", "HostSNI":
		if !ascii(last) {
			return refuse("want a name in ASCII (for other letters the form xn--…)")
		}
		if strings.Contains(strings.TrimPrefix(last, "*."), "*") && last != "*" {
			return refuse("want a name, *.NAME or *")
		}
	case "Path", "PathPrefix":
		if last[0] != '/' {
			return refuse("want a path that begins with /")
		}
		if placeholder.MatchString(last) {
			return refuse("placeholders are of version 2: want PathRegexp(`^" + version3(last) + "`)")
		}
	case "ClientIP":
		if _, ok := tags.Network(last); !ok {
			return refuse("want an address or a network")
		}
	case "HostRegexp", "HostSNIRegexp", "PathRegexp", "HeaderRegexp":
		return m.checkRegexp(last)
	case "QueryRegexp":
		if len(m.values) == 2 {
			return m.checkRegexp(last)
		}
	}
	return nil
}

func (m matcher) checkRegexp(pattern string) error {
	refuse := func(want string) error { return &ruleError{m.column, m.name + ": " + want} }
	if (m.name == "HostRegexp" || m.name == "HostSNIRegexp") && !ascii(pattern) {
		return refuse("want a pattern in ASCII")
	}
	if hasPlaceholder(pattern) {
		return refuse("placeholders are of version 2: want `^" + version3(pattern) + "$`")
	}
	if _, err := route.CompileRegexp(pattern); err != nil {
		return refuse("want a regular expression in Go's syntax: " + err.Error())
	}
	return nil
}

// version3 returns a pattern of version 2 as a regular expression.
func version3(pattern string) string {
	var b strings.Builder
	at := 0
	for _, found := range placeholder.FindAllStringSubmatchIndex(pattern, -1) {
		b.WriteString(regexp.QuoteMeta(pattern[at:found[0]]))
		if found[6] >= 0 {
			b.WriteString("(?:" + pattern[found[6]:found[7]] + ")")
		} else {
			b.WriteString("[^/]+")
		}
		at = found[1]
	}
	b.WriteString(regexp.QuoteMeta(pattern[at:]))
	return b.String()
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
