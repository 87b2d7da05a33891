package gateway

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// Tags name actions of the file, in each dialect. A name that the file does not offer closes the
// route, and a change of the file reaches the routes of tags without another one.
func TestTagsUseNamedActions(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	users := filepath.Join(t.TempDir(), "users")
	verify.NoError(t, os.WriteFile(users, []byte("ada:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n"), 0o600)) // password
	consul.Set("moon", withTags(t, "moon", "moon-1", origin(t, "moon"), "traefik.enable=true",
		"traefik.http.routers.secure.rule=Host(`secure`)", "traefik.http.routers.secure.middlewares=secure@file",
		"traefik.http.routers.chain.rule=Host(`chain`)", "traefik.http.routers.chain.middlewares=both",
		"traefik.http.middlewares.both.chain.middlewares=secure@file,office@file",
		"traefik.http.routers.missing.rule=Host(`missing`)", "traefik.http.routers.missing.middlewares=secur@file",
		"traefik.http.routers.kept.rule=Host(`kept`)", "traefik.http.routers.kept.middlewares=kept@file"))
	consul.Set("star", withTags(t, "star", "star-1", origin(t, "star"), "sluice.use=secure",
		"sluice.route=star/", "sluice.route=star/office use=office allow=0.0.0.0/0", "sluice.route=star/missing use=secur"))
	consul.Set("sun", withTags(t, "sun", "sun-1", origin(t, "sun"), "urlprefix-sun/ auth=secure", "urlprefix-sun/missing auth=secur"))
	text := func(secure, office string) string {
		return fmt.Sprintf(`
consul: { addresses: [%q] }
catalog: { tags: [sluice, fabio, traefik] }
actions:
  secure: { offered_to: [tags], %s }
  office: { offered_to: [tags], %s }
  kept: {}
`, consul.URL(), secure, office)
	}
	password := "basic_auth: { users_file: " + users + " }"
	r := start(t, text(password, "allow: [127.0.0.0/8]"))
	expect := func(want map[string]int) {
		t.Helper()
		for url, status := range want {
			r.awaitStatus(url, status)
		}
	}
	expect(map[string]int{
		"secure/": 401, "chain/": 401, "missing/": 403, "kept/": 403,
		"star/": 401, "star/office": 401, "star/missing": 403, "sun/": 401, "sun/missing": 403,
	})
	for _, host := range []string{"secure", "chain", "star", "sun"} {
		status, body := r.send(http.MethodGet, r.url("web")+"/", "Host", host, "Authorization", "Basic YWRhOnBhc3N3b3Jk")
		verify.That(t, status == http.StatusOK, "%s with a password: %d %s", host, status, body)
	}
	var reasons []string
	for _, p := range fetch[[]admin.TagProblem](r, "/api/tags") {
		reasons = append(reasons, p.Service+": "+p.Reason)
	}
	want := `moon: use[0]: value "secur": the file has no actions with this name, did you mean "secure"? (known: office, secure); the route denies every request`
	verify.That(t, slices.Contains(reasons, want), "no problem %q of %q", want, reasons)
	r.awaitLog(`"services":["moon","star","sun"]`)
	// The file changes, and nothing else does.
	r.write(text(password, "allow: [192.0.2.1]"))
	expect(map[string]int{"chain/": 403, "star/office": 403, "secure/": 401, "star/": 401})
	r.write(text("response_headers: { set: { X-A: a } }", "allow: [127.0.0.1]"))
	expect(map[string]int{"secure/": 200, "chain/": 200, "star/": 200, "star/office": 200, "missing/": 403, "kept/": 403})
	r.write(strings.Replace(text(password, "allow: [127.0.0.1]"), "  secure: {", "  secur: {", 1))
	expect(map[string]int{"secure/": 403, "chain/": 403, "star/": 403, "star/office": 403, "missing/": 401, "star/missing": 403})
}
