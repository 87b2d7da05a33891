package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	neturl "net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/config"
	"sluice/config/live"
	"sluice/observe/panics"
	"sluice/proxy"
	"sluice/route"
	"sluice/test/configtest"
	"sluice/test/verify"
)

const (
	firstConfig  = "consul: { token: s3cret-value }\nservices: { star: { consul: {} } }\nroutes: [ { path: /, service: star } ]\n"
	secondConfig = "consul: { token: s3cret-value }\nservices: { star: { peers: ['127.0.0.1:19001'] } }\nroutes: [ { path: /api, service: star } ]\n"
)

func TestRoutesInTheOrderTheyAreTried(t *testing.T) {
	star, origin := &route.Service{Name: "star"}, &route.Service{Name: "origin"}
	table := verify.Result(route.NewTable([]route.Route{
		{Path: "/", Service: origin, Origin: "a.yaml:1"},
		{Host: "*.Example.com", Path: "/", Service: star, Priority: 3, Class: route.ClassTag},
		{Path: "/api/", Service: star, Conditions: route.Conditions{Methods: []string{"PUT", "GET"}}, Listeners: []string{"web"}},
		{HostRegexp: "^a", Path: "^/b$", PathMatch: route.PathRegexp, Service: star, Class: route.ClassTraefik, Priority: 7},
	})).Must(t)
	h := handlerOf(Options{Routes: Routes{Table: func() *route.Table { return table }}})
	got := getJSON[[]Route](t, h, "/api/routes")
	want := []Route{
		{Host: "*.example.com", Path: "/", Match: "prefix", Service: "star", Priority: 3, Class: "tag"},
		{HostRegexp: "^a", Path: "^/b$", Match: "regexp", Service: "star", Priority: 7, Class: "traefik"},
		{Path: "/api", Match: "prefix", Service: "star", Class: "document", Listeners: []string{"web"}, Conditions: []string{"listener is web", "method is GET or PUT"}},
		{Path: "/", Match: "prefix", Service: "origin", Class: "document", Origin: "a.yaml:1"},
	}
	verify.DeepEqual(t, got, want, "got")
}

