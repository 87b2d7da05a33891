package terminal

import (
	"testing"

	"sluice/test/verify"
)

// What comes from a registry was written by anybody who may register there.
func TestPrintable(t *testing.T) {
	for given, want := range map[string]string{
		"zaïre-1 = 50 %":                   "zaïre-1 = 50 %",
		"a\x1b[2Jb\nc\x7f":                 "a?[2Jb?c?",
		"gnp.\u202etoor\u202c healthy":     "gnp.?toor? healthy", // shown from right to left
		"\u2066a\u2069":                    "?a?",
		"ap\u200bi":                        "ap?i", // shown as api
		"a\u2028star: healthy\u2029\ufeff": "a?star: healthy??",
	} {
		verify.Equal(t, Printable(given, 100), want, "of %q", given)
	}
	verify.Equal(t, Printable("äöüß", 3), "äö…", "the short text")
}
