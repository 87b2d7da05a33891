package admin

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/admin/fleet"
	"sluice/config"
	"sluice/consul/registration"
	"sluice/consul/sharedkeys"
	"sluice/observe/events"
	"sluice/operator"
	"sluice/release"
	"sluice/test/openapitest"
	"sluice/test/verify"
)

// document returns openapi.yaml as it is served.
func document(t testing.TB) *openapitest.Document {
	t.Helper()
	d, err := parsedDocument()
	verify.Require(t, err == nil, "openapi.yaml: %v", err)
	return d
}

var parsedDocument = sync.OnceValues(func() (*openapitest.Document, error) {
	request, _ := http.NewRequest(http.MethodGet, "http://127.0.0.1/api/openapi.json", nil)
	w := answerOf(New(complete(Options{Process: Process{Version: "v1.2.3"}})), request)
	return openapitest.Parse(w.Body.Bytes())
})

// checkAnswer checks an answer against openapi.yaml.
func checkAnswer(t testing.TB, method, path string, status int, header http.Header, body []byte) {
	t.Helper()
	target := verify.Result(url.Parse(path)).Must(t)
	verify.Succeeds(t, document(t).Check(openapitest.Answer{Method: method, URL: target, Status: status, Header: header, Body: body}))
}

// goTypes has the Go type of the body of each operation that answers with JSON.
var goTypes = map[string]any{
	"GET /healthz":                                  Health{},
	"GET /readyz":                                   Readiness{},
	"GET /api":                                      []Peer{},
	"GET /api/peers":                                []Peer{},
	"POST /api/peers/{service}/{id}/drain":          Operated{},
	"POST /api/peers/{service}/{id}/enable":         Operated{},
	"POST /api/peers/{service}/{id}/weight":         Operated{},
	"POST /api/peers/{service}/{id}/weight/release": Operated{},
	"POST /api/services/{service}/maintenance/on":   OperatedService{},
	"POST /api/services/{service}/maintenance/off":  OperatedService{},
	"POST /api/nodes/{node}/drain":                  OperatedNode{},
	"POST /api/nodes/{node}/enable":                 OperatedNode{},
	"GET /api/orders":                               Orders{},
	"GET /api/ready":                                Readiness{},
	"POST /api/ready/off":                           Readiness{},
	"POST /api/ready/on":                            Readiness{},
	"GET /api/log":                                  operator.LogLevel{},
	"POST /api/log/{level}":                         operator.LogLevel{},
	"GET /api/services":                             []Service{},
	"GET /api/events":                               []events.Event{},
	"GET /api/series":                               SeriesAnswer{},
	"GET /api/routes":                               []Route{},
	"GET /api/route":                                RouteAnswer{},
	"POST /api/route/against":                       Foresight{},
	"GET /api/tags":                                 []TagProblem{},
	"GET /api/mesh":                                 Mesh{},
	"GET /api/keys":                                 []KeySet{},
	"GET /api/shares":                               []release.State{},
	"POST /api/shares/{service}":                    []release.State{},
	"POST /api/shares/{service}/pause":              []release.State{},
	"POST /api/shares/{service}/resume":             []release.State{},
	"POST /api/shares/{service}/release":            []release.State{},
	"GET /api/config":                               AppliedConfig{},
	"GET /api/config/values":                        []Value{},
	"GET /api/config/history":                       []Revision{},
	"GET /api/config/history/{number}":              RevisionConfig{},
	"GET /api/config/diff/{from}/{to}":              []config.Change{},
	"POST /api/config/rollback":                     Revision{},
	"GET /api/certificates":                         []Certificate{},
	"GET /api/catalog":                              Catalog{},
	"GET /api/replicas":                             Replicas{},
	"GET /api/replica":                              fleet.Replica{},
	"GET /api/limits":                               fleet.LimitsReport{},
	"GET /api/limits/counts":                        fleet.Counts{},
	"GET /consul":                                   []Comparison{},
	"GET /consul/{service}":                         Comparison{},
	"GET /api/openapi.json":                         map[string]any{},
}

// The schemas of openapi.yaml have the members of the Go types that are encoded, also those that
// no answer of a test has.
func TestOpenAPIHasEveryMember(t *testing.T) {
	d := document(t)
	types := openapitest.Types{Document: d, Names: map[reflect.Type]string{
		reflect.TypeFor[operator.Listed]():     "ListedOrder",
		reflect.TypeFor[release.State]():       "SplitState",
		reflect.TypeFor[release.Share]():       "GivenShare",
		reflect.TypeFor[sharedkeys.Invalid]():  "InvalidOrder",
		reflect.TypeFor[fleet.Group]():         "ReplicaGroup",
		reflect.TypeFor[fleet.LimitsReport]():  "Limits",
		reflect.TypeFor[registration.Status](): "Registration",
	}}
	for _, o := range d.Operations() {
		v, ok := goTypes[o.String()]
		if ok != o.HasJSON() {
			t.Errorf("%s: openapi.yaml has a JSON schema of its status 200: %t, goTypes above has its type: %t", o, o.HasJSON(), ok)
			continue
		}
		if ok {
			for _, difference := range types.Compare(o, v) {
				t.Error(difference)
			}
		}
	}
}

