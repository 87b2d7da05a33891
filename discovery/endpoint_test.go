package discovery

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"sluice/test/verify"
)

// A server gets each name as it is, also one that is a way to another folder.
func TestPathSegment(t *testing.T) {
	for _, name := range []string{".", "..", "...", "a/b", "../x", "a b", "%2E", "star-1", "ä?#"} {
		u := verify.Result(url.Parse("http://127.0.0.1/api/peers/" + PathSegment(name) + "/drain")).Must(t)
		mux, got := http.NewServeMux(), "nothing"
		mux.HandleFunc("/api/peers/{id}/drain", func(_ http.ResponseWriter, r *http.Request) { got = r.PathValue("id") })
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, u.String(), nil))
		verify.Equal(t, got, name, "%s", u)
	}
}
