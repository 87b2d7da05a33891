package config

import (
	"fmt"
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
		if _, err := build(sources...); err != nil {
			b.Fatal(err)
		}
	}
}
