package cli

import (
	"net/http"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/test/verify"
)

func TestRoute(t *testing.T) {
	var asked *http.Request
	answer := admin.RouteAnswer{
		Listener: "web",
		Ends:     []admin.End{{Share: 1, Service: "star", Peers: []string{"a", "b\x1b"}}},
		Route:    &admin.Route{Service: "star", Origin: "sluice.yaml:12"},
		Candidates: []admin.Candidate{
			{Route: admin.Route{Host: "a.example", Path: "/api", Match: "prefix", Service: "canary", Origin: "sluice.yaml:10"}, Place: 1,
				Outcome: "condition", Failing: `header x-canary is "1"`},
			{Route: admin.Route{HostRegexp: "^a\\.", Path: "^/api", Match: "regexp", Service: "star", Origin: "sluice.yaml:12", Priority: 2}, Place: 3, Outcome: "chosen"},
			{Route: admin.Route{Path: "/", Match: "prefix", Service: "evil\x1b[2J", Class: "tag"}, Place: 7, Outcome: "later"},
			{Route: admin.Route{Path: "/x", Match: "exact", Service: "x"}, Place: 8, Outcome: "path"},
		},
		OtherHost: 4, OtherPath: 1,
	}
	address := serveJSON(t, func(r *http.Request) any { asked = r; return answer })

	status, stdout, stderr := execute(t, "route", "POST", "http://a.example/api?x=1", "-H", "X-Canary: 2", "-H", "A: b", "--client", "10.0.0.1",
		"--listener", "web", "--all", "--admin", address)
	want := `service star, by the route at sluice.yaml:12
to one of its peers: a, b?

PLACE  HOST       PATH   MATCH   PRIORITY  SERVICE   ORIGIN          RESULT
1      a.example  /api   prefix  0         canary    sluice.yaml:10  only if header x-canary is "1"
3      ~^a\.      ^/api  regexp  2         star      sluice.yaml:12  chosen
7      any        /      prefix  0         evil?[2J                  matches, but a route before it is chosen
8      any        /x     exact   0         x                         other path

routes that do not match: 4 for other hosts, 1 for other paths
`
	verify.That(t, status == exitOK && stdout == want, "status %d\n%s%s\nwant\n%s", status, stdout, stderr, want)
	query := asked.URL.Query()
	got := asked.URL.Path + query.Get("method") + query.Get("url") + strings.Join(query["header"], "|") + query.Get("client") + query.Get("listener") + query.Get("all")
	verify.That(t, got == "/api/routePOSThttp://a.example/api?x=1X-Canary: 2|A: b10.0.0.1webtrue", "asked %s", got)

	shows := func(want string) {
		t.Helper()
		_, stdout, _ := execute(t, "route", "http://a.example/", "--admin", address)
		verify.Contains(t, "\n"+stdout, "\n"+want, "the answer")
	}
	end := &answer.Ends[0]
	end.Peers, answer.OtherListeners = nil, []string{"internal", "a\x1b"}
	shows("service star, by the route at sluice.yaml:12\nat listener web; --listener asks another one: internal, a?\n\nPLACE")
	answer.OtherListeners = nil
	end.Group = "canary"
	end.Depends = []admin.Answer{{Status: 401, Reason: "unauthorized", Text: "the route requires a user and a password"}, {Reason: "auth_denied", Text: "x\x1b"}}
	shows(`service star, group canary, by the route at sluice.yaml:12
then it depends on, in this order:
  401 unauthorized: the route requires a user and a password
  auth_denied: x?

PLACE`)
	end.Group, end.Depends = "", nil
	answer.Ends = []admin.End{{Share: .2, Service: "a", Group: "canary"}, {Share: .8, Service: "b"}}
	answer.Route.Weighted = &admin.Weighted{Key: "cookie", Targets: []admin.Target{
		{Service: "a", Group: "canary", Share: .2, Present: 1, UsablePeers: 3, Origin: "sluice.yaml:12"},
		{Service: "b", Share: .8, Split: &admin.Split{}, Origin: "sluice.yaml:12"},
	}}
	shows(`20 %: service a, group canary, by the route at sluice.yaml:12
80 %: service b, by the route at sluice.yaml:12

SERVICE  GROUP         SHARE  PEERS  SHARE NOW  ORIGIN
a        canary        20 %   3      100 %      sluice.yaml:12
b        by its split  80 %   0      0 %        sluice.yaml:12
`)
	answer.Route.Weighted = nil
	answer.Ends = []admin.End{{Share: 1, Service: "star@v1", Branch: &admin.Branch{Origin: "service-splitter star", Weighted: &admin.Weighted{Key: "cookie", Targets: []admin.Target{
		{Service: "star@v1", Share: .1, Present: .1, UsablePeers: 1, Origin: "service-splitter star, split 1"},
	}}}}}
	shows(`service star@v1, by the route at sluice.yaml:12 and by service-splitter star

SERVICE  GROUP  SHARE  PEERS  SHARE NOW  ORIGIN
star@v1  all    10 %   1      10 %       service-splitter star, split 1
`)
	answer.Route.Mirror = &admin.Mirror{Service: "next", Group: "v2", Share: .05}
	shows("service star@v1, by the route at sluice.yaml:12 and by service-splitter star\n")
	_, stdout, _ = execute(t, "route", "http://a.example/", "--admin", address)
	verify.Contains(t, stdout, "copies of 5 % of the requests go to service next, group v2\n\nPLACE", "mirror")
	answer.Route.Mirror = nil
	for _, test := range []struct {
		end    admin.End
		status int
		want   string
	}{
		{admin.End{Service: "star", Answer: &admin.Answer{Status: 403, Reason: "client_denied", Text: "not for you"}}, exitFailed, "403 client_denied: not for you, by the route at "},
		{admin.End{Answer: &admin.Answer{Status: 308, Reason: "redirect", Location: "/new\x1b"}}, exitOK, "308 to /new?, by the route at "},
		{admin.End{Answer: &admin.Answer{Status: 503, Reason: "direct_response", Text: "the route answers itself"}}, exitOK, "503 direct_response: the route answers itself, by the route at "},
	} {
		answer.Ends = []admin.End{test.end}
		shows(test.want)
		status, _, stderr := execute(t, "route", "http://a.example/", "--admin", address)
		verify.Equal(t, status, test.status, "%s%s", test.want, stderr)
	}
	answer.Ends = []admin.End{{Answer: &admin.Answer{Status: 404, Reason: "no_route", Text: "no route leads there"}}}
	answer.Route, answer.Candidates, answer.OtherPath = nil, nil, 0
	status, stdout, stderr = execute(t, "route", "http://b.example/", "--admin", address)
	verify.That(t, status == exitFailed && stdout == "404 no_route: no route leads there, by listener web\n\nroutes that do not match: 4 for other hosts\n" && stderr == "sluice: sluice answers 404: no_route\n", "status %d\n%s%s", status, stdout, stderr)
	query = asked.URL.Query()
	verify.That(t, query.Get("method") == "GET", "asked for method %q", query.Get("method"))
	prints(t, exitUsage, "", "route", "--admin", address)
	prints(t, exitUsage, "", "route", "--admin", address, "GET", "http://a", "b")
}
