package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestFoundServicesStandUnderTheFile(t *testing.T) {
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
	before := mustParse(t, "services: {a: {peers: [\"127.0.0.1:80\"]}}\nroutes: [{service: a}]")
	if merged, _ := before.WithFound([]string{"sun"}); merged != before {
		t.Error("a configuration without a catalog has found services")
	}

	merged, skipped := c.WithFound([]string{"moon", "star", "sun", "with space", "ä"})
	if got := slices.Sorted(maps.Keys(merged.Services)); !slices.Equal(got, []string{"front", "later", "star", "sun"}) {
		t.Errorf("services %q", got)
	}
	if !slices.Equal(skipped, []string{"with space", "ä"}) {
		t.Errorf("skipped %q", skipped)
	}
	if !reflect.DeepEqual(merged.Services["star"], c.Services["star"]) || !reflect.DeepEqual(merged.Services["front"], c.Services["front"]) {
		t.Error("the file does not win")
	}
	if _, ok := c.Services["sun"]; ok {
		t.Error("the configuration itself was changed")
	}

	// A found service is what the file would say in the fewest words.
	said := mustParse(t, `
consul: { datacenter: dc2, consistency: stale }
services: { sun: { consul: { tags: [web], filter: "Service.Meta[`+"`public`] == `yes`"+`" } } }
routes: [{ service: sun }]
`)
	if got, want := merged.Services["sun"], said.Services["sun"]; !reflect.DeepEqual(got, want) {
		t.Errorf("found:\n%+v %+v\nwant:\n%+v %+v", got, got.Consul, want, want.Consul)
	}
}

func TestCatalogAloneIsEnough(t *testing.T) {
	c := mustParse(t, "catalog: {}")
	merged, _ := c.WithFound(nil)
	if c.Catalog == nil || len(merged.Services) != 0 || len(merged.Routes) != 0 {
		t.Errorf("%+v", merged)
	}
}

func TestCatalogRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"catalog: { select: { name: \"[a\" } }":       "catalog.select.name",
		"catalog: { select: { meta: [\"a=`\"] } }":    "catalog.select.meta[0]",
		"catalog: { select: { meta: [\"=a\"] } }":     "catalog.select.meta[0]",
		"catalog: {}\nroutes: [{ service: \"a b\" }]": "routes[0].service",
	} {
		if _, err := Parse("sluice.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one about %s", text, err, want)
		}
	}
}
