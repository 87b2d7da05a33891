package config

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"sluice/test/verify"
)

func TestTheFileHasPrecedenceOverFoundServices(t *testing.T) {
	c := mustParse(t, `
consul: { datacenter: dc2, consistency: stale }
catalog: { select: { tag: web, meta: ["public=yes"] } }
services:
  star: { peers: ["127.0.0.1:80"] }
  front: { consul: { service: moon }, balance: { policy: random } }
routes:
  - { path: /, service: star }
  - { path: /later, service: later }
`)
	filter := "Service.Meta[`public`] == `yes`"
	found, skipped := c.Found([]string{"moon", "star", "sun", "with space", "ä"}, filter)
	merged, conflicts := Merge(c, found)
	verify.That(t, conflicts == nil, "conflicts: %v", conflicts)
	verify.Slices(t, slices.Sorted(maps.Keys(merged.Services)), []string{"front", "later", "star", "sun"}, "services")
	verify.Slices(t, skipped, []string{"with space", "ä"}, "skipped")
	verify.That(t, reflect.DeepEqual(merged.Services["star"], c.Services["star"]) && reflect.DeepEqual(merged.Services["front"], c.Services["front"]), "a found service replaces one of the file")
	_, ok := c.Services["sun"]
	verify.That(t, !ok, "Merge changed its argument")

	// A found service is like one in the file that sets nothing else.
	inFile := mustParse(t, `
consul: { datacenter: dc2, consistency: stale }
services: { sun: { consul: { tags: [web], filter: "`+filter+`" } } }
routes: [{ service: sun }]
`)
	got, want := merged.Services["sun"], inFile.Services["sun"]
	verify.That(t, reflect.DeepEqual(got, want), "found:\n%+v %+v\nwant:\n%+v %+v", got, got.Consul, want, want.Consul)
}

// For Consul, Web and web are one service. Under another spelling, the service of an operator would
// be found a second time, with the route of the default rule and without the operator's settings.
func TestFoundOmitsOtherSpellingsOfServicesOfOperators(t *testing.T) {
	c := mustParse(t, `
consul: { register: { service: edge } }
catalog: { default_rule: "{service}.apps" }
services:
  moon: { consul: {} }
  front: { consul: { service: star } }
routes:
  - { host: a, service: moon }
  - { host: b, service: front }
  - { host: c, service: Later }
`)
	found, _ := c.Found([]string{"Moon", "STAR", "Front", "Edge", "later", "sun"}, "")
	verify.Slices(t, slices.Sorted(maps.Keys(found.Services)), []string{"Later", "sun"}, "services")
}

func TestCatalogRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"catalog: { select: { name: \"[a\" } }":       "catalog.select.name",
		"catalog: { select: { meta: [\"a=`\"] } }":    "catalog.select.meta[0]",
		"catalog: { select: { meta: [\"=a\"] } }":     "catalog.select.meta[0]",
		"catalog: {}\nroutes: [{ service: \"a b\" }]": "routes[0].service",

		"catalog:\n  default_rule: apps.example.com":               `sluice.yaml:2: catalog.default_rule: value "apps.example.com": want a host with {service}`,
		"catalog:\n  default_rule: '*.{service}.example.com'":      `sluice.yaml:2: catalog.default_rule: `,
		"catalog:\n  default_rule: 'http://{service}.example.com'": `sluice.yaml:2: catalog.default_rule: `,
		"catalog:\n  default_rule: '{service}.example.com/path'":   `sluice.yaml:2: catalog.default_rule: `,
		"catalog:\n  default_rule: '{name}.example.com'":           `sluice.yaml:2: catalog.default_rule: `,
	} {
		refuses(t, text, want)
	}
}
