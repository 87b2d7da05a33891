package admin

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/config"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/test/verify"
)

func TestCatalog(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	status := consulsource.CatalogStatus{
		State: discovery.WatchStale, Since: since, Index: 7, LastSuccess: since, LastError: "refused",
		Services: []consulsource.CatalogService{{Name: "moon"}, {Name: "star", Tags: []string{"v1"}}}, Probation: []string{"moon"},
	}
	found := false
	h := handlerOf(Options{Documents: documents{new(config.History)}, Services: Services{Catalog: func() (consulsource.CatalogStatus, bool) { return status, found }}})
	ask := func() (int, string) {
		status, body := get(t, h, "/api/catalog")
		return status, strings.Join(strings.Fields(body), " ")
	}
	code, body := ask()
	verify.That(t, code == http.StatusNotFound && strings.Contains(body, "no catalog"), "without a catalog: %d %s", code, body)
	found = true
	want := `{ "state": "stale", "since": "2026-01-02T03:04:05Z", "index": 7, "last_success": "2026-01-02T03:04:05Z", "last_change": null, ` +
		`"last_error": "refused", "services": [ { "service": "moon", "tags": [], "probation": true }, { "service": "star", "tags": [ "v1" ], "probation": false } ] }`
	code, body = ask()
	verify.That(t, code == http.StatusOK && body == want, "got %d\n%s\nwant\n%s", code, body, want)
}
