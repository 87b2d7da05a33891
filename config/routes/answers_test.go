package routes

import (
	"strings"
	"testing"

	"sluice/route"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// Kept answers of authentication servers belong to one route. They go on in the next configuration
// with the same server and the same headers, and nowhere else.
func TestKeptAnswersOfRoutes(t *testing.T) {
	const text = `services: { star: { peers: ["127.0.0.1:1"] } }
routes:
  - { path: /a, service: star, forward_auth: { url: "http://127.0.0.1:2", cache: [Authorization], timeout: 1s } }
  - { path: /b, service: star, forward_auth: { url: "http://127.0.0.1:2", cache: [Authorization], timeout: 1s } }
  - { path: /c, service: star, forward_auth: { url: "http://127.0.0.1:2", timeout: 1s } }
`
	first := verify.Result(build(t, configtest.Must(t, text))).Must(t)
	at := func(r *Routes, path string) *route.ForwardAuth { return find(t, r, path).Actions.ForwardAuth }
	verify.That(t, at(first, "/a").Forward == at(first, "/c").Forward, "routes with the same server have clients of their own")
	verify.That(t, at(first, "/a").Answers != nil && at(first, "/a").Answers != at(first, "/b").Answers && at(first, "/c").Answers == nil, "routes have answers otherwise")
	for _, change := range []struct {
		old, new string
		goesOn   bool
	}{
		{"timeout: 1s", "timeout: 2s", true},
		{"127.0.0.1:1", "127.0.0.1:3", true},
		{"[Authorization]", "[Cookie]", false},
		{"http://127.0.0.1:2", "http://127.0.0.1:4", false},
		{"/a", "/z", false},
	} {
		c := configtest.Must(t, strings.ReplaceAll(text, change.old, change.new))
		next := verify.Result(buildAfter(t, c, first)).Must(t)
		path := strings.ReplaceAll("/a", change.old, change.new)
		verify.Equal(t, at(next, path).Answers == at(first, "/a").Answers, change.goesOn, "%s in place of %s: the answers go on", change.new, change.old)
	}
}
