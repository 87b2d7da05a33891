package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/discovery/locality"
	"sluice/route"
	"sluice/route/auth"
	"sluice/route/ratelimit"
	"sluice/test/verify"
)

// A tokenIssuer signs tokens, and has a server for its keys.
type tokenIssuer struct {
	t      testing.TB
	signer jose.Signer
	keys   *auth.KeySet
	url    string
	away   atomic.Bool
}

func startTokenIssuer(t testing.TB) *tokenIssuer {
	t.Helper()
	key := verify.Result(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Must(t)
	signer := verify.Result(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "a"}}, nil)).Must(t)
	set := verify.Result(json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "a"}}})).Must(t)
	i := &tokenIssuer{t: t, signer: signer}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if i.away.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Write(set)
	}))
	t.Cleanup(server.Close)
	i.url = server.URL
	i.follow(auth.SavedKeys{})
	i.keys.Await(t.Context())
	return i
}

// follow has routes use another set of its keys from now on, as another process does: it begins
// with the saved ones.
func (i *tokenIssuer) follow(saved auth.SavedKeys) {
	i.keys = auth.NewKeys(units.NewLocation(i.url), locality.ByOperator, saved)
	i.keys.Start(i.t.Context())
	i.t.Cleanup(i.keys.Close)
}

// token returns a token with these claims beside the usual ones.
func (i *tokenIssuer) token(claims map[string]any) string {
	i.t.Helper()
	all := map[string]any{"iss": "issuer", "aud": "shop", "sub": "ada", "exp": time.Now().Add(time.Hour).Unix(), "role": "admin"}
	for name, value := range claims {
		all[name] = value
	}
	return verify.Result(jwt.Signed(i.signer).Claims(all).Serialize()).Must(i.t)
}

// requires returns actions that require a token of i, at a place, and the role admin.
func (i *tokenIssuer) requires(place string, remove ...string) *route.Actions {
	i.t.Helper()
	j := &route.JWT{
		Tokens: &auth.Tokens{
			Keys:       i.keys,
			TokenRules: auth.TokenRules{Issuer: "issuer", Audiences: []string{"shop"}, Algorithms: []jose.SignatureAlgorithm{jose.ES256}, Leeway: time.Minute},
			Require:    []auth.Requirement{{Claim: auth.NameClaim("role"), Texts: []string{"admin"}}},
		},
		Place:   verify.Result(route.ParseTokenPlace(place)).Must(i.t),
		Written: headerEdits(i.t, nil, nil, append(remove, "X-User", "X-Groups", "X-Forwarded-Groups")...),
		Headers: []route.ClaimHeader{{Name: "X-User", Claim: auth.NameClaim("sub")}, {Name: "X-Groups", Claim: auth.NameClaim("groups")}, {Name: "X-Forwarded-Groups", Claim: auth.NameClaim("groups")}},
	}
	return &route.Actions{JWT: j, Authorized: j.Written, RequestHeaders: headerEdits(i.t, map[string]string{"X-Subject": "$user"}, nil)}
}