func TestRouteExplainsEveryCandidate(t *testing.T) {
	service := func(name string) *route.Service { return &route.Service{Name: name, Pool: newPool(t, name)} }
	table := verify.Result(route.NewTable([]route.Route{
		{Path: "/", Service: service("rest")},
		{Host: "a.example", Path: "/api", Service: service("api")},
		{Host: "a.example", Path: "/api", Service: service("canary"), Conditions: route.Conditions{
			Headers: []route.Value{{Name: "X-Canary", Text: "1"}}, Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		{Host: "a.example", Path: "/api", Service: service("secure"), Conditions: route.Conditions{Scheme: "https", Queries: []route.Value{{Name: "v", Text: "a b"}}, Methods: []string{"PUT"}}},
		{Host: "a.example", Path: "/other", Service: service("other")},
		{Host: "b.example", Path: "/", Service: service("b"), Listeners: []string{"internal"}},
	})).Must(t)
	c := &config.Config{Listeners: []config.Listener{{Name: "web", Protocol: config.ProtocolHTTP}, {Name: "internal", Protocol: config.ProtocolHTTP}, {Name: "db", Protocol: config.ProtocolTCP}}}
	h := handlerOf(Options{Routes: explaining(t, table, c, proxy.Switches{}, "web", "internal")})
	for _, test := range []struct{ query, want string }{
		{"url=http://A.example:80/x/../api/", "secure condition method is PUT; canary condition header x-canary is \"1\"; api chosen; rest later; 1 path, 1 host, /api"},
		{"url=http://a.example/api&header=x-CANARY:+1&client=10.0.0.1", "secure condition method is PUT; canary chosen; api later; rest later; 1 path, 1 host, /api"},
		{"url=http://a.example/api&header=x-canary:1&client=192.0.2.1", "secure condition method is PUT; canary condition client is in 10.0.0.0/8; api chosen; rest later; 1 path, 1 host, /api"},
		{"url=https://a.example/api%3Fv=a%2520b&method=PUT", "secure chosen; canary condition header x-canary is \"1\"; api later; rest later; 1 path, 1 host, /api"},
		{"url=http://x/&header=Host:+b.example&listener=internal", "b chosen; rest later; 0 path, 4 host, /"},
		{"url=http://b.example/&all=true", "other host; secure host; canary host; api host; b condition listener is internal; rest chosen; 0 path, 4 host, /"},
	} {
		got := ""
		answer := getJSON[RouteAnswer](t, h, "/api/route?"+test.query)
		for _, c := range answer.Candidates {
			got += strings.TrimSpace(c.Service+" "+c.Outcome+" "+c.Failing) + "; "
			verify.That(t, c.Outcome != "chosen" || c.Service == answer.Route.Service, "%s: the route is %+v", test.query, answer.Route)
		}
		got += fmt.Sprintf("%d path, %d host, %s", answer.OtherPath, answer.OtherHost, answer.Path)
		verify.Equal(t, got, test.want, "%s:  got", test.query)
	}
	for _, query := range []string{"", "url=/api", "url=ftp://a/", "url=http://a/&header=x", "url=http://a/&client=a"} {
		status, body := get(t, h, "/api/route?"+query)
		verify.That(t, status == 400 && strings.Contains(body, "want "), "%s: got %d %s", query, status, body)
	}
	for name, want := range map[string]string{
		"intern": `listener \"intern\": no such listener, did you mean \"internal\"? (known: web, internal)`,
		"db":     `listener \"db\": has protocol: tcp, which has no routes`,
	} {
		status, body := get(t, h, "/api/route?url=http://b.example/&listener="+name)
		verify.That(t, status == 400 && strings.Contains(body, want), "%s: got %d %s", name, status, body)
	}
}

// The answer for a path that sluice refuses says so, as the proxy does.
func TestRouteTellsOfARefusedPath(t *testing.T) {
	service := &route.Service{Name: "app", Pool: newPool(t, "app", instance("app", "a", "10.0.0.1"))}
	table := verify.Result(route.NewTable([]route.Route{
		{Path: "/", Service: service},
		{Host: "a.example", Path: "/admin", Service: service, Actions: &route.Actions{ClientCertificate: true}},
	})).Must(t)
	asks := func(o proxy.Switches, url, want string) {
		t.Helper()
		answer := getJSON[RouteAnswer](t, handlerOf(Options{Routes: explaining(t, table, nil, o, "web")}), "/api/route?url="+neturl.QueryEscape(url))
		got := ""
		if a := answer.Ends[0].Answer; a != nil {
			got = a.Reason
		}
		verify.That(t, answer.Route != nil && got == want, "%s: refused %q, want %q", url, got, want)
	}
	asks(proxy.Switches{}, "http://a.example/x/../y", "unsafe_path")
	asks(proxy.Switches{}, "http://a.example/admin/%2e%2e/y", "unsafe_path")
	asks(proxy.Switches{}, "http://a.example/x/y", "")
	asks(proxy.Switches{}, "http://b.example/x/../y", "")
	asks(proxy.Switches{}, "http://a.example/x/..;a/y", "unsafe_path")
	asks(proxy.Switches{KeepDotSegments: true}, "http://a.example/x/../y", "")
}

// The listener is the one for the scheme, at the port of the URL if there is one, or the one that
// is named.
func TestRouteChoosesTheListener(t *testing.T) {
	h := handlerOf(Options{Routes: explaining(t, new(route.Table), nil, proxy.Switches{}, "web", "internal")})
	for query, want := range map[string]string{
		"url=http://a/":                                              "web, not internal",
		"url=http://a:8001/":                                         "internal, not web",
		"url=http://a/&listener=internal":                            "internal, not ",
		"url=https://a/":                                             "web-secure, not internal-secure",
		"url=https://a:80019/":                                       "internal-secure, not web-secure",
		"url=https://a:80019/&listener=web-secure":                   "web-secure, not ",
		"url=https://a/&listener=web":                                `listener "web" is not for https`,
		"url=http://a/&listener=db":                                  `listener "db" is not for http`,
		"url=http://a/&listener=x":                                   `listener "x" is not for http`,
		"url=http://a/&header=" + neturl.QueryEscape("A: b\r\nC: d"): `want "NAME: VALUE"`,
	} {
		status, body := get(t, h, "/api/route?"+query)
		if status != 200 {
			verify.Contains(t, errorOf(t, body), want, "%s", query)
			continue
		}
		answer := decode[RouteAnswer](t, body)
		verify.Equal(t, answer.Listener+", not "+strings.Join(answer.OtherListeners, " "), want, "%s", query)
	}
	h = handlerOf(Options{Routes: explaining(t, new(route.Table), nil, proxy.Switches{})})
	status, body := get(t, h, "/api/route?url=http://a/")
	verify.That(t, status == 400 && strings.Contains(errorOf(t, body), "no listener is for http;"), "got %d %s", status, body)
}

// refusedFile are documents of a file that can be refused.
type refusedFile struct {
	documents
	file *live.Status
}

func (d refusedFile) Statuses() []live.Status { return []live.Status{*d.file} }

func (d refusedFile) refuse(err error) {
	d.history.Refused()
	*d.file = live.Status{Source: config.Source{Name: "sluice.yaml"}, Refused: &live.Refusal{Time: time.Now(), Err: err}}
}

func TestConfigHasTheRevisionInUseAndTheLatestRefusal(t *testing.T) {
	past := refusedFile{documents{history(t, firstConfig, secondConfig)}, new(live.Status)}
	h := handlerOf(Options{Documents: past})

	type shown struct {
		Number  uint64
		Time    time.Time
		Source  string
		Hash    string
		Pending []string
		Config  struct {
			Services map[string]struct{ Peers []string }
			Routes   []Route
		}
		Reloads Reloads
	}
	got := getJSON[shown](t, h, "/api/config")
	verify.That(t, got.Number == 2 && got.Source == "sluice.yaml" && got.Hash == "0123" && got.Pending != nil && time.Since(got.Time) <= time.Minute, "got %+v", got)
	verify.That(t, slices.Equal(got.Config.Services["star"].Peers, []string{"127.0.0.1:19001"}) && got.Config.Routes[0].Path == "/api", "config: got %+v", got.Config)
	verify.That(t, got.Reloads.Applied == 2 && got.Reloads.Refused == 0 && got.Reloads.LastError == nil, "reloads: got %+v", got.Reloads)

	_, err := configtest.Build("nonsense: 1\nservices: { star: { peers: [x] } }\nroutes: [ { path: /, service: star } ]\n")
	past.refuse(err)
	refused := getJSON[shown](t, h, "/api/config").Reloads
	verify.That(t, refused.Refused == 1 && refused.LastError != nil &&
		len(refused.LastError.Errors) == 2 &&
		strings.HasPrefix(refused.LastError.Errors[0], "sluice.yaml:1:") &&
		strings.Contains(refused.LastError.Errors[1], `"x"`),
		"after errors in the file: got %+v", refused.LastError)
	past.refuse(errors.New("permission denied"))
	refused = getJSON[shown](t, h, "/api/config").Reloads
	verify.That(t, slices.Equal(refused.LastError.Errors, []string{"permission denied"}), "after another error: got %+v", refused.LastError)
}

// oneDocument is documents of one text.
type oneDocument struct {
	documents
	text string
}

func (d oneDocument) Rebuild(config.Revision) (*config.Built, error) {
	in := config.Input{File: "sluice.yaml"}
	return in.Build([]config.Source{in.FileSource(d.text)})
}

// Keys have their meanings; a brief answer leaves out what may be large.
func TestValuesAreExplained(t *testing.T) {
	const text = "log: { level: debug }\nservices: { a.b: { peers: ['127.0.0.1:1'], retry: { attempts: 2 } } }\nroutes: [{ service: a.b }]\n"
	h := handlerOf(Options{Documents: oneDocument{documents{history(t, text)}, text}})
	for path, want := range map[string]string{
		"/api/config/values?brief=true&explain=true":  "log.level = debug",
		"/api/config/values?service=a.b&explain=true": "services.a.b.retry.attempts = 2",
	} {
		var lines []string
		for _, v := range getJSON[[]Value](t, h, path) {
			verify.That(t, v.Meaning != "" || v.Value.Value == "{}", "%s: %s = %s has no meaning", path, v.Key, v.Value.Value)
			lines = append(lines, v.Key+" = "+v.Value.Value)
		}
		verify.That(t, slices.Contains(lines, want), "%s: %s is not in %q", path, want, lines)
		brief := !slices.ContainsFunc(lines, func(line string) bool {
			return strings.HasPrefix(line, "services") || strings.HasPrefix(line, "routes")
		})
		verify.Equal(t, brief, strings.Contains(path, "brief"), "%s: %q: neither services nor routes", path, lines)
	}
	brief := getJSON[struct{ Config map[string]any }](t, h, "/api/config?brief=true").Config
	verify.That(t, brief["consul"] != nil && brief["services"] == nil && brief["routes"] == nil && len(brief) > 3, "brief: got %v", brief)
}

func TestConfigHistory(t *testing.T) {
	h := handlerOf(Options{Documents: documents{history(t, firstConfig, secondConfig)}})
	list := getJSON[[]Revision](t, h, "/api/config/history")
	verify.Require(t, len(list) == 2 && list[0].Number == 2 && list[1].Number == 1 && !list[1].Time.IsZero(), "got %+v", list)
	_, body := get(t, h, "/api/config/history/1")
	verify.That(t, strings.Contains(body, `"number": 1`) && strings.Contains(body, `"path": "/"`), "got %s", body)
}

func TestSecretsAreMasked(t *testing.T) {
	h := handlerOf(Options{Documents: documents{history(t, firstConfig, secondConfig)}, Tokens: func() Tokens { return Tokens{Operate: "admin-s3cret"} }})
	for path := range everyPath {
		_, body := get(t, h, path, "Authorization", "Bearer admin-s3cret")
		verify.That(t, !strings.Contains(body, "s3cret"), "%s shows a secret: %s", path, body)
	}
}

// A state has its own beginning: the file has no time but the time of its refusal.
func TestSinceOfSources(t *testing.T) {
	t.Parallel()
	read, refused := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	refusal := &live.Refusal{Time: refused, Err: errors.New("bad")}
	for _, c := range []struct {
		status live.Status
		state  live.SourceState
		since  time.Time
	}{
		{live.Status{Refused: refusal}, live.SourceRefused, refused},
		{live.Status{Since: read, Refused: refusal}, live.SourceRefused, refused},
		{live.Status{Since: read}, live.SourceInUse, read},
		{live.Status{Since: read, Refused: refusal, Stale: errors.New("no answer")}, live.SourceStale, read},
	} {
		got := describeStatus(c.status)
		verify.That(t, got.State == string(c.state) && got.Since.Equal(c.since), "%+v: %s since %s, want %s since %s", c.status, got.State, got.Since, c.state, c.since)
	}
}

type panickedDocuments struct{ documents }

func (panickedDocuments) RollBack(context.Context, uint64, string, string) (config.Revision, error) {
	return config.Revision{}, panics.Err
}

func TestARollBackThatPanicsIsAFaultOfSluice(t *testing.T) {
	h := handlerOf(Options{Documents: panickedDocuments{documents{new(config.History)}}})
	status, body := ask(t, h, http.MethodPost, "/api/config/rollback?number=1", "If-Match", `"0123"`)
	verify.That(t, status == http.StatusInternalServerError && errorOf(t, body) == panics.Err.Error(), "got %d %s", status, body)
}
