// Package template parses texts with variables, such as "https://$host$path". What the
// variables mean is up to its users.
package template

import (
	"fmt"
	"strings"
)

// A Part is a literal text, and then a variable.
type Part[V any] struct {
	Text     string
	Variable V
}

// Parse returns the parts of a text, and the literal text after the last one. "$name" and
// "${name}" are variables, "$1" and "${1}" too, and "$$" is a dollar sign. lookUp gets the
// names, which may be empty. An error is its, or is about a control character or a "${"
// without "}".
func Parse[V any](s string, lookUp func(name string) (V, error)) (parts []Part[V], rest string, err error) {
	for i, c := range []byte(s) {
		if c < ' ' || c == 0x7f {
			return nil, "", fmt.Errorf("contains %q, character %d", c, i+1)
		}
	}
	text := ""
	for {
		before, after, found := strings.Cut(s, "$")
		text += before
		if !found {
			return parts, text, nil
		}
		if strings.HasPrefix(after, "$") {
			text, s = text+"$", after[1:]
			continue
		}
		name, following, err := cutName(after)
		if err != nil {
			return nil, "", err
		}
		variable, err := lookUp(name)
		if err != nil {
			return nil, "", err
		}
		parts = append(parts, Part[V]{text, variable})
		text, s = "", following
	}
}

// cutName cuts the name of a variable off the text after a dollar sign.
func cutName(s string) (name, rest string, err error) {
	if inner, ok := strings.CutPrefix(s, "{"); ok {
		if name, rest, ok = strings.Cut(inner, "}"); !ok {
			return "", "", fmt.Errorf(`"$%s" has no "}"`, s)
		}
		return name, rest, nil
	}
	n := 0
	digits := s != "" && s[0] >= '0' && s[0] <= '9' // "$1a" is the variable 1, and "a"
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || !digits && (s[n] >= 'a' && s[n] <= 'z' || s[n] == '_')) {
		n++
	}
	return s[:n], s[n:], nil
}
