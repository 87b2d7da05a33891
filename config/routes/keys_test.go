package routes

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/route/auth"
	"sluice/test/configtest"
	"sluice/test/verify"
)

const someKeys = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

// The keys of issuers go on in the next routes with the same URL. A URL of a document leads only
// where a registry may lead.
func TestKeysOfIssuers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, someKeys) }))
	defer server.Close()
	c := configtest.Must(t, `services: { star: { peers: ["127.0.0.1:1"] } }
routes:
  - { path: /a, service: star, jwt: { jwks_url: "`+server.URL+`", issuer: a, audiences: [x] } }
  - { path: /b, service: star, jwt: { jwks_url: "`+server.URL+`", issuer: b, audiences: [x] } }
  - { path: /c, service: star, jwt: { jwks_url: "`+server.URL+`", issuer: c, audiences: [x] } }
`)
	c.Routes[2].JWT.ByDocument = true
	r := verify.Result(build(t, c)).Must(t)
	tokens := func(path string) *auth.Tokens { return find(t, r, path).Actions.JWT.Tokens }
	verify.That(t, tokens("/a").Keys == tokens("/b").Keys && tokens("/a").Keys != tokens("/c").Keys, "keys are shared otherwise")
	verify.That(t, tokens("/a").Issuer == "a" && tokens("/b").Issuer == "b", "issuers %q, %q", tokens("/a").Issuer, tokens("/b").Issuer)
	r.Start(t.Context())
	r.AwaitKeys(t.Context(), time.Minute)
	verify.Equal(t, len(tokens("/a").Keys.Status().Keys), 1, "keys at the URL of the file")
	status := tokens("/c").Keys.Status()
	verify.That(t, len(status.Keys) == 0 && status.Err != nil && strings.Contains(status.Err.Error(), "discovery.allow_local"), "keys at the URL of a document: %+v", status)
	verify.Equal(t, len(r.KeySets()), 2, "sets of keys")

	saved := r.Save()
	verify.Equal(t, len(saved.Keys), 1, "saved sets")
	server.Close()
	next := make(keySets)
	for i, want := range []int{1, 1, 0} {
		set := verify.Result(next.of(c.Routes[i].JWT, Restored(saved), nil, false)).Must(t)
		verify.Equal(t, len(set.Status().Keys), want, "keys of route %d in the next process", i)
	}
}

// Two sets whose URLs differ in a credential have names of their own, which show none, and each
// goes on in the next process.
func TestKeysOfURLsThatLookAlike(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, strings.Replace(someKeys, `"a"`, `"`+r.URL.RawQuery+`"`, 1))
	}))
	defer server.Close()
	c := configtest.Must(t, `services: { star: { peers: ["127.0.0.1:1"] } }
routes:
  - { path: /a, service: star, jwt: { jwks_url: "`+server.URL+`?s3cret1", issuer: a, audiences: [x] } }
  - { path: /b, service: star, jwt: { jwks_url: "`+server.URL+`?s3cret2", issuer: b, audiences: [x] } }
`)
	r := verify.Result(build(t, c)).Must(t)
	r.Start(t.Context())
	r.AwaitKeys(t.Context(), time.Minute)
	for range 10 { // in the same order each time
		all := r.KeySets()
		verify.Equal(t, len(all), 2, "sets of keys")
		verify.That(t, all[0].Source == server.URL+"?***" && all[0].Keys[0].ID == "s3cret1", "the first: %+v", all[0])
		verify.That(t, all[1].Source == server.URL+"?*** #2" && all[1].Keys[0].ID == "s3cret2", "the second: %+v", all[1])
	}

	saved := r.Save()
	server.Close()
	next := make(keySets)
	for i, want := range []string{"s3cret1", "s3cret2"} {
		set := verify.Result(next.of(c.Routes[i].JWT, Restored(saved), nil, false)).Must(t)
		keys := set.Status().Keys
		verify.That(t, len(keys) == 1 && keys[0].ID == want, "keys of route %d in the next process: %+v", i, keys)
	}
}
