package decoding

import (
	"testing"

	"sluice/test/verify"
)

func TestVariables(t *testing.T) {
	env := map[string]string{"A": "one", "PORT_2": "8000", "host": "h", "lower": "low", "DOLLAR": "${A}$"}
	ofRequests := func(name string) bool { return name == "host" || name == "path" || name == "user" }
	for in, want := range map[string]string{
		"plain $A $":                  "plain $A $",
		"${A}":                        "one",
		"x${A}-${lower}${PORT_2}y":    "xone-low8000y",
		"${A:-two}":                   "one",
		"${NONE:-two}":                "two",
		"${NONE:-}":                   "",
		"${NONE:-a:-b$c}":             "a:-b$c",
		"$${A}":                       "${A}",
		"$$${A}":                      "$${A}",
		"$${A} ${A}":                  "${A} one",
		"${host}${path}$${user}${1}":  "${host}${path}$${user}${1}", // of a request
		"${}${-A}${":                  "${}${-A}${",
		"${DOLLAR}":                   "${A}$", // its value is no text with variables
		"a${A}b${host}c${PORT_2}d$${": "aoneb${host}c8000d$${",
	} {
		d := (&Schema{IsVariable: ofRequests}).Decoder("")
		d.Getenv = func(name string) string { return env[name] }
		got, _, err := d.resolve(in)
		verify.That(t, err == nil && got == want, "%s: %q, %v, want %q", in, got, err, want)
	}
}
