package config

import (
	"fmt"
	"sluice/test/verify"
	"strings"
	"testing"
)

// BenchmarkBuild builds a configuration with 10,000 routes in a document, as a reload does.
func BenchmarkBuild(b *testing.B) {
	var text strings.Builder
	text.WriteString("services: { a: { peers: ['127.0.0.1:1'] } }\nroutes:\n")
	for i := range 10000 {
		fmt.Fprintf(&text, "  - { host: h%d.example.com, path: /p%d, service: a }\n", i%1000, i)
	}
	sources := []Source{file("dynamic: [{ consul_kv: { prefix: sluice } }]"), keys("a.yaml", text.String())}
	for b.Loop() {
		verify.Result(build(sources...)).Must(b)
	}
}

// BenchmarkErrors refuses a document with 10,000 routes, each with an error, beside 1,000 services.
func BenchmarkErrors(b *testing.B) {
	for _, wrong := range []struct{ name, route string }{
		{"one unknown service", "{ path: /p%d, service: nameless }"},
		{"unknown services", "{ path: /p%d, service: t%[1]d }"},
		{"no host", "{ path: /p%d, host: example..com, service: s1 }"},
		{"unknown keys", "{ path: /p%d, hst: example.com, service: s1 }"},
	} {
		var text strings.Builder
		text.WriteString("services:\n")
		for i := range 1000 {
			fmt.Fprintf(&text, "  s%d: { peers: ['127.0.0.1:1'] }\n", i)
		}
		text.WriteString("routes:\n")
		for i := range 10000 {
			fmt.Fprintf(&text, "  - "+wrong.route+"\n", i)
		}
		sources := []Source{file("dynamic: [{ consul_kv: { prefix: sluice } }]"), keys("a.yaml", text.String())}
		b.Run(wrong.name, func(b *testing.B) {
			for b.Loop() {
				_, err := build(sources...)
				verify.Require(b, len(err.(Errors)) == 10000, "%v", err)
			}
		})
	}
}
