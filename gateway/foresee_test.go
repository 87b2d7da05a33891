package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// against returns what would become of the requests so far with a text in place of a document.
func (r *running) against(document, text string) (f admin.Foresight, status int) {
	r.t.Helper()
	answer := r.sendAdmin(http.MethodPost, "/api/route/against?"+url.Values{"document": {document}}.Encode(), text)
	if answer.Status == http.StatusOK {
		verify.NoError(r.t, json.Unmarshal(answer.Body, &f))
	}
	return f, answer.Status
}

// Which requests of the last hour another file or document would serve otherwise is told, and
// nothing changes.
func TestAgainst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	documents := filepath.Join(dir, "*.yaml")
	secrets := writeFile(t, t.TempDir(), "secrets", []byte("ann:secret"))
	writeFile(t, dir, "one.yaml", []byte("routes: [{ path: /document, service: a }]\n"))
	services := fmt.Sprintf("dynamic: [{ file: %q }]\nservices:\n  a: { peers: [%q] }\n  b: { peers: [%q] }\n", documents, origin(t, "a"), origin(t, "b"))
	old := "  - { name: old, address: \"127.0.0.2:0\" }\n"
	listeners := strings.Replace(preamble, "listeners: [{ name: web, address: \"127.0.0.1:0\" }]", "listeners:\n  - { name: web, address: \"127.0.0.1:0\" }\n"+old, 1)
	routes := `routes:
  - { path: /same, service: a }
  - { path: /moved, service: a }
  - { path: /edited, service: a, when: { query: { v: "*" } } }
  - { path: /password, service: a }
  - { path: /removed, service: a }
  - { path: /new, service: a }
  - { path: /old, service: a, listeners: [old] }
`
	r := start(t, listeners+services+routes)
	for _, path := range []string{"/same", "/moved", "/edited?v=s3cret", "/password", "/removed/x", "/new", "/document", "/nothing"} {
		r.get(path)
	}
	r.send(http.MethodGet, r.url("old")+"/old")
	number := r.history.Current().Number

	f, status := r.against("", listeners+services+routes)
	verify.That(t, status == http.StatusOK && f.Requests == 9 && len(f.Changes) == 0 && len(f.Unknown) == 0, "the same file: %d %+v", status, f)

	f, _ = r.against("", strings.Replace(listeners, old, "", 1)+services+"  new: { consul: {} }\n"+`routes:
  - { path: /same, service: a }
  - { path: /moved, service: b }
  - { path: /edited, service: a, strip_prefix: /edited, when: { query: { v: "*" } } }
  - { path: /password, service: a, basic_auth: { users_file: `+secrets+` } }
  - { path: /new, service: new }
`)
	var got []string
	for _, c := range f.Changes {
		got = append(got, fmt.Sprintf("%s -> %s %t %q", c.Now, c.Then, c.Fails, c.Examples))
	}
	slices.Sort(got)
	web := r.url("web")
	verify.Slices(t, got, []string{
		fmt.Sprintf("service a -> 404 no_route true [%q]", "GET "+web+"/removed/x"),
		fmt.Sprintf("service a -> no listener: its address is gone true [%q]", "GET "+r.url("old")+"/old"),
		fmt.Sprintf("service a -> service a, as another path false [%q]", "GET "+web+"/edited (/edited, then /)"), // without the value of v
		fmt.Sprintf("service a -> service a, or 401 unauthorized false [%q]", "GET "+web+"/password"),
		fmt.Sprintf("service a -> service b false [%q]", "GET "+web+"/moved"),
		fmt.Sprintf("service a -> service new false [%q]", "GET "+web+"/new"),
	}, "the changes")
	verify.Slices(t, f.Unknown, []string{"the peers of the service new"}, "what is not known")

	f, _ = r.against(filepath.Join(dir, "one.yaml"), "routes: []\n")
	verify.That(t, len(f.Changes) == 1 && f.Changes[0].Then == "404 no_route" && f.Changes[0].Fails, "a document without its route: %+v", f)
	f, _ = r.against(filepath.Join(dir, "two.yaml"), "routes: [{ path: /nothing, service: b }]\n")
	verify.That(t, len(f.Changes) == 1 && f.Changes[0].Now == "404 no_route" && f.Changes[0].Then == "service b" && !f.Changes[0].Fails, "a new document: %+v", f)
	_, status = r.against("/elsewhere.yaml", "routes: []")
	verify.Equal(t, status, http.StatusNotFound, "a document that is not configured")
	_, err := os.Stat(filepath.Join(dir, "two.yaml"))
	verify.That(t, os.IsNotExist(err), "a document was written: %v", err)
	verify.Equal(t, r.history.Current().Number, number, "the revision")
	r.answers("/removed/x", "a")
}

// Routes of tags are as another file would allow them, also while instances ask for different ones.
func TestAgainstWithRoutesOfTags(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	star := func(n int, tag string) *api.ServiceEntry {
		return withTags(t, "star", fmt.Sprintf("star-%d", n), origin(t, "star"), tag)
	}
	consul.Set("star", star(1, "sluice.route=/star strip=/star"), star(2, "sluice.route=/star"))
	consul.Set("moon", withTags(t, "moon", "moon-1", origin(t, "moon"), "sluice.route=/moon"))
	text := preamble + fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [sluice], claims: [{ service: \"*\", hosts: [\"*\"] }] }\n", consul.URL())
	r := start(t, text)
	r.gets("/star", "star")
	r.gets("/moon", "moon")

	f, status := r.against("", text)
	verify.That(t, status == http.StatusOK && f.Requests >= 2 && len(f.Changes) == 0 && len(f.Unknown) == 0, "the same file: %d %+v", status, f)
	f, _ = r.against("", strings.Replace(text, `service: "*"`, "service: moon", 1))
	verify.That(t, len(f.Changes) == 1 && f.Changes[0].Then == "404 no_route" && f.Changes[0].Fails && strings.HasSuffix(f.Changes[0].Examples[0], "/star"), "claims of one service: %+v", f)
}
