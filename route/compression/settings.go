package compression

import (
	"bytes"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Settings are which responses are compressed, and how. They do not change, and are safe for
// concurrent use.
type Settings struct {
	Encodings []Encoding // the first is preferred
	Types     Types
	MinBytes  int64 // responses that are known to be shorter are not compressed
	Level     Level
}

// Types are media types.
type Types []mediaType

// A mediaType matches the types that begin with main and end with suffix. Both are in lower
// case. If exact, the suffix is "", and main is the whole type.
type mediaType struct {
	main, suffix []byte
	exact        bool
}

// ParseType returns the types that a pattern names: "text/html", "text/*",
// "application/*+json" or "*/*".
func ParseType(pattern string) (t Types, ok bool) {
	pattern = strings.ToLower(pattern)
	if pattern == "*/*" {
		return Types{{}}, true
	}
	main, sub, slash := strings.Cut(pattern, "/")
	if !slash || !isToken(main) || strings.Contains(main, "*") {
		return nil, false
	}
	name, wild := strings.CutPrefix(sub, "*")
	switch {
	case !wild:
		return Types{{main: []byte(pattern), exact: true}}, isToken(sub) && !strings.Contains(sub, "*")
	case name == "" || name[0] == '+' && len(name) > 1 && isToken(name) && !strings.Contains(name, "*"):
		return Types{{main: []byte(main + "/"), suffix: []byte(name)}}, true
	}
	return nil, false
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
var isToken = httpguts.ValidHeaderFieldName

// Match reports whether a Content-Type is one of the types.
func (t Types) Match(contentType []byte) bool {
	name, _, _ := bytes.Cut(contentType, semicolon)
	name = bytes.TrimRight(name, " \t")
	if len(name) == 0 {
		return false
	}
	for i := range t {
		m := &t[i]
		main, suffix := len(m.main), len(m.suffix)
		if len(name) < main+suffix || m.exact && len(name) != main {
			continue
		}
		if bytes.EqualFold(name[:main], m.main) && bytes.EqualFold(name[len(name)-suffix:], m.suffix) {
			return true
		}
	}
	return false
}
