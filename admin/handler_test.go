package admin

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"sluice/observe/events"
	"sluice/test/verify"
)

// everyPath contains the paths, and whether they need a token.
var everyPath = map[string]bool{
	"/": false, "/healthz": false, "/readyz": false, "/docs/tags.md": false,
	"/api": true, "/api/peers": true, "/api/services": true, "/api/routes": true, "/api/route": true, "/api/tags": true,
	"/api/series": true, "/api/config": true, "/api/config/values": true, "/api/config/history": true, "/api/config/history/1": true, "/api/config/diff/1/1": true,
	"/consul": true, "/consul/star": true, "/metrics": true,
	"/api/certificates": true, "/api/catalog": true, "/api/replica": true, "/api/replicas": true, "/api/limits": true, "/api/limits/counts": true,
	"/debug/pprof/": true, "/debug/pprof/heap": true, "/debug/pprof/cmdline": true, "/debug/pprof/goroutine?debug=1": true,
}

// Without a token, a page of another site can neither read the API through a browser on this
// machine nor cause work.
func TestOtherSitesGetNothingWithoutAToken(t *testing.T) {
	const linkElsewhere = "a link on another site"
	token := ""
	h := handlerOf(Options{Tokens: func() Tokens { return Tokens{Operate: token} }, Documents: documents{history(t, firstConfig)}})
	for path, guarded := range everyPath {
		for _, test := range []struct {
			what, url string
			header    []string
			refused   bool
		}{
			{"a name that its owner has made lead here", "http://evil.example:8081", nil, true},
			{"such a name, from its own page", "http://evil.example:8081", []string{"Sec-Fetch-Site", "same-origin"}, true},
			{"a name that begins like an address", "http://127.0.0.1.evil.example", nil, true},
			{"a script of another site", "http://127.0.0.1:8081", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}, true},
			{"a frame of another site", "http://127.0.0.1:8081", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, true},
			{"a page at another port", "http://localhost:8081", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, true},
			{linkElsewhere, "http://127.0.0.1:8081", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, false},
			{"a script of another site in an old browser", "http://127.0.0.1:8081", []string{"Origin", "https://evil.example"}, true},
			{"the page in an old browser", "http://127.0.0.1:8081", []string{"Origin", "http://127.0.0.1:8081"}, false},
			{"the page", "http://localhost:8081", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, false},
			{"typed in", "http://[::1]:8081", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, false},
			{"no browser", "http://127.0.0.1:8081", nil, false},
		} {
			token = ""
			status, body := get(t, h, test.url+path, test.header...)
			// A link must not start a profile.
			refused := test.refused || test.what == linkElsewhere && strings.HasPrefix(path, "/debug/pprof/")
			verify.Equal(t, status == http.StatusForbidden, (guarded && refused), "%s, %s: got %d %.200s", path, test.what, status, body)
			token = "s3cret" // authenticates
			status, body = get(t, h, test.url+path, append(test.header, "Authorization", "Bearer s3cret")...)
			verify.That(t, status != http.StatusForbidden, "%s, %s, with the token: got %d %.200s", path, test.what, status, body)
		}
	}
}

func TestHandlerWithEmptyViews(t *testing.T) {
	h := handlerOf(Options{})
	for _, path := range []string{"/api", "/api/peers", "/api/services", "/api/routes", "/api/tags", "/api/config/history", "/consul"} {
		status, body := get(t, h, path)
		verify.That(t, status == http.StatusOK && body == "[]\n", "%s: got %d %q", path, status, body)
	}
	for path, text := range map[string]string{
		"/": "", "/healthz": "", "/readyz": "", "/api/config": "", "/api/config?brief=true": "", "/docs/tags.md": "", "/metrics": "",
		"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine",
	} {
		status, body := get(t, h, path)
		verify.That(t, status == http.StatusOK && strings.Contains(body, text), "%s: got %d %q", path, status, body)
	}
}

func TestErrorsAreJSON(t *testing.T) {
	h := handlerOf(Options{})
	for _, test := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/nope", 404, "no such path: /nope"},
		{"GET", "/api/peers/", 404, "no such path: /api/peers/"},
		{"POST", "/nope", 404, "no such path: /nope"},
		{"POST", "/api/peers", 405, "method POST is not allowed here"},
		{"DELETE", "/", 405, "method DELETE is not allowed here"},
		{"GET", "/api/peers?service=x", 404, `no service "x"`},
		{"GET", "/api/services?service=x", 404, `no service "x"`},
		{"GET", "/docs/docs.go", 404, "no page docs.go"},
		{"GET", "/docs/..%2fREADME.md", 404, "no page ../README.md"},
		{"GET", "/api/config/history/7", 404, `no revision "7"`},
		{"GET", "/api/config/history/x", 404, `no revision "x"`},
		{"GET", "/consul/x", 404, `service "x": the service does not come from Consul`},
	} {
		status, body := ask(t, h, test.method, test.path)
		got := errorOf(t, body)
		verify.That(t, status == test.status && got == test.want, "%s %s: got %d %q, want %d %q", test.method, test.path, status, got, test.status, test.want)
	}
}

