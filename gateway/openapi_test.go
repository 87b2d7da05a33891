package gateway

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/proxy"
	"sluice/test/consultest"
	"sluice/test/openapitest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// openAPI is the description of the admin API.
var openAPI = sync.OnceValues(func() (*openapitest.Document, error) {
	text, err := os.ReadFile("../admin/openapi.yaml")
	if err != nil {
		return nil, err
	}
	return openapitest.Parse(text)
})

// askAdmin sends a request to the admin API, and checks the answer against its OpenAPI document.
// Header fields are alternating names and values.
func (r *running) askAdmin(method, path string, header ...string) openapitest.Answer {
	r.t.Helper()
	return r.sendAdmin(method, path, "", header...)
}

// sendAdmin is askAdmin with a body.
func (r *running) sendAdmin(method, path, body string, header ...string) openapitest.Answer {
	r.t.Helper()
	request := r.request(method, r.url("admin")+path, strings.NewReader(body), header...)
	got := r.do(request)
	answer := openapitest.Answer{Method: method, URL: request.URL, Status: got.StatusCode, Header: got.Header, Body: []byte(got.body)}
	verify.Succeeds(r.t, verify.Result(openAPI()).Must(r.t).Check(answer))
	return answer
}

// Every operation of the OpenAPI document is carried out by a gateway with a real Consul, and what
// it answers is what the document says.
func TestAnswersAreThoseOfTheOpenAPIDocument(t *testing.T) {
	t.Parallel()
	consul := consultest.Start(t, consultest.Options{})
	register := func(id, address string, check *api.AgentServiceCheck, tags ...string) {
		t.Helper()
		service, _, _ := strings.Cut(id, "-")
		err := consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
			Name: service, ID: id, Address: "127.0.0.1", Port: port(t, address), Tags: tags, Meta: map[string]string{"zone": "a"}, Check: check,
		})
		verify.NoError(t, err)
	}
	register("star-1", origin(t, "1"), nil, "v1", "urlprefix-star.example.com/ strip=/x", "urlprefix-shared.example.com/ strip=/x")
	register("star-2", origin(t, "2"), nil, "v2")
	register("star-3", origin(t, "3"), &api.AgentServiceCheck{TTL: "1h"}, "v1") // critical
	register("evil-1", origin(t, "evil"), nil, "sluice.route=star.example.com", "urlprefix-shared.example.com/ weight=0.2", "urlprefix-x/ weight=x", "urlprefix-no.example.org/")
	files := testcert.Write(t, t.TempDir(), "www.example.com")
	r := start(t, fmt.Sprintf(`
listeners:
  - { name: web, address: "127.0.0.1:0" }
  - { name: websecure, address: "127.0.0.1:0", tls: { certificates: [{ cert: %q, key: %q }] } }
config: { history: %q }
consul: { addresses: [%q], register: { service: sluice } }
catalog: { tags: [sluice, fabio], claims: [{ service: "*", hosts: ["*.example.com"] }] }
services:
  star:
    consul: {}
    groups: { canary: { tags: [v2] } }
    split: { canary: 50%%, key: header X-User }
    judge: { act: rollback }
  origin: { peers: [%q, "127.0.0.1:1 weight=3"] }
routes:
  - { host: www.example.com, path: /star, service: star, mirror: { service: origin }, request_headers: { set: { X-A: b } } }
  - { path: /, methods: [GET], service: origin }
`, files.Cert, files.Key, t.TempDir()+"/history.jsonl", consul.URL(), origin(t, "origin")))
	r.await("the registration and the routes of tags", func() bool {
		var replicas admin.Replicas
		var routes []admin.Route
		r.api("/api/replicas", &replicas)
		r.api("/api/routes", &routes)
		return replicas.Registration.State == "registered" && len(replicas.Replicas) == 1 && slices.ContainsFunc(routes, func(r admin.Route) bool { return len(r.WonAgainst) > 0 })
	})
	for _, user := range []string{"a", "b", "c", "d"} {
		r.send(http.MethodGet, r.url("web")+"/star", "Host", "www.example.com", "X-User", user)
	}
	r.get("/")
	for _, line := range []string{
		`sluice_tag_problems{harmless="false",kind="conflict"} 1`, `sluice_tag_problems{harmless="false",kind="refused"} 2`, `sluice_tag_problems{harmless="false",kind="bad"} 0`,
		fmt.Sprintf(`sluice_config_info{hash=%q} 1`, r.history.Current().Hash), fmt.Sprintf("sluice_client_connections_limit %d", proxy.HalfOfDescriptors()),
	} {
		verify.Contains(t, r.metrics(), "\n"+line+"\n", "/metrics has no line %s", line)
	}

	document := verify.Result(openAPI()).Must(t)
	carriedOut := make(map[string]bool)
	ask := func(operation, path string, status int, header ...string) {
		t.Helper()
		method, template, _ := strings.Cut(operation, " ")
		if path == "" {
			path = template
		}
		answer := r.askAdmin(method, path, append(header, "Accept", "application/json")...)
		verify.Equal(t, answer.Status, status, "%s %s:: %s", method, path, answer.Body)
		if status == http.StatusOK {
			carriedOut[operation] = true
		}
	}
	gets := func() {
		t.Helper()
		for _, o := range document.Operations() {
			if o.Method == http.MethodGet && !strings.Contains(o.Path, "{") && o.Path != "/api/route" && !strings.HasPrefix(o.Path, "/debug/") {
				ask(o.String(), "", http.StatusOK)
			}
		}
	}
	gets()
	ask("GET /api/peers", "/api/peers?service=star&state=up&state=unhealthy", 200)
	ask("GET /api/events", "/api/events?service=star&kind=peer&limit=3&format=json", 200)
	ask("GET /api/series", "/api/series?service=star&after=2026-01-02T15:04:05.678Z", 200)
	ask("GET /api/route", "/api/route?url=http://www.example.com/star&header=X-User:a&client=10.0.0.1&listener=web&method=GET&all=true", 200)
	ask("GET /api/route", "/api/route?url=http://star.example.com/", 200)
	ask("GET /docs/{page}", "/docs/tags.md", 200)
	ask("GET /consul/{service}", "/consul/star", 200)
	ask("POST /api/peers/{service}/{id}/drain", "/api/peers/star/star-1/drain?why=disk&node=&address=", 200)
	ask("POST /api/peers/{service}/{id}/weight", "/api/peers/star/star-2/weight?weight=5&for=1h&why=bigger&by=root@vm", 200)
	node := r.peer("star-2").Node
	ask("POST /api/nodes/{node}/drain", "/api/nodes/"+node+"/drain?datacenter=dc1&why=disks", 200)
	ask("POST /api/services/{service}/maintenance/on", "/api/services/star/maintenance/on?why=move&for=1h&except=10.0.0.0/8&by=root@vm", 200)
	ask("GET /api/orders", "/api/orders", 200)
	ask("POST /api/services/{service}/maintenance/off", "/api/services/star/maintenance/off?by=root@vm", 200)
	ask("POST /api/ready/off", "/api/ready/off?why=tests&by=root@vm", 200)
	ask("POST /api/log/{level}", "/api/log/debug?by=root@vm", 200)
	ask("GET /readyz", "", http.StatusServiceUnavailable)
	for _, path := range []string{"/api/peers", "/api/orders", "/api/ready", "/api/log", "/api/replica"} {
		ask("GET "+path, "", http.StatusOK)
	}
	ask("POST /api/log/{level}", "/api/log/release", 200)
	ask("POST /api/ready/on", "/api/ready/on", 200)
	ask("POST /api/nodes/{node}/enable", "/api/nodes/"+node+"/enable", 200)
	ask("POST /api/peers/{service}/{id}/weight/release", "/api/peers/star/star-2/weight/release", 200)
	ask("POST /api/shares/{service}", "/api/shares/star?share=0.1&group=canary&why=more", 200)
	r.await("the share is in use", func() bool { c := r.history.Current(); return c.Number >= 2 && c.OnlyShares })
	gets()
	ask("POST /api/shares/{service}/pause", "/api/shares/star/pause", 200)
	ask("POST /api/shares/{service}/resume", "/api/shares/star/resume", 200)
	ask("POST /api/shares/{service}/resume", "/api/shares/star/resume", 409)
	ask("POST /api/shares/{service}/release", "/api/shares/star/release?why=done", 200)
	r.await("the share is released", func() bool { c := r.history.Current(); return c.Number >= 3 && c.OnlyShares })
	ask("GET /api/config/history/{number}", "/api/config/history/1", 200)
	ask("GET /api/config/values", "/api/config/values?service=star", 200)
	ask("GET /api/config/diff/{from}/{to}", "/api/config/diff/1/2", 200)
	_, status := r.against("", preamble+"services: { x: { peers: ['127.0.0.1:1'] } }\nroutes: [{ service: x }]\n")
	carriedOut["POST /api/route/against"] = status == http.StatusOK
	_, status = r.against("", "colour: red")
	verify.Equal(t, status, http.StatusBadRequest, "the status for a text with an error")
	for path, status := range map[string]int{
		"/api/log/loud": 400, "/api/shares/star?share=NaN": 400, "/api/shares/star?share=0.1&why=%0a": 400,
		"/api/config/rollback?number=1&why=back": 428, "/api/config/rollback?number=x": 400,
		"/api/services/nope/maintenance/on": 404, "/api/services/star/maintenance/on?except=x": 400, "/api/shares/origin?share=0": 404,
	} {
		verify.Equal(t, r.askAdmin(http.MethodPost, path).Status, status, "%s", path)
	}
	ask("GET /api/config/values", "/api/config/values?service=stra", 404)
	ask("POST /api/config/rollback", "/api/config/rollback?number=1&why=back", 200, "If-Match", r.askAdmin("GET", "/api/config").Header.Get("ETag"))
	ask("GET /debug/pprof/", "/debug/pprof/", 200)
	ask("GET /debug/pprof/{profile}", "/debug/pprof/goroutine?debug=1", 200)
	ask("GET /debug/pprof/{profile}", "/debug/pprof/allocs", 200)
	ask("GET /debug/pprof/profile", "/debug/pprof/profile?seconds=1", 200)
	ask("GET /debug/pprof/trace", "/debug/pprof/trace?seconds=0.1", 200)
	verify.NoError(t, consul.Client().Agent().ServiceDeregister("star-1"))
	r.await("the drain outlives the instance", func() bool {
		return slices.ContainsFunc(fetch[[]admin.Service](r, "/api/services"), func(s admin.Service) bool { return len(s.StandingDrains) == 1 })
	})
	gets()
	ask("POST /api/peers/{service}/{id}/enable", "/api/peers/star/star-1/enable", 200)
	verify.NoError(t, consul.Kill())
	ask("GET /consul/{service}", "/consul/star", 502)
	r.await("the outage is seen", func() bool { return r.watchOf("star").LastError != "" })
	gets()

	for _, o := range document.Operations() {
		verify.That(t, carriedOut[o.String()], "this test asks %s for no answer with the status 200: add a request", o)
	}
}