// Every path of the handler is in openapi.yaml with its method and token, and the reverse.
func TestOpenAPIHasEveryEndpoint(t *testing.T) {
	const token, look = "s3cret", "scraper"
	d := document(t)
	mux := http.NewServeMux()
	missing := make(map[string]bool)
	for path, f := range endpoints(complete(Options{Tokens: func() Tokens { return Tokens{Operate: token, Look: look} }})) {
		mux.Handle(path, f)
		missing[path] = true
	}
	for _, o := range d.Operations() {
		path := regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(o.Path, "1")
		request := verify.Result(http.NewRequest(o.Method, "http://127.0.0.1:8081"+path, nil)).Must(t)
		_, pattern := mux.Handler(request)
		if pattern == "" {
			t.Errorf("openapi.yaml has %s, which handler.go does not", o)
			continue
		}
		delete(missing, pattern)

		// Without the token, no handler does anything.
		w := answerOf(mux, request)
		verify.That(t, w.Code != http.StatusMethodNotAllowed && (w.Code == http.StatusUnauthorized) == o.Guarded, "%s: openapi.yaml says that it needs a token: %t; without one the answer is %d %s", o, o.Guarded, w.Code, w.Body)
		looking := request.Clone(t.Context())
		looking.Header.Set("Authorization", "Bearer "+look)
		w = answerOf(mux, looking)
		refused := strings.Contains(w.Header().Get("WWW-Authenticate"), "insufficient_scope")
		verify.That(t, refused == o.Operates,
			"%s: openapi.yaml says that it needs the token for orders: %t; with the other the answer is %d %s",
			o, o.Operates, w.Code, w.Body)
		other := map[string]string{http.MethodGet: http.MethodPost, http.MethodPost: http.MethodGet}[o.Method]
		request.Method = other
		documented := slices.ContainsFunc(d.Operations(), func(p *openapitest.Operation) bool { return p.Path == o.Path && p.Method == other })
		w = answerOf(mux, request)
		verify.That(t, (w.Code != http.StatusMethodNotAllowed) == documented,
			"%s %s: openapi.yaml has it: %t; the answer is %d %s",
			other, o.Path, documented, w.Code, w.Body)
	}
	for path := range missing {
		t.Errorf("handler.go has the path %s, openapi.yaml has not: add it, its schemas, and its type to goTypes", path)
	}
}

// Every parameter that a handler reads from the query is in openapi.yaml, and the reverse.
func TestOpenAPIHasEveryParameter(t *testing.T) {
	files := verify.Result(filepath.Glob("*.go")).Must(t)
	read := make(map[string]bool)
	for _, file := range files {
		text := verify.Result(os.ReadFile(file)).Must(t)
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, found := range regexp.MustCompile(`(?:Query\(\)|\bquery|\bvalues)(?:\.Get\(|\[)"([^"]+)"`).FindAllSubmatch(text, -1) {
			read[string(found[1])] = true
		}
	}
	documented := document(t).QueryParameters("/debug/pprof/") // those are read by net/http/pprof
	for name := range read {
		verify.That(t, slices.Contains(documented, name), "a handler reads the parameter %q, which openapi.yaml does not have", name)
	}
	for _, name := range documented {
		verify.That(t, read[name], "openapi.yaml has the parameter %q, which no handler reads", name)
	}
}

func TestOpenAPIHasEveryKindOfEvent(t *testing.T) {
	var want []string
	for _, kind := range events.Kinds() {
		want = append(want, string(kind))
	}
	got := document(t).Values("Event", "kind")
	verify.That(t, slices.Equal(got, want), "openapi.yaml has the kinds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
}

func TestOpenAPINamesTheVersion(t *testing.T) {
	for _, version := range []string{"v1.2.3", "v1.2.4"} {
		served := getJSON[struct{ Info struct{ Version string } }](t, handlerOf(Options{Process: Process{Version: version}}), "/api/openapi.json")
		verify.Equal(t, served.Info.Version, version, "the version")
	}
}

// docs/http-api.md lists the endpoints of openapi.yaml. What members and parameters mean is in
// openapi.yaml alone: a document without it is not valid.
func TestOpenAPIAgreesWithTheManual(t *testing.T) {
	text := verify.Result(os.ReadFile("../docs/http-api.md")).Must(t)
	manual := string(text)
	_, table, _ := strings.Cut(manual, "| path | answer |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	listed := make(map[string]bool)
	for row := range strings.Lines(table) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " |")
		method, last := "GET", ""
		for _, code := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
			path := code[1]
			if order, ok := strings.CutPrefix(path, "POST "); ok {
				method, path = "POST", order
			}
			if end, ok := strings.CutPrefix(path, "…"); ok { // in place of the last word, or after a parameter
				if !strings.HasSuffix(last, "}") {
					last = last[:strings.LastIndex(last, "/")]
				}
				path = last + end
			}
			last = path
			listed[method+" "+path] = true
		}
	}
	d := document(t)
	for _, o := range d.Operations() {
		verify.That(t, listed[o.String()] || strings.HasPrefix(o.Path, "/debug/pprof/"), "the table of docs/http-api.md lacks %s", o)
		delete(listed, o.String())
	}
	for name := range listed {
		t.Errorf("the table of docs/http-api.md has %s, openapi.yaml has not", name)
	}
}