// A token is found at its place, says who the user is, and cannot be forged, over each protocol of
// clients.
func TestTokensOfUsers(t *testing.T) {
	t.Parallel()
	i := startTokenIssuer(t)
	p := startProxyTo(t, false, Options{}, echoRequest)
	p.setRoutes(
		route.Route{Path: "/", Service: p.service, Actions: i.requires("bearer")},
		route.Route{Path: "/removed", Service: p.service, Actions: i.requires("bearer", "Authorization")},
		route.Route{Path: "/header", Service: p.service, Actions: i.requires("header X-Token", "X-Token")},
		route.Route{Path: "/cookie", Service: p.service, Actions: i.requires("cookie session")},
	)
	good := i.token(map[string]any{"groups": []string{"a", "b,c", "d"}})
	comma := i.token(map[string]any{"groups": "a,admin", "sub": "x,ada"})
	forged := []string{"X-User: not ada", "x-user: not ada", "X_User: not ada", "X-Groups: not ada", "X-Forwarded-Groups: not ada", "X.User: not ada"}
	for _, front := range p.fronts() {
		for _, test := range []struct {
			name, path string
			fields     []string
			status     int
			reason     string
			want       string // in WWW-Authenticate, or in what the peer got
			not        string // what the peer must not get
		}{
			{"a token", "/", []string{"Authorization: Bearer " + good}, 200, "", "X-User: ada\n", "not ada"},
			{"another case, blanks", "/", []string{"authorization: bEARER   " + good}, 200, "", "Authorization: ", "not ada"},
			{"groups", "/", []string{"Authorization: Bearer " + good}, 200, "", "X-Groups: a,d\n", "not ada"},
			{"groups by a reserved name", "/", []string{"Authorization: Bearer " + good}, 200, "", "X-Forwarded-Groups: a,d\n", "not ada"},
			{"the subject as a variable", "/", []string{"Authorization: Bearer " + good}, 200, "", "X-Subject: ada\n", "not ada"},
			{"a comma is in no header", "/", []string{"Authorization: Bearer " + comma}, 200, "", "X-Subject: x,ada\n", "X-User"},
			{"a comma makes no second group", "/", []string{"Authorization: Bearer " + comma}, 200, "", "X-Subject", "Groups"},
			{"without groups", "/", []string{"Authorization: Bearer " + i.token(nil)}, 200, "", "X-User: ada\n", "Groups"},
			{"removed", "/removed", []string{"Authorization: Bearer " + good}, 200, "", "X-User: ada\n", "Authorization"},
			{"in a header", "/header", []string{"X-Token: " + good}, 200, "", "X-User: ada\n", "X-Token"},
			{"in a header, as a bearer", "/header", []string{"X-Token: Bearer " + good, "Authorization: Basic eA=="}, 200, "", "Authorization: Basic eA==\n", "X-Token"},
			{"in a cookie", "/cookie", []string{"Cookie: a=b; session=" + good}, 200, "", "X-User: ada\n", "not ada"},
			{"a subject with line ends", "/", []string{"Authorization: Bearer " + i.token(map[string]any{"sub": "a\r\nX-Admin: 1"})}, 200, "", "X-User: a", "\nX-Admin"},

			{"none", "/", nil, 401, "token_missing", `Bearer realm="restricted"`, ""},
			{"another scheme", "/", []string{"Authorization: Basic eA=="}, 401, "token_missing", "Bearer realm", ""},
			{"empty", "/", []string{"Authorization: Bearer"}, 401, "token_missing", "Bearer realm", ""},
			{"at another place", "/cookie", []string{"Authorization: Bearer " + good}, 401, "token_missing", "Bearer realm", ""},
			{"in a query", "/?access_token=" + good, nil, 401, "token_missing", "Bearer realm", ""},
			{"two", "/", []string{"Authorization: Bearer " + good, "Authorization: Bearer " + good}, 401, "token_invalid", `error="invalid_token"`, ""},
			{"two cookies", "/cookie", []string{"Cookie: session=" + good + "; session=x"}, 401, "token_invalid", `error="invalid_token"`, ""},
			{"two spellings", "/header", []string{"X-Token: " + good, "X_Token: x"}, 401, "token_invalid", `error="invalid_token"`, ""},
			{"nonsense", "/", []string{"Authorization: Bearer x.y.z"}, 401, "token_invalid", `error="invalid_token"`, ""},
			{"another issuer", "/", []string{"Authorization: Bearer " + i.token(map[string]any{"iss": "x"})}, 401, "token_invalid", `error_description="it is of another issuer"`, ""},
			{"expired", "/", []string{"Authorization: Bearer " + i.token(map[string]any{"exp": 1})}, 401, "token_expired", `error="invalid_token"`, ""},
			{"another role", "/", []string{"Authorization: Bearer " + i.token(map[string]any{"role": "x"})}, 403, "token_denied", `error="insufficient_scope"`, ""},
			{"a path that evades", "/x/..%2fadmin", []string{"Authorization: Bearer " + good}, 400, "unsafe_path", "", ""},
		} {
			for _, method := range []string{"GET", "POST"} {
				response, body := front.ask(t, method, test.path, strings.Repeat("x", 1000), append(test.fields, forged...)...)
				what := fmt.Sprintf("%s: %s, %s", front.name, test.name, method)
				verify.That(t, response.StatusCode == test.status && response.Header.Get("X-Sluice-Reason") == test.reason,
					"%s: got %d %q, want %d %q: %s", what, response.StatusCode, response.Header.Get("X-Sluice-Reason"), test.status, test.reason, body)
				got := response.Header.Get("WWW-Authenticate")
				if test.status == 200 {
					got = body
					verify.That(t, test.not == "" || !strings.Contains(body, test.not), "%s: the peer got %q in\n%s", what, test.not, body)
				}
				verify.That(t, strings.Contains(got, test.want), "%s: no %q in %q", what, test.want, got)
			}
		}
	}
	p.expectNothingCounted()
}

