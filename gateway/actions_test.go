package gateway

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/admin"
	"sluice/operator"
	"sluice/test/discoverytest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// Every key of a route reaches the proxy.
func TestActionsOfRoutes(t *testing.T) {
	t.Parallel()
	peer := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "peer")
		fmt.Fprintf(w, "%s %s %s", r.RequestURI, r.Host, r.Header.Get("X-Client"))
	})
	r := start(t, preamble+`
services: { a: { peers: ["`+peer+`"] } }
routes:
- service: a
- path: /api
  service: a
  strip_prefix: /api
  add_prefix: /v1
  host_header: app.internal
  request_headers: { set: { X-Client: "$client_address" } }
  response_headers: { remove: [Server] }
- { path: /peer, service: a, host_header: peer, rewrite: { regexp: "^/(.*)$", to: "/x/$1" } }
- { path: /old, redirect: { to: "https://$host/new", code: 301 } }
- { path: /small, service: a, body_limit: 1 }
- { path: /compressed, service: a, compress: { encodings: [gzip], types: ["text/*"], min_length: 1 } }
`)
	compressed := r.do(r.request(http.MethodGet, r.url("web")+"/compressed", nil, "Accept-Encoding", "br, gzip"))
	verify.Equal(t, compressed.Header.Get("Content-Encoding"), "gzip", "the encoding")
	for target, want := range map[string]string{
		"/":      "/ " + r.Address("web").String() + " ",
		"/api/x": "/v1/x app.internal 127.0.0.1",
		"/peer":  "/x/peer " + peer + " ",
	} {
		r.gets(target, want)
	}
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for target, want := range map[string]string{"/old": "301 https://127.0.0.1/new", "/api": "200 ", "/small": "413 "} {
		answer := r.do(r.request(http.MethodPost, r.url("web")+target, strings.NewReader("xx")))
		got := fmt.Sprint(answer.StatusCode, " ", answer.Header.Get("Location"))
		verify.That(t, got == want && (answer.Header.Get("Server") != "peer" || target != "/api"), "POST %s: got %q, %v, want %q", target, got, answer.Header, want)
	}
}

// A route may lead to what the admin API answers to whoever reads. The route says who may ask, and
// with a token the API does too.
func TestRoutesToTheAdminAPI(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := writeFile(t, dir, "token", []byte("s3cret"))
	star := origin(t, "star")
	routes := `services: { star: { peers: ["` + star + `"] } }
routes:
- { service: star }
- { path: /api, admin_api: read%s }
- { path: /internal, admin_api: read, strip_prefix: /internal, allow: [10.0.0.0/8] }
`
	r := start(t, preamble+fmt.Sprintf(routes, ", allow: [127.0.0.0/8]"))
	answer := func(method, path string, fields ...string) string {
		got := r.do(r.request(method, r.url("web")+path, nil, fields...))
		return fmt.Sprint(got.StatusCode, " ", got.Header.Get("X-Sluice-Reason"), " ", strings.Contains(got.body, star))
	}
	verify.Equal(t, answer(http.MethodGet, "/api/peers?service=star"), "200 admin_api true", "the peers")
	verify.Equal(t, answer(http.MethodPost, "/api/peers/star/"+star+"/drain"), "405 admin_api false", "an order")
	verify.Equal(t, answer(http.MethodGet, "/internal/api/peers"), "403 client_denied false", "a route for others")
	verify.Equal(t, answer(http.MethodGet, "/metrics"), "200  false", "what is no route of it")
	told := fetch[admin.RouteAnswer](r, "/api/route?url="+r.url("web")+"/api/peers")
	verify.That(t, len(told.Ends) == 1 && told.Ends[0].Answer != nil && told.Ends[0].Answer.Reason == "admin_api", "got %+v", told.Ends)

	r = start(t, strings.Replace(preamble, `admin: { `, "admin: { token_file: "+token+", ", 1)+fmt.Sprintf(routes, ", allow: [0.0.0.0/0]"))
	verify.Equal(t, answer(http.MethodGet, "/api/peers"), "401 admin_api false", "without the token")
	verify.Equal(t, answer(http.MethodGet, "/api/peers", "Authorization", "Bearer s3cret"), "200 admin_api true", "with the token")
}

