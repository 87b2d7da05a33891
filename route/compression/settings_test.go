package compression

import (
	"testing"

	"sluice/test/verify"
)

func TestTypes(t *testing.T) {
	for _, test := range []struct {
		pattern, contentType string
		want                 bool
	}{
		{"text/html", "text/html", true},
		{"text/html", "Text/HTML; charset=utf-8", true},
		{"text/html", "text/html ;charset=utf-8", true},
		{"Text/HTML", "text/html", true},
		{"text/html", "text/htmlx", false},
		{"text/html", "text/htm", false},
		{"text/html", "", false},
		{"text/*", "text/plain", true},
		{"text/*", "textual/plain", false},
		{"text/*", "text", false},
		{"application/*+json", "application/problem+json", true},
		{"application/*+json", "application/problem+JSON;x=y", true},
		{"application/*+json", "application/json", false},
		{"application/*+json", "application/problem+xml", false},
		{"*/*", "image/png", true},
		{"*/*", ";charset=utf-8", false},
	} {
		types, ok := ParseType(test.pattern)
		verify.Require(t, ok, "%q is refused", test.pattern)
		verify.Equal(t, types.Match([]byte(test.contentType)), test.want, "%q matches %q", test.pattern, test.contentType)
	}
	for _, pattern := range []string{"", "text", "/", "text/", "/html", "*", "*/html", "te*t/html", "text/h*", "text/*json", "text/*+", "text/*+a*", "text/html; charset=utf-8", "text/a b", "text/html/x"} {
		_, ok := ParseType(pattern)
		verify.That(t, !ok, "%q is accepted", pattern)
	}
}
