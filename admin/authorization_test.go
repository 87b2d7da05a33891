package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/test/verify"
)

// everyOrder contains paths of orders.
var everyOrder = []string{
	"/api/peers/star/a/drain", "/api/peers/star/a/enable", "/api/config/rollback",
	"/api/shares/star", "/api/shares/star/pause", "/api/shares/star/resume", "/api/shares/star/release",
}

// The token for looking reads everything but profiles, and gives no orders.
func TestTokenForLooking(t *testing.T) {
	h := handlerOf(Options{
		Tokens:    func() Tokens { return Tokens{Operate: "s3cret", Look: "scraper"} },
		Documents: documents{history(t, firstConfig)},
	})
	ask := func(method, path, token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	refused := func(w *httptest.ResponseRecorder) bool {
		return w.Code == http.StatusForbidden && strings.Contains(w.Header().Get("WWW-Authenticate"), `error="insufficient_scope", scope="operate"`)
	}
	for path, guarded := range everyPath {
		w, want := ask("GET", path, "scraper"), strings.HasPrefix(path, "/debug/")
		verify.That(t, refused(w) == want && w.Code != http.StatusUnauthorized, "%s with the token for looking: %d %s", path, w.Code, w.Body)
		w = ask("GET", path, "s3cret")
		verify.That(t, w.Code != http.StatusUnauthorized && w.Code != http.StatusForbidden, "%s with the token for everything: %d %s", path, w.Code, w.Body)
		w = ask("GET", path, "s")
		verify.That(t, (w.Code == http.StatusUnauthorized) == guarded, "%s with another token: %d %s", path, w.Code, w.Body)
	}
	for _, path := range everyOrder {
		w := ask("POST", path, "scraper")
		verify.That(t, refused(w), "%s with the token for looking: %d %s", path, w.Code, w.Body)
		w = ask("POST", path, "s3cre")
		verify.That(t, w.Code == http.StatusUnauthorized, "%s with another token: %d %s", path, w.Code, w.Body)
	}
	for token, want := range map[string]bool{"scraper": false, "s3cret": true} {
		got := decode[Orders](t, ask("GET", "/api/orders", token).Body.String())
		verify.That(t, got.MayOrder == want, "may_order with the token %s: %t", token, got.MayOrder)
	}
	w := ask("POST", everyOrder[0], "s3cret") // there is no such service
	verify.Equal(t, w.Code, http.StatusNotFound, "%s with the token for everything", everyOrder[0])
}

// No text is the token of a file that is not configured.
func TestNoTokenIsNoText(t *testing.T) {
	h := handlerOf(Options{Tokens: func() Tokens { return Tokens{Operate: "s3cret"} }})
	for _, header := range []string{"Bearer", "Bearer ", "Bearer  "} {
		status, body := get(t, h, "/api", "Authorization", header)
		verify.That(t, status == http.StatusUnauthorized, "%q: %d %s", header, status, body)
	}
}
