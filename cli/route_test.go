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
		Route: &admin.Route{Service: "star", Origin: "sluice.yaml:12"},
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
	answer.Route.Service = ""
	shows("an answer of sluice's own, by the route at sluice.yaml:12\n")
	answer.Route.Service = "star"
	answer.Denied = "the intention * → star (precedence 8)"
	shows("service star, by the route at sluice.yaml:12\ndenied by the intention * → star (precedence 8)\n")
	answer.Denied, answer.Refused = "", "unsafe_path"
	shows("service star, by the route at sluice.yaml:12\nrefused: sluice answers the request itself, with the reason unsafe_path\n")
	answer.Refused = ""
	answer.Group = "canary"
	shows("service star, group canary, by the route at ")
	answer.Route.Weighted = &admin.Weighted{Key: "cookie", Targets: []admin.Target{
		{Service: "a", Group: "canary", Share: .2, Present: 1, UsablePeers: 3, Origin: "sluice.yaml:12"},
		{Service: "b", Share: .8, Split: &admin.Split{}, Origin: "sluice.yaml:12"},
	}}
	shows(`one of its services by chance, by the route at sluice.yaml:12

SERVICE  GROUP         SHARE  PEERS  SHARE NOW  ORIGIN
a        canary        20 %   3      100 %      sluice.yaml:12
b        by its split  80 %   0      0 %        sluice.yaml:12
`)
	answer.Service = "a"
	shows("service a, group canary, by the route at ")
	answer.Route.Weighted = nil
	answer.Group, answer.Route.Split = "", &admin.Split{}
	shows("service star, one of its groups by chance, by the route at ")
	answer.Route.Split, answer.Service = nil, "star@v1"
	answer.Branch = &admin.Branch{Service: "star@v1", Origin: "service-router star, route 2"}
	shows("service star@v1, by the route at sluice.yaml:12 and by service-router star, route 2\n\nPLACE")
	answer.Service = ""
	answer.Branch = &admin.Branch{Origin: "service-splitter star", Weighted: &admin.Weighted{Key: "cookie", Targets: []admin.Target{
		{Service: "star@v1", Share: .1, Present: .1, UsablePeers: 1, Origin: "service-splitter star, split 1"},
	}}}
	shows(`one of its services by chance, by the route at sluice.yaml:12 and by service-splitter star

SERVICE  GROUP  SHARE  PEERS  SHARE NOW  ORIGIN
star@v1  all    10 %   1      10 %       service-splitter star, split 1
`)
	answer.Branch = nil
	answer.Route.Mirror = &admin.Mirror{Service: "next", Group: "v2", Share: .05}
	shows("copies of 5 % of the requests go to service next, group v2\n\nPLACE")
	answer.Route, answer.Candidates, answer.OtherPath = nil, nil, 0
	status, stdout, stderr = execute(t, "route", "http://b.example/", "--admin", address)
	verify.That(t, status == exitFailed && stdout == "\nroutes that do not match: 4 for other hosts\n" && stderr == "sluice: no route matches: sluice answers 404\n", "status %d\n%s%s", status, stdout, stderr)
	query = asked.URL.Query()
	verify.That(t, query.Get("method") == "GET", "asked for method %q", query.Get("method"))
	prints(t, exitUsage, "", "route", "--admin", address)
	prints(t, exitUsage, "", "route", "--admin", address, "GET", "http://a", "b")
}
