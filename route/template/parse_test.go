package template

import (
	"fmt"
	"sluice/test/verify"
	"strings"
	"testing"
)

// quoted returns the parts of a text on one line, with the names in brackets.
func quoted(s string) (string, error) {
	parts, rest, err := Parse(s, func(name string) (string, error) {
		if name == "" || name == "bad" {
			return "", fmt.Errorf("no %q", name)
		}
		return name, nil
	})
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text + "[" + p.Variable + "]")
	}
	return b.String() + rest, err
}

func TestParse(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"plain", "plain"},
		{"$a_1-${b}c$d", "[a_1]-[b]c[d]"},
		{"$$a$$$b$$", "$a$[b]$"},
		{"$1a${2}", "[1]a[2]"},
		{"${A b}", "[A b]"},
	} {
		got, err := quoted(test.text)
		verify.That(t, err == nil && got == test.want, "%q: got %q, %v, want %q", test.text, got, err, test.want)
	}
	for text, want := range map[string]string{
		"a\nb":   `contains '\n', character 2`,
		"\x7f":   `contains '\x7f', character 1`,
		"a${b":   `"${b" has no "}"`,
		"$":      `no ""`,
		"$A":     `no ""`,
		"${}":    `no ""`,
		"$a$bad": `no "bad"`,
	} {
		_, err := quoted(text)
		verify.That(t, err != nil && err.Error() == want, "%q: %v, want %s", text, err, want)
	}
}