// What instances ask for by sluice's own tags and by Traefik's reaches clients: fixed answers,
// pages of other origins, and for whom a route is by the certificate.
func TestActionsOfTags(t *testing.T) {
	t.Parallel()
	dir, consul := t.TempDir(), discoverytest.Start(t)
	site, a := testcert.Write(t, dir, "a.example"), testcert.NewAuthority(t, "ca.example")
	consul.Set("star", withTags(t, "star", "star-1", origin(t, "star"),
		`sluice.route=h/fixed direct_response.status=418 direct_response.body="a b" direct_response.content_type=text/x direct_response.headers.X.A=$path`,
		"sluice.route=h/own cors.allow_origins=https://a,https://b cors.allow_methods=PUT,GET cors.allow_headers=X-A,X-B cors.expose_headers=X-C,X-D cors.allow_credentials=true cors.max_age=7s",
		"sluice.route=h/some client_certificates=cn=web,cn=api",
		"sluice.route=h/chosen", "sluice.route=h/chosen when.client_certificates=cn=web,cn=api direct_response.status=203",
		"sluice.route=h/not", "sluice.route=h/not when.not.client_certificates=cn=web,cn=api direct_response.status=203",
		"traefik.enable=true", "traefik.http.routers.star.rule=Host(`h`) && PathPrefix(`/traefik`)", "traefik.http.routers.star.middlewares=cors",
		"traefik.http.middlewares.cors.headers.accesscontrolalloworiginlist=https://a,https://b",
		"traefik.http.middlewares.cors.headers.accesscontrolallowmethods=PUT,GET",
		"traefik.http.middlewares.cors.headers.accesscontrolallowheaders=X-A,X-B",
		"traefik.http.middlewares.cors.headers.accesscontrolexposeheaders=X-C,X-D",
		"traefik.http.middlewares.cors.headers.accesscontrolallowcredentials=true",
		"traefik.http.middlewares.cors.headers.accesscontrolmaxage=7",
		"traefik.http.routers.any.rule=Host(`h`) && PathPrefix(`/any`)", "traefik.http.routers.any.middlewares=any",
		"traefik.http.middlewares.any.headers.accesscontrolalloworiginlistregex=[ab]$"))
	r := start(t, fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [sluice, traefik] }\nlisteners:\n", consul.URL())+
		secureListener("web", site, fmt.Sprintf(", client_ca: %q, client_auth: optional", writeFile(t, dir, "ca.pem", a.Root))))
	as := func(name string) {
		files := writeLeaf(t, a, dir, name, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name} })
		r.show(files.Cert, files.Key)
	}
	ask := func(method, path string, fields ...string) reply {
		return r.do(r.request(method, r.secureURL("web")+path, nil, append(fields, "Host", "h")...))
	}
	as("other")
	r.await("the routes are there", func() bool { return ask("GET", "/some").StatusCode == http.StatusForbidden })
	for _, test := range []struct{ who, statuses string }{{"web", "200 203 200"}, {"api", "200 203 200"}, {"other", "403 200 203"}} {
		as(test.who)
		got := fmt.Sprint(ask("GET", "/some").StatusCode, ask("GET", "/chosen").StatusCode, ask("GET", "/not").StatusCode)
		verify.Equal(t, got, test.statuses, "%s: the statuses", test.who)
	}
	fixed := ask("POST", "/fixed/x")
	verify.That(t, fixed.StatusCode == 418 && fixed.body == "a b" && fixed.Header.Get("Content-Type") == "text/x" && fixed.Header.Get("X.A") == "/fixed/x", "a fixed answer: %+v", fixed)
	of := func(got reply) string {
		text := fmt.Sprint(got.StatusCode)
		for _, name := range []string{"Origin", "Credentials", "Methods", "Headers"} {
			text += " " + got.Header.Get("Access-Control-Allow-"+name)
		}
		return text + " " + got.Header.Get("Access-Control-Max-Age") + " " + got.Header.Get("Access-Control-Expose-Headers")
	}
	for path, want := range map[string][2]string{
		"/own":     {"204 https://b true PUT, GET X-A, X-B 7 X-C, X-D", "200 https://b true    X-C, X-D"},
		"/traefik": {"204 https://b true PUT, GET X-A, X-B 7 X-C, X-D", "200 https://b true    X-C, X-D"},
		"/any":     {"204 https://b  GET, HEAD, POST  5 ", "200 https://b     "},
	} {
		verify.Equal(t, of(ask("OPTIONS", path, "Origin", "https://b", "Access-Control-Request-Method", "PUT")), want[0], "%s: the answer to a preflight", path)
		verify.Equal(t, of(ask("GET", path, "Origin", "https://b")), want[1], "%s: the answer", path)
		verify.Equal(t, of(ask("GET", path, "Origin", "https://c")), "200      ", "%s: the answer to another origin", path)
	}
}

