package gateway

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/admin"
	"sluice/proxy"
	"sluice/test/configtest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// What /api/route tells is what the real request gets, whatever the configuration and the request
// are.
func TestTheToldEndIsTheReal(t *testing.T) {
	t.Parallel()
	seed := verify.Seed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	maybe := func(percent int) bool { return random.IntN(100) < percent }
	dir := t.TempDir()
	site, users := testcert.Write(t, dir, "a.example"), writeFile(t, dir, "users", []byte("ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"))
	listeners := strings.Replace(preamble, "listeners: [{ name: web, address: \"127.0.0.1:0\" }]", `listeners:
  - { name: web, address: "127.0.0.1:0" }
  - { name: internal, address: "127.0.0.1:0" }
  - { name: redirecting, address: "127.0.0.1:0", redirect_https: { port: 8443 } }
`+secureListener("secure", site, ""), 1)
	names := []string{"a", "b", "c", "d"}
	services := "client: { trusted_proxies: [127.0.0.2/32] }\nservices:\n"
	for _, name := range names {
		services += fmt.Sprintf("  %s: { peers: [%q], groups: { one: { tags: [x] } } }\n", name, origin(t, name))
	}
	var configuration func() string
	configuration = func() string {
		text := listeners + services + "routes:\n"
		for i := range 8 {
			part := func() string {
				keys := ""
				add := func(percent int, key string) {
					if maybe(percent) {
						keys += ", " + key
					}
				}
				add(20, "allow: ["+[]string{"127.0.0.0/8", "10.0.0.0/8"}[random.IntN(2)]+"]")
				add(10, "deny: [127.0.0.1/32]")
				add(20, "basic_auth: { users_file: "+users+" }")
				add(20, "strip_prefix: /p")
				add(10, "cors: { allow_origins: ['https://a'] }")
				return keys
			}
			what := "service: " + names[random.IntN(len(names))]
			switch random.IntN(8) {
			case 0:
				what = "redirect: { to: 'https://new.example$path' }"
			case 1:
				what = "direct_response: { status: 503, body: fixed }"
			case 2:
				what += ", group: one"
			case 3:
				what = "services: { a: 30%, b: 70%, key: header X-User }"
			}
			text += fmt.Sprintf("  - { path: /p/%d, %s%s }\n", i, what, part())
			if maybe(50) {
				condition := []string{"listeners: [internal]", "when: { scheme: https }", "when: { client: [10.0.0.0/8] }", "methods: [POST, OPTIONS]", "when: { header: { X-User: x } }"}
				text += fmt.Sprintf("  - { path: /p/%d, service: %s, %s%s }\n", i, names[random.IntN(len(names))], condition[random.IntN(len(condition))], part())
			}
		}
		if _, err := configtest.Build(text); err != nil {
			return configuration() // what this one asks for together is not allowed
		}
		return text
	}
	r := start(t, configuration())
	r.show("", "")
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ends, compared := make(map[string]int), 0
	for round := range 8 {
		if round > 0 {
			next := configuration()
			foreseen := verify.Result(r.foresee(t.Context(), "", next)).Must(t)
			r.replace(next)
			for _, request := range r.proxy.Recent(time.Time{}) {
				q := proxy.Question{Head: request.Head, Client: request.Client, Listener: proxy.ListenerOptions{Name: request.Listener}}
				was, is := endsOfQuestion(foreseen.Explain(q)), endsOfQuestion(r.proxy.Explain(q))
				verify.Equal(t, was, is, "seed %d, round %d: what was foreseen of %q", seed, round, request.Head)
				compared++
			}
		}
		for i, name := range names {
			if i == 0 {
				continue // one service always serves
			}
			path := "/api/services/" + name + "/maintenance/off"
			if maybe(30) {
				path = "/api/services/" + name + "/maintenance/on?except=" + []string{"127.0.0.0/8", "10.0.0.0/8"}[random.IntN(2)]
			}
			r.askAdmin(http.MethodPost, path)
		}
		for range 40 {
			listener := []string{"web", "internal", "redirecting", "secure"}[random.IntN(4)]
			at := r.url(listener)
			if listener == "secure" {
				at = r.secureURL(listener)
			}
			at += fmt.Sprintf("/p/%d%s", random.IntN(10), []string{"", "/x", "/../y", "?a=b"}[random.IntN(4)])
			method := []string{"GET", "POST", "OPTIONS"}[random.IntN(3)]
			fields := []string{"Host", "h.example"}
			with := func(percent int, more ...string) bool {
				chosen := maybe(percent)
				if chosen {
					fields = append(fields, more...)
				}
				return chosen
			}
			user := with(60, "X-User", []string{"x", "y", "z"}[random.IntN(3)])
			password := with(50, "Authorization", "Basic YW5uOnNlY3JldA==")
			with(20, "Origin", "https://a", "Access-Control-Request-Method", "PUT")
			query := url.Values{"url": {at}, "method": {method}, "client": {"127.0.0.1"}}
			for i := 0; i < len(fields); i += 2 {
				query.Add("header", fields[i]+": "+fields[i+1])
			}
			told := fetch[admin.RouteAnswer](r, "/api/route?"+query.Encode())
			real := r.do(r.request(method, at, nil, fields...))

			got := fmt.Sprint(real.StatusCode, " ", real.Header.Get("X-Sluice-Reason"), " ", real.Header.Get("Location"))
			if real.Header.Get("X-Sluice-Reason") == "" {
				got = "service " + real.body
			}
			var want []string
			for _, e := range told.Ends {
				end := "service " + e.Service
				if e.Answer != nil {
					end = fmt.Sprint(e.Answer.Status, " ", e.Answer.Reason, " ", e.Answer.Location)
				}
				// All that is open are the credentials, which the test knows.
				if len(e.Depends) == 1 && e.Depends[0].Reason == "unauthorized" && !password {
					end = "401 unauthorized "
				}
				want = append(want, end)
				verify.That(t, len(e.Depends) <= 1 && (e.Answer == nil) == (len(e.Peers) > 0), "seed %d: %s: end %+v", seed, at, e)
			}
			verify.That(t, slices.Contains(want, got) && told.Listener == listener, "seed %d: %s %s %q: told %q at %s, got %q\n%s", seed, method, at, fields, want, told.Listener, got, r.history.Current().Source)
			verify.That(t, len(want) == 1 || !user, "seed %d: %s %q: chance decides: %q", seed, at, fields, want)
			kind, _, _ := strings.Cut(strings.TrimPrefix(got[strings.Index(got, " ")+1:], "service "), " ")
			ends[kind]++
		}
	}
	t.Log("ends:", ends, "foreseen:", compared)
	verify.That(t, compared >= 50, "seed %d: %d ends were foreseen", seed, compared)
	verify.That(t, len(ends) >= 8, "seed %d: few kinds of ends: %v", seed, ends) // of 11 to 13
}

// endsOfQuestion returns what becomes of a request, as a text.
func endsOfQuestion(x proxy.Explanation) (text string) {
	for _, e := range x.Ends {
		text += fmt.Sprintf("%.2f %s %s %s", e.Share, e.Service, e.Group, e.Target)
		if e.Answer != nil {
			text += fmt.Sprint(" ", *e.Answer)
		}
		text += fmt.Sprintln(" ", e.Depends)
	}
	return text
}
