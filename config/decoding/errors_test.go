package decoding

import (
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestSuggest(t *testing.T) {
	known := []string{"prefix", "exact", "string_prefix", "regexp"}
	for s, want := range map[string]string{
		"prefx": "prefix", "PREFIX": "prefix", "prefxi": "prefix", "string-prefix": "string_prefix", "exatc": "exact",
		"x": "", "": "", "pre": "", "prefixes of texts": "",
		strings.Repeat("x", 300):      "",
		strings.Repeat("prefix", 100): "",
	} {
		verify.Equal(t, Suggest(s, known), want, "%q", s)
	}
	verify.Equal(t, Suggest("S17", []string{"s1", "s17", "s170"}), "s17", "result")
	verify.Equal(t, Suggest(strings.Repeat("x", 250), []string{strings.Repeat("y", 250)}), "", "is similar to nothing")
}