// A cookie that a server may read as the one of the token counts as a second token, wherever it
// ends for that server. Names and values of others may be in each other.
func TestTokensInCookiesOfOtherServers(t *testing.T) {
	t.Parallel()
	i := startTokenIssuer(t)
	p := startProxyTo(t, false, Options{}, echoRequest)
	p.setActions(i.requires("cookie my_session"))
	token := i.token(nil)
	for _, front := range p.fronts() {
		for fields, want := range map[string]string{
			"my_session=@": "", "a=b; my_session=@; c=d": "", "my_session=\"@\"": "", "a=b;my_session = @": "",
			"my_session2=x; xmy_session=x; my_session=@; mysession=x; my-session=x":             "",
			"next=/a?my_session=x; my_session=@; b=my_session; c=my_session=x":                  "",
			"c=my_session=x; my_session=@; my%session=x; my%5=x; my_sessions=x; a=%6dy_session": "",

			"": "token_missing", "a=my_session": "token_missing", "my_session": "token_missing",

			"a=1, my_session=x; my_session=@":      "token_invalid", // Tomcat
			"a=1,my_session=x; my_session=@":       "token_invalid",
			"my_session=@; a=1 my_session=x":       "token_invalid", // Python
			"a=\"1\"my_session=x; my_session=@":    "token_invalid",
			"my_session=@; \xa0my_session=x":       "token_invalid", // who trims more than blanks
			"my_session\xa0=x; my_session=@":       "token_invalid",
			"my.session=x; my_session=@":           "token_invalid", // PHP
			"my[session=x; my_session=@":           "token_invalid",
			"a=b; my session=x; my_session=@; c=d": "token_invalid",
			"my_session=@; my_session[]=x":         "token_invalid",
			"my_session=@; my[session[a]=x":        "token_invalid",
			"my_session=@; MY_SESSION=x":           "token_invalid", // .NET
			"My_Session=x; my_session=@":           "token_invalid",
			"my_session=@; My.Session=x":           "token_invalid",
			"my%5fsession=x; my_session=@":         "token_invalid", // who decodes names
			"my_session=@; %4dY%5Fsession=x":       "token_invalid",
			"my_session=@; =my_session=x":          "token_invalid", // a cookie without a name
			"=my_session=x;my_session=@":           "token_invalid",
			"MY_SESSION=@":                         "token_missing",
		} {
			r, body := front.ask(t, "GET", "/", "", "Cookie: "+strings.ReplaceAll(fields, "@", token))
			verify.Equal(t, r.Header.Get("X-Sluice-Reason"), want, "%s: %s", front.name, fields)
			verify.Equal(t, strings.Contains(body, "X-User: ada"), want == "", "%s: %s: the peer got %s", front.name, fields, body)
		}
	}
}

// The names of fields for claims, and of the token's place, may have marks themselves: a client's
// field with a hyphen in their place is the same one for some servers.
func TestTokensInFieldsWithMarks(t *testing.T) {
	t.Parallel()
	i := startTokenIssuer(t)
	p := startProxyTo(t, false, Options{Switches: Switches{KeepUnderscores: true}}, echoRequest)
	actions := i.requires("header X_Token")
	actions.JWT.Written = headerEdits(t, nil, nil, []string{"X_User"}...)
	actions.JWT.Headers = []route.ClaimHeader{{Name: "X_User", Claim: auth.NameClaim("sub")}}
	actions.Authorized = actions.JWT.Written
	p.setActions(actions)
	token := i.token(nil)
	for _, front := range p.fronts() {
		for _, forged := range []string{"X-User: not ada", "x-user: not ada", "X_User: not ada", "X.User: not ada"} {
			response, body := front.ask(t, "GET", "/", "", "X_Token: "+token, forged)
			verify.That(t, response.StatusCode == 200 && strings.Contains(body, "X_user: ada\n") && !strings.Contains(body, "not ada"), "%s: %s: got %d\n%s", front.name, forged, response.StatusCode, body)
		}
		response, _ := front.ask(t, "GET", "/", "", "X_Token: "+token, "X-Token: x")
		verify.Equal(t, response.Header.Get("X-Sluice-Reason"), "token_invalid", "%s: a token in each spelling", front.name)
	}
}

// Without keys no request passes, and the client may ask again.
func TestTokensWithoutKeys(t *testing.T) {
	t.Parallel()
	i := startTokenIssuer(t)
	p := startProxyTo(t, false, Options{}, echoRequest)
	token := i.token(nil)
	i.keys = auth.NewKeys(units.NewLocation("http://"+nowhere[0]), locality.ByOperator, auth.SavedKeys{})
	p.setActions(i.requires("bearer"))
	for _, front := range p.fronts() {
		response, _ := front.ask(t, "GET", "/", "", "Authorization: Bearer "+token)
		verify.That(t, response.StatusCode == 503 && response.Header.Get("X-Sluice-Reason") == "keys_unavailable" && response.Header.Get("Retry-After") == "1", "%s: got %d %v", front.name, response.StatusCode, response.Header)
	}
}

