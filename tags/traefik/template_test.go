package traefik

import (
	"testing"

	"sluice/test/verify"
)

func TestTemplate(t *testing.T) {
	label := func(name string) string { return map[string]string{"host": "a b", "x.y": "z"}[name] }
	for text, want := range map[string]string{
		"":                                       "",
		"Host(`a`)":                              "Host(`a`)",
		DefaultRule:                              "Host(`my-service`)",
		"{{.Name}}-{{ .Name }}":                  "my service-my service",
		"{{- normalize .Name -}}":                "my-service",
		`{{ index .Labels "x.y" }}`:              "z",
		"{{ index .Labels `host` }}":             "a b",
		`{{ normalize (index .Labels "host") }}`: "a-b",
		`<{{ index .Labels "none" }}>`:           "<>",
	} {
		template := verify.Result(ParseDefaultRule(text)).Must(t)
		verify.Equal(t, template.expand("my service", label), want, "%s", text)
	}
	for _, text := range []string{"{{", "{{ .Name", "{{ }}", "{{ .Names }}", "{{ printf .Name }}", "{{ index .Labels }}", `{{ (index .Labels "a" }}`, `{{ index .Labels "a") }}`, "{{ if .Name }}a{{ end }}"} {
		_, err := ParseDefaultRule(text)
		verify.That(t, err != nil, "%s: no error", text)
	}
}
