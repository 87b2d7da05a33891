package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"sluice/route/auth"
	"sluice/route/places"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// The tokens of the issuer are those that the configuration beside it asks for, also after a rotation.
func TestTokensOfTheIssuer(t *testing.T) {
	c := configtest.Must(t, string(verify.Result(os.ReadFile("sluice.yaml")).Must(t)))
	i := new(issuer)
	verify.NoError(t, i.rotate())
	server := httptest.NewServer(i.handler())
	t.Cleanup(server.Close)
	get := func(path string) string {
		response := verify.Result(http.Get(server.URL + path)).Must(t)
		defer response.Body.Close()
		return string(verify.Result(io.ReadAll(response.Body)).Must(t))
	}
	rules := *c.Routes[0].Built().JWT.Tokens
	// New keys read at once. Those in use read again for an unknown key after seconds.
	read := func() {
		rules.Keys = auth.NewKeys(verify.URL(t, server.URL+"/jwks.json"), nil, auth.SavedKeys{})
		rules.Keys.Start(t.Context())
		t.Cleanup(rules.Keys.Close)
		rules.Keys.Await(t.Context())
	}
	read()
	check := func(token string) error {
		_, err := rules.Check([]byte(token), time.Now(), places.Many, func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), auth.MaxKeyWait)
		})
		return err
	}
	before := get("/token?sub=ada&role=viewer&role=admin")
	verify.NoError(t, check(before))
	fault := (*auth.Fault)(nil)
	verify.That(t, errors.As(check(get("/token?sub=eve&role=viewer")), &fault) && fault.Kind == auth.TokenDenied, "another role: %v", fault)
	verify.Result(http.Post(server.URL+"/rotate", "", nil)).Must(t).Body.Close()
	read()
	verify.NoError(t, check(get("/token?sub=ada&role=admin")))
	verify.NoError(t, check(before))
}