// A retry, also after a peer that has had the request, a copy for a mirror and an authentication
// server get what the token says, and not the token if it is removed. TestRandomRotations of
// package auth has what the issuer does meanwhile.
func TestTokensWithRetriesMirrorsAndAuthServers(t *testing.T) {
	t.Parallel()
	eachCase(t, peerProtocols, func(t *testing.T, http2 bool) {
		i := startTokenIssuer(t)
		asked, copied, tried := make(chan string, 1), make(chan string, 1), make(chan string, 2)
		asks := asking(t, func(w http.ResponseWriter, r *http.Request) {
			asked <- fmt.Sprint(r.Header["X-User"], r.Header["Authorization"])
			w.Header().Set("X-Level", "3")
		})
		asks.Copied = []string{"x-level"}
		seen := func(r *http.Request) string {
			io.Copy(io.Discard, r.Body)
			return fmt.Sprint(r.Header["X-User"], r.Header["X-Level"], r.Header["Authorization"])
		}
		var breaks atomic.Bool // the next peer
		peer := func(_ http.ResponseWriter, r *http.Request) {
			if tried <- seen(r); breaks.CompareAndSwap(true, false) {
				panic(http.ErrAbortHandler)
			}
		}
		p := startProxy(t, Options{})
		p.usePeers(http2, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin}, nowhere[0], startServer(t, peer), startServer(t, peer))
		p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 3, BodyBytes: 20 << 10}})
		actions := i.requires("bearer", "Authorization")
		actions.ForwardAuth = asks
		actions.Authorized = actions.Authorized.Then(headerEdits(t, nil, nil, "X-Level"))
		mt := startMirror(t, p, route.Mirror{BodyBytes: 1 << 20}, actions, http2, startServer(t, func(_ http.ResponseWriter, r *http.Request) { copied <- seen(r) }))
		for n, front := range p.fronts() {
			for range 2 { // one of them is tried at a peer that is not there
				breaks.Store(true)
				response, body := front.ask(t, "PUT", "/", "body", "Authorization: Bearer "+i.token(nil), "X-User: eve", "X-Level: 9", "X_User: eve")
				verify.Require(t, response.StatusCode == 200, "%s: got %d %s", front.name, response.StatusCode, body)
				verify.Equal(t, <-asked, "[ada] []", "%s: the authentication server was asked with", front.name)
				verify.Equal(t, <-tried, "[ada] [3] []", "%s: the peer that breaks", front.name)
				verify.Equal(t, <-tried, "[ada] [3] []", "%s: the peer", front.name)
				verify.Equal(t, <-copied, "[ada] [3] []", "%s: the copy", front.name)
			}
			mt.ended(2*n + 2)
		}
	})
}

// A rate limit by a claim counts for each user, after the token is checked.
func TestRateLimitByClaim(t *testing.T) {
	t.Parallel()
	i := startTokenIssuer(t)
	p := startProxyTo(t, false, Options{}, echoRequest)
	actions, name := i.requires("bearer"), auth.NameClaim("sub")
	actions.RateLimit = &route.RateLimit{Limiter: ratelimit.New(1, 24*time.Hour, 2), Claim: &name, Key: route.HashKey{Source: route.HashClaim, Name: "sub"}}
	p.setActions(actions)
	front := p.fronts()[0]
	for _, user := range []string{"ada", "bob"} {
		token := "Authorization: Bearer " + i.token(map[string]any{"sub": user})
		for _, want := range []int{200, 200, 429, 429} {
			front.ask(t, "GET", "/", "", "Authorization: Bearer "+token+"x") // counts for nobody
			response, _ := front.ask(t, "GET", "/", "", token)
			verify.Equal(t, response.StatusCode, want, "%s", user)
		}
	}
}

// A request that has waited, as for the keys of the issuer, takes its token of a rate limit when it
// comes to that: others of the same user, who came later, may have taken theirs.
func TestRateLimitByClaimAfterAWait(t *testing.T) {
	t.Parallel()
	i := startTokenIssuer(t)
	p := startProxy(t, Options{})
	limiter, name := ratelimit.New(10, time.Minute, 10), auth.NameClaim("sub")
	actions := i.requires("bearer")
	actions.RateLimit = &route.RateLimit{Limiter: limiter, Claim: &name, Key: route.HashKey{Source: route.HashClaim, Name: "sub"}}
	verify.Equal(t, limiter.Take([]byte("ada"), time.Now()), 0, "the wait of the later request")
	x := newExchange()
	x.request.open(&client{server: p.Server, listener: new(listener)})
	x.request.end = copy(x.request.in, "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+i.token(nil)+"\r\n\r\n")
	x.request.headLength = verify.Result(x.request.head.Scan(x.request.in[:x.request.end])).Must(t)
	x.route.actions, x.request.startTime = actions, time.Now().Add(-5*time.Minute)
	r := requireToken(x)
	verify.That(t, r == nil, "the earlier request gets %+v", r)
}
