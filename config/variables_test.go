package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/test/verify"
)

// buildIn builds a configuration in an environment.
func buildIn(text string, env func(string) string, sources ...Source) (*Config, error) {
	in := Input{File: "sluice.yaml", Getenv: env}
	built, err := in.Build(append([]Source{in.FileSource(text)}, sources...))
	if err != nil {
		return nil, err
	}
	return built.Config, nil
}

func TestVariablesInTheFile(t *testing.T) {
	env := environ("LEVEL", "debug", "AGENT", "10.0.0.1", "N", "7", "SHARE", "5%", "HOST", "a.example.com", "TOKEN", "s3cret")
	c := verify.Result(buildIn(`
log: { level: "${LEVEL}" }
consul: { addresses: ["http://${AGENT}:${PORT:-8500}"], token: "${TOKEN}", max_watches: "${N}" }
access_log:
  sample: ${SHARE}
services:
  a: &a { peers: ["${AGENT}:80"] }
  b: { <<: *a, upstream: { tls: { server_name: "${NAME:-}" } } }
routes: [{ host: "${HOST}", service: a, request_headers: { set: { X-Host: "${host}", Authorization: "Bearer ${TOKEN}" } } }, { service: b }]
`, env)).Must(t)
	set := c.Routes[0].RequestHeaders.Set
	verify.That(t, c.Log.Level.Text == "debug" && c.Consul.Addresses[0].Reveal() == "http://10.0.0.1:8500" && c.Consul.Token.Reveal() == "s3cret" && c.Consul.MaxWatches == 7 &&
		c.AccessLog.Sample == 0.05 && c.Services["a"].Peers[0].Text == "10.0.0.1:80" && c.Services["b"].Peers[0].Text == "10.0.0.1:80" &&
		c.Services["b"].Upstream.TLS.ServerName == "" && c.Routes[0].Host == "a.example.com" && set["X-Host"].Reveal() == "${host}" && set["Authorization"].Reveal() == "Bearer s3cret", "got %+v", c)
}

// No error shows a value from the environment.
func TestVariableErrors(t *testing.T) {
	env := environ("LEVEL", "s3cret", "ADDRESS", "s3cret:x", "LINES", "s3\ncret")
	for text, want := range map[string]string{
		"consul:\n  token: ${TOKEN}":                        `sluice.yaml:2: consul.token: value "***": the environment has no variable TOKEN, or it is empty: set it, or write ${TOKEN:-DEFAULT}`,
		"log:\n  level: ${NONE}":                            `sluice.yaml:2: log.level: value "${NONE}": the environment has no variable NONE, or it is empty: set it, or write ${NONE:-DEFAULT}`,
		"log: { level: '${LEVEL}' }":                        `sluice.yaml:1: log.level: value "${LEVEL}": want one of debug, info, warn, error, which the environment does not give`,
		"consul: { addresses: ['${ADDRESS}'] }":             `sluice.yaml:1: consul.addresses[0]: value "${ADDRESS}": want http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:///PATH, which the environment does not give`,
		"consul: { addresses: ['${A:-a:1}', '${A:-a:1}'] }": `sluice.yaml:1: consul.addresses[1]: value "${A:-a:1}": the same as consul.addresses[0]`,
		"consul: { datacenter: '${LINES}' }":                `sluice.yaml:1: consul.datacenter: value "${LINES}": want a text on one line, which the environment does not give`,
		"log: { level: '${LEVEL' }":                         `sluice.yaml:1: log.level: value "${LEVEL": want ${LEVEL} or ${LEVEL:-DEFAULT}, or $${ for the text "${"`,
		"log: { level: '${LEVEL:?no}' }":                    `sluice.yaml:1: log.level: value "${LEVEL:?no}": want ${LEVEL} or ${LEVEL:-DEFAULT}, or $${ for the text "${"`,
		"log: { level: '${A:-${LEVEL}}' }":                  `sluice.yaml:1: log.level: value "${A:-${LEVEL}}": want ${A} or ${A:-DEFAULT}, or $${ for the text "${"`,
	} {
		_, err := buildIn(text+tail, env)
		verify.That(t, err != nil && strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), "s3cret"), "%s:\n got  %v\n want %s", text, err, want)
	}
}

// Who writes a document or a tag must not read the environment of the process.
func TestDocumentsHaveNoVariables(t *testing.T) {
	source := Source{Name: "consul_kv:a", Kind: KindConsulKV, Documents: []Document{{
		Name: "consul_kv:a", Text: "services: { b: { peers: [\"127.0.0.1:1\"] } }\nroutes: [{ path: \"/${HOME}\", service: b }]",
	}}}
	_, err := buildIn("dynamic: [{ consul_kv: { key: a } }]"+tail, environ("HOME", "s3cret"), source)
	want := `consul_kv:a:2: routes[0].path: value "/${HOME}": only the configuration file can contain variables of the environment such as ${HOME}; $${ stands for the text "${"`
	verify.That(t, err != nil && err.Error() == want, "got  %v\nwant %s", err, want)
}

// What shows a configuration shows the text of the file in place of a variable.
func TestVariablesAreNotShown(t *testing.T) {
	const text = `
admin: { address: "127.0.0.1:${PORT}" }
consul: { token: "a${TOKEN}", tls: { server_name: "${TOKEN}" } }
services: { a: { peers: ["127.0.0.1:1"] }, b: { consul: { tags: [x, "${TOKEN}"] } } }
routes:
  - { path: /x, service: a }
  - { path: /y, service: b, when: { header: { X-Key: "${TOKEN}" } } }
`
	c := verify.Result(buildIn(text, environ("PORT", "8081", "TOKEN", "s3cret"))).Must(t)
	merged, _ := Merge(c, Addition{Origin: "tags", Routes: []Route{{Path: "/z", Match: "prefix", Service: "a"}}})
	merged.Routes = merged.Routes[1:] // as if its service were missing
	for _, c := range []*Config{c, merged} {
		asYAML := verify.Result(yaml.Marshal(schema.Encode(*c, true))).Must(t)
		asJSON := verify.Result(json.Marshal(c)).Must(t)
		for _, shown := range []string{string(asYAML), string(asJSON)} {
			verify.That(t, !strings.Contains(shown, "s3cret") && strings.Count(shown, "${TOKEN}") == 3 && strings.Contains(shown, "127.0.0.1:${PORT}"), "shown: %s", shown)
		}
	}
	later := verify.Result(buildIn(text, environ("PORT", "8082", "TOKEN", "s3cret2"))).Must(t)
	changes := fmt.Sprint(Diff(c, later))
	verify.That(t, !strings.Contains(changes, "s3cret") && strings.Contains(changes, "admin.address: changed (the value is secret)"), "changes: %s", changes)
}