// The tokens of a rate limit outlive a reload, unless the limit or what it is for changes.
func TestRateLimitsOutliveReloads(t *testing.T) {
	t.Parallel()
	peer := origin(t, "a")
	text := func(limit, path, others string) string {
		return preamble + "services: { a: { peers: ['" + peer + "'] } }\nroutes: [{ path: " + path + ", service: a, rate_limit: " + limit + " }" + others + "]\n"
	}
	const daily = "{ rate: 1, per: 24h, burst: 2, key: route }"
	r := start(t, text(daily, "/x", ""))
	expect := func(what string, want ...int) {
		t.Helper()
		for _, status := range want {
			r.refuses("/x", status, what)
		}
	}
	expect("at first", 200, 200, 429)
	r.replace(text(daily, "/x", ", { path: /y, service: a, add_prefix: /z }"))
	expect("another route is new", 429)
	r.write(text(daily[:len(daily)-2]+", per: 24h }", "/x", ""))
	r.awaitLog("given twice")
	expect("a refused file", 429)
	r.replace(text("{ rate: 1, per: 24h, burst: 1, key: route }", "/x", ""))
	expect("another burst", 200, 429)
	r.replace(text("{ rate: 1, per: 24h, burst: 1, key: route }", "/", ""))
	expect("another path", 200, 429)
}

// A changed file of users is used without a reload. One with an error is not. A new process
// verifies no password again: with many users of a slow hash that takes minutes.
func TestUsersOfRoutes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users")
	write := func(text string) { t.Helper(); replaceFile(t, file, text) }
	const secret = ":{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n" // its hash
	write("ann" + secret)
	action := ", basic_auth: { users_file: " + file + " } }"
	text := preamble + "services: { a: { peers: ['" + origin(t, "a") + "'] } }\nroutes: [{ service: a, path: /one" + action + ", { service: a, path: /two" + action + "]\n"
	r := start(t, text, func(g *Gateway) { g.waits.certificates = 10 * time.Millisecond })
	// statusFor returns the status for a user on both routes; 0: they differ.
	statusFor := func(name string) int {
		var both [2]int
		for i, path := range []string{"/one", "/two"} {
			request := r.request("GET", r.url("web")+path, nil)
			request.SetBasicAuth(name, "secret")
			both[i] = r.do(request).StatusCode
		}
		if both[0] != both[1] {
			return 0
		}
		return both[0]
	}
	ann, bob := statusFor("ann"), statusFor("bob")
	verify.That(t, ann == 200 && bob == 401, "status %d for ann, %d for bob", ann, bob)
	write("bob" + secret)
	r.await("the new user is known", func() bool { return statusFor("bob") == 200 })
	verify.Equal(t, statusFor("ann"), 401, "status for a removed user")
	write("ann:secret")
	r.awaitLog("file of users cannot be used")
	verify.Equal(t, statusFor("bob"), 200, "status after a fault")
	write("bob" + secret)
	verified := ""
	for _, users := range r.upgrade(text, nil).routes.Load().Save().Users {
		for _, user := range users.Verified {
			verified += user.Name
		}
	}
	verify.Equal(t, verified, "bob", "verified in the new process")
}

// A changed page is shown without a reload, and a missing one stays; an order of maintenance
// outlives a reload.
func TestAnswersOfRoutes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "503.html")
	replaceFile(t, file, "one")
	peer := origin(t, "a")
	text := func(path string) string {
		return preamble + "client: { error_pages: [{ status: 4xx, file: " + file + " }] }\nservices: { a: { peers: ['" + peer + "'] } }\n" +
			"routes: [{ service: a, path: " + path + ", error_pages: [{ status: '503', file: " + file + " }] }, { path: /fixed, direct_response: { status: 418, file: " + file + " } }]\n"
	}
	r := start(t, text("/x"), func(g *Gateway) { g.waits.certificates = 10 * time.Millisecond })
	answer := func(path string) string {
		got := r.do(r.request("GET", r.url("web")+path, nil))
		return fmt.Sprintf("%d %s %s", got.StatusCode, got.Header.Get("X-Sluice-Reason"), got.body)
	}
	verify.Equal(t, answer("/none"), "404 no_route one", "without a route")
	verify.Equal(t, answer("/fixed"), "418 direct_response one", "a fixed answer")
	verify.NoError(t, r.orders.Give(operator.Order{Kind: operator.Maintenance, Service: "a"}))
	verify.Equal(t, answer("/x"), "503 maintenance one", "in maintenance")
	replaceFile(t, file, "two")
	for path, want := range map[string]string{"/none": "404 no_route two", "/fixed": "418 direct_response two", "/x": "503 maintenance two"} {
		r.await("the new page is shown at "+path, func() bool { return answer(path) == want })
	}
	verify.Succeeds(t, os.Remove(file))
	r.awaitLog("the file of a page cannot be used")
	verify.Equal(t, answer("/x"), "503 maintenance two", "after a fault")
	r.write(text("/y"))
	r.awaitLog("configuration refused")
	verify.Equal(t, answer("/x"), "503 maintenance two", "after a refused configuration")
	replaceFile(t, file, "three")
	r.replace(text("/y"))
	verify.Equal(t, answer("/y"), "503 maintenance three", "after a reload")
	verify.Result(r.orders.Store.End("services/a/maintenance", "")).Must(t)
	verify.That(t, strings.HasPrefix(answer("/y"), "200 "), "after the maintenance: %s", answer("/y"))
}
