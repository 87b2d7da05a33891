package config

import (
	"fmt"
	"strings"
	"testing"

	"sluice/test/verify"
)

// All errors name the services that there are; a similar one is looked for only for the first
// unknown names.
func TestManyUnknownServices(t *testing.T) {
	const many = 3 * maxSuggested
	text := func(service func(i int) string) string {
		var b strings.Builder
		b.WriteString("services: { star-service: { peers: ['127.0.0.1:1'] } }\nroutes:\n")
		for i := range many {
			fmt.Fprintf(&b, "  - { path: /p%d, service: %s }\n", i, service(i))
		}
		return b.String()
	}
	check := func(t *testing.T, document string, want func(i int) string) {
		t.Helper()
		for name, sources := range map[string][]Source{
			"sluice.yaml":             {file(document)},
			"consul_kv:sluice/a.yaml": {file("dynamic: [{ consul_kv: { prefix: sluice } }]"), keys("a.yaml", document)},
		} {
			_, err := build(sources...)
			errs, _ := err.(Errors)
			verify.Require(t, len(errs) == many, "%s: %d errors, want %d: %v", name, len(errs), many, err)
			for i, err := range errs {
				want := fmt.Sprintf("%s:%d: routes[%d].service: %s", name, i+3, i, want(i))
				verify.Require(t, err.Error() == want, "%s\nwant %s", err, want)
			}
		}
	}
	check(t, text(func(int) string { return "star-servce" }), func(int) string {
		return `value "star-servce": no such service, did you mean "star-service"? (known: star-service)`
	})
	check(t, text(func(i int) string { return fmt.Sprintf("star-service-%03d", i) }), func(i int) string {
		if i < maxSuggested {
			return `value "` + fmt.Sprintf("star-service-%03d", i) + `": no such service, did you mean "star-service"? (known: star-service)`
		}
		return `value "` + fmt.Sprintf("star-service-%03d", i) + `": no such service (known: star-service)`
	})
}
