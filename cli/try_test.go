package cli

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/admin"
	"sluice/test/verify"
)

// What another file or document would change is shown, and the status tells whether requests that
// are served now would fail.
func TestTry(t *testing.T) {
	var asked string
	answer := admin.Foresight{
		Requests: 412, Since: time.Date(2026, 11, 30, 12, 0, 0, 0, time.Local), Unknown: []string{"the peers of the service new\x1b"},
		Changes: []admin.RouteChange{{Requests: 10, Now: "service star", Then: "service new", Examples: []string{"GET http://a.example/x"}}},
	}
	address := serveJSON(t, func(r *http.Request) any {
		body := verify.Result(io.ReadAll(r.Body)).Must(t)
		asked = r.Method + " " + r.URL.Path + " " + r.URL.Query().Get("document") + ": " + string(body)
		return answer
	})
	file := filepath.Join(t.TempDir(), "new.yaml")
	verify.NoError(t, os.WriteFile(file, []byte("routes: []"), 0o600))

	status, stdout, stderr := execute(t, "route", "--against", file, "--admin", address)
	want := `requests looked at: 412, a sample of each route since 12:00:00; served otherwise: 10
not known: the peers of the service new?

REQUESTS  NOW           THEN         SUCH AS
10        service star  service new  GET http://a.example/x
`
	verify.That(t, status == exitOK && stdout == want, "status %d\n%s%s\nwant\n%s", status, stdout, stderr, want)
	verify.Equal(t, asked, "POST /api/route/against : routes: []", "the question")

	answer.Changes[0].Then, answer.Changes[0].Fails = "404 no_route", true
	status, _, stderr = execute(t, "config", "try", "consul_kv:sluice/a.yaml", file, "--admin", address)
	verify.That(t, status == exitFailed, "status %d of a change for the worse", status)
	verify.Contains(t, stderr, "would refuse requests that it serves now", "the error")
	verify.Equal(t, asked, "POST /api/route/against consul_kv:sluice/a.yaml: routes: []", "the question")

	answer = admin.Foresight{Changes: []admin.RouteChange{}}
	status, stdout, _ = execute(t, "route", "--against", file, "--admin", address)
	verify.That(t, status == exitOK && stdout == "no requests in the last hour\n", "status %d\n%s", status, stdout)
	for _, args := range [][]string{{"route", "--against", file, "http://a/"}, {"route", "--against", file, "--watch"}, {"config", "try", file}, {"config", "try", "", file}} {
		status, _, _ := execute(t, append(args, "--admin", address)...)
		verify.Equal(t, status, exitUsage, "status of %q", args)
	}
}
