package config

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

const oneService = "services: { star: { peers: [\"127.0.0.1:1\"] } }\n"

func TestTokensOfRoutes(t *testing.T) {
	c := mustParse(t, oneService+`routes:
  - service: star
    rate_limit: { rate: 1, key: claim sub }
    forward_auth: { url: "http://127.0.0.1:1/", response_headers: [X-Level] }
    jwt: { jwks_url: "https://issuer/keys", issuer: "https://issuer", require: { "realm.roles": [a, b] }, headers: { X-User: sub }, from: header X-Token, remove: true }
`)
	r := c.Routes[0]
	j := r.Built().JWT
	verify.Equal(t, fmt.Sprint(r.JWT.Algorithms), "[RS256 ES256]", "algorithms")
	verify.That(t, j.Leeway == time.Minute && j.Issuer == "https://issuer" && len(j.Require) == 1 && j.Require[0].Claim.String() == "realm.roles" && j.Place.Header == "x-token", "rules %+v", j)
	verify.Slices(t, j.Written.Dropped, []string{"x-token", "x-user"}, "fields of the token")
	verify.Slices(t, r.Built().Authorized.Dropped, []string{"x-token", "x-user", "x-level"}, "fields of the client that peers do not get")
	verify.That(t, r.Built().Restricts() && r.Built().RateLimit.Claim.String() == "sub", "actions %+v", r.Built())
}

func TestWrongTokensOfRoutes(t *testing.T) {
	const good = `jwks_file: /keys, issuer: i, audiences: [a]`
	for _, test := range []struct{ route, want string }{
		{"jwt: { issuer: i, audiences: [a] }", "routes[0].jwt: want one of jwks_file and jwks_url"},
		{"jwt: { " + good + `, jwks_url: "http://h/" }`, "routes[0].jwt: want one of jwks_file and jwks_url"},
		{"jwt: { jwks_file: /keys, audiences: [a] }", "routes[0].jwt.issuer: required"},
		{"jwt: { jwks_file: /keys, issuer: i }", "routes[0].jwt: want audiences, or a claim in require"},
		{"jwt: { " + good + ", algorithms: [none] }", `routes[0].jwt.algorithms[0]: value "none": want one of RS256`},
		{"jwt: { " + good + ", algorithms: [HS256] }", `routes[0].jwt.algorithms[0]: value "HS256": want one of RS256`},
		{"jwt: { " + good + ", leeway: 1h }", `routes[0].jwt.leeway: value "1h": want`},
		{"jwt: { " + good + ", from: query token }", `routes[0].jwt.from: value "query token": want bearer, "header NAME" or "cookie NAME"`},
		{"jwt: { " + good + ", from: cookie a, remove: true }", `routes[0].jwt.remove: value "true": peers get the cookie with the others`},
		{"jwt: { " + good + ", require: { role: [] } }", "routes[0].jwt.require.role: want a list of values"},
		{"jwt: { " + good + ", headers: { Host: sub } }", "routes[0].jwt.headers.Host: cannot be edited: it is edited by host_header"},
		{"jwt: { " + good + ", headers: { X-User: '' } }", "routes[0].jwt.headers.X-User: "},
		{"jwt: { " + good + " }, basic_auth: { users_file: /users }", "routes[0].jwt: want one of basic_auth and jwt"},
		{"jwt: { " + good + ", headers: { X-User: sub } }, forward_auth: { url: 'http://h/', response_headers: [x-user] }", `routes[0].forward_auth.response_headers: value "x-user": jwt writes or removes this header already`},
		{"rate_limit: { rate: 1, key: claim sub }", `routes[0].rate_limit.key: value "claim sub": want a route with jwt`},
	} {
		err := refuses(t, oneService+"routes: [{ service: star, "+test.route+" }]", test.want)
		verify.That(t, !strings.Contains(fmt.Sprint(err), "\n"), "%s: several errors: %v", test.route, err)
	}
}
