package config

import (
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestFiltersOfOtherPathsAreTranslated(t *testing.T) {
	for filter, want := range map[string]string{
		``:                                       ``,
		`via in Tags`:                            `via in Service.Tags`,
		`"via" in Tags`:                          `"via" in Service.Tags`,
		`Tags contains "v1" and not "x" in Tags`: `Service.Tags contains "v1" and not "x" in Service.Tags`,
		`"Tags in Tags" not in Tags`:             `"Tags in Tags" not in Service.Tags`,
		`ServiceMeta.version == "2"`:             `Service.Meta.version == "2"`,
		`Meta["a.b"] != x`:                       `Service.Meta["a.b"] != x`,
		"`a in Tags` in ServiceTags":             "`a in Tags` in Service.Tags",
		`ServiceTags is not empty or NodeMeta.rack not matches "^a"`: `Service.Tags is not empty or Node.Meta.rack not matches "^a"`,
		`(Node == a) or(Service==b)`:                                 `(Node.Node == a) or(Service.Service==b)`,
		`"via" in Service.Tags and Checks.Status == passing`:         `"via" in Service.Tags and Checks.Status == passing`,
		`ID == "jobNode_1"`:                                          `Service.ID == "jobNode_1"`,
		`not (Service.ID matches "Tags == 1")`:                       `not (Service.ID matches "Tags == 1")`,
	} {
		got, wrong := healthFilter(filter)
		verify.That(t, got == want && wrong == "", "%s: got %s, wrong %q; want %s", filter, got, wrong, want)
		again, wrong := healthFilter(got)
		verify.That(t, again == got && wrong == "", "%s is not stable: %s, %q", got, again, wrong)
	}
	for filter, wrong := range map[string]string{`"a" in Service.Tags and Labels.x == 1`: "Labels.x", `x in tags`: "tags"} {
		_, got := healthFilter(filter)
		verify.That(t, got == wrong, "%s: the wrong selector is %q, want %q", filter, got, wrong)
	}
	c := mustParse(t, `services: { a: { consul: { filter: 'via in Tags' } } }
routes: [{ service: a }]`)
	verify.Equal(t, c.Services["a"].Consul.Filter, "via in Service.Tags", "the filter")
	_, err := Parse("sluice.yaml", []byte("services:\n  a: { consul: { filter: 'x in tags' } }\nroutes: [{ service: a }]"))
	want := `sluice.yaml:2: services.a.consul.filter: value "x in tags": selector tags: want one that begins with Service.`
	verify.That(t, err != nil && strings.HasPrefix(err.Error(), want), "got %v, want %s", err, want)
}