func TestHeadersOfAnswers(t *testing.T) {
	h := handlerOf(Options{})
	for _, test := range []struct{ method, path, header, want string }{
		{"GET", "/api/peers", "Content-Type", "application/json"},
		{"GET", "/api/peers", "Cache-Control", "no-store"},
		{"GET", "/nope", "Content-Type", "application/json"},
		{"GET", "/nope", "X-Content-Type-Options", "nosniff"},
		{"PUT", "/api/peers", "Allow", "GET, HEAD"},
		{"GET", "/", "Content-Type", "text/html; charset=utf-8"},
		{"HEAD", "/api/peers", "Content-Type", "application/json"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
		verify.Equal(t, w.Header().Get(test.header), test.want, "%s %s: %s", test.method, test.path, test.header)
	}
}

func TestTokenGuardsAllButHealthAndThePage(t *testing.T) {
	token := "s3cret"
	h := handlerOf(Options{Tokens: func() Tokens { return Tokens{Operate: token} }})
	for path, guarded := range everyPath {
		for _, test := range []struct {
			header string
			passes bool
		}{
			{"", false},
			{"Bearer s3cret", true},
			{"bearer  s3cret", true}, // the scheme's case does not matter (RFC 9110, section 11.1)
			{"Bearer s3cret2", false},
			{"Bearer s3cre", false},
			{"Bearer", false},
			{"Bearer ", false}, // no text is the token of a file that is not configured
			{"Bearer  ", false},
			{"Basic s3cret", false},
			{"s3cret", false},
		} {
			status, body := get(t, h, path, "Authorization", test.header)
			verify.Equal(t, status == http.StatusUnauthorized, (guarded && !test.passes), "%s with %q: got %d %s", path, test.header, status, body)
		}
	}

	token = "other"
	status, _ := get(t, h, "/api", "Authorization", "Bearer s3cret")
	verify.That(t, status == http.StatusUnauthorized, "the old token still passes: %d", status)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/api", nil))
	got := w.Header().Get("WWW-Authenticate")
	verify.That(t, strings.HasPrefix(got, "Bearer "), "WWW-Authenticate is %q", got)
}

func TestReadiness(t *testing.T) {
	ready, missing := false, []string{`service "star": no answer from Consul yet`}
	h := handlerOf(Options{Process: Process{Ready: func() (bool, []string) { return ready, missing }}})
	status, body := get(t, h, "/readyz")
	got := decode[Readiness](t, body)
	verify.That(t, status == http.StatusServiceUnavailable && !got.Ready && slices.Equal(got.Missing, missing), "not ready: got %d %s", status, body)
	status, body = get(t, h, "/healthz")
	verify.That(t, status == http.StatusOK && decode[Health](t, body).Status == "ok", "healthz while not ready: got %d %s", status, body)
	ready = true
	status, body = get(t, h, "/readyz")
	got = decode[Readiness](t, body)
	verify.That(t, status == http.StatusOK && got.Ready && slices.Equal(got.Missing, missing), "ready in spite of what is missing: got %d %s", status, body)
}

// Only who may look learns the names of services and files.
func TestReadinessNamesNothingToStrangers(t *testing.T) {
	process := Process{Ready: func() (bool, []string) { return false, []string{`service "star": no answer from Consul yet`} }}
	open := handlerOf(Options{Process: process})
	for url, want := range map[string]bool{"http://evil.example:8081/readyz": false, "http://127.0.0.1:8081/readyz": true} {
		status, body := get(t, open, url)
		got := decode[Readiness](t, body)
		verify.That(t, status == http.StatusServiceUnavailable && (len(got.Missing) > 0) == want && got.Missing != nil, "%s without a token: got %d %s", url, status, body)
	}
	h := handlerOf(Options{Tokens: func() Tokens { return Tokens{Operate: "s3cret", Look: "scraper"} }, Process: process})
	for token, want := range map[string]bool{"": false, "wrong": false, "scraper": true, "s3cret": true} {
		status, body := get(t, h, "/readyz", "Authorization", "Bearer "+token)
		got := decode[Readiness](t, body)
		verify.That(t, status == http.StatusServiceUnavailable && !got.Ready && (len(got.Missing) > 0) == want && got.Missing != nil && got.Restored != nil, "token %q: got %d %s", token, status, body)
	}
}

// Routes may lead to what only reads, below /api and /consul. Without a token they alone say who
// may ask: by any host name, from any page.
func TestReader(t *testing.T) {
	token := ""
	feed := events.New()
	feed.Add(events.Event{Kind: events.KindPanicked, Text: "something"})
	h := NewReader(complete(Options{Events: feed, Tokens: func() Tokens { return Tokens{Operate: token} }, Documents: documents{history(t, firstConfig)}}))
	request := func(method, path string, header ...string) (int, string) {
		r := httptest.NewRequest(method, "http://shop.example"+path, nil)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := answerOf(h, r)
		return w.Code, w.Body.String()
	}
	_, all := ask(t, handlerOf(Options{Documents: documents{history(t, firstConfig)}}), http.MethodGet, "/api/peers")
	for path, guarded := range everyPath {
		token = ""
		status, body := request(http.MethodGet, path)
		there := path == "/api" || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/consul")
		verify.Equal(t, strings.Contains(body, "no such path"), !there, "%s: %d %.200s", path, status, body)
		verify.That(t, !there || status != http.StatusForbidden && guarded, "%s: %d %.200s", path, status, body)
		token = "s3cret"
		status, body = request(http.MethodGet, path)
		verify.Equal(t, status == http.StatusUnauthorized, there, "%s, without the token: %d %.200s", path, status, body)
	}
	token = ""
	status, body := request(http.MethodGet, "/api/peers")
	verify.That(t, status == http.StatusOK && body == all, "got %d %s, want %s", status, body, all)
	for _, path := range []string{"/api/peers/star/1/drain", "/api/config/rollback", "/api/log/debug", "/api/peers"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
			status, body := request(method, path)
			verify.Equal(t, status, http.StatusMethodNotAllowed, "%s %s: %s", method, path, body)
		}
	}
	for _, accept := range []string{"", "text/event-stream"} { // a stream would never end
		status, body = request(http.MethodGet, "/api/events?format=sse", "Accept", accept)
		verify.That(t, status == http.StatusOK && strings.HasPrefix(body, "["), "events: %d %s", status, body)
	}
}
