package doctor

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	consulsource "sluice/discovery/consul"
	"sluice/test/verify"
)

// sluice connects to the address that the configuration names.
func TestInstanceWithATaggedAddress(t *testing.T) {
	d := New(Options{Uses: []Use{{Source: consulsource.ServiceOptions{Service: "star", Address: "wan"}}}})
	defer d.Close()
	e := &api.ServiceEntry{Node: &api.Node{Node: "a", Address: "10.0.0.1"}, Service: &api.AgentService{
		ID: "star-1", Service: "star", Port: 80, TaggedAddresses: map[string]api.ServiceAddress{"wan": {Address: "192.0.2.1", Port: 443}},
	}}
	i := instanceOf(e, d.addressTag("star"))
	verify.That(t, i.contact() == "192.0.2.1:443" && i.address() == "10.0.0.1:80" && i.LacksTag == "", "%+v", i)
	i = instanceOf(e, d.addressTag("other"))
	verify.That(t, i.contact() == "10.0.0.1:80" && i.LacksTag == "", "another service: %+v", i)
	e.Service.TaggedAddresses = nil
	i = instanceOf(e, d.addressTag("star"))
	verify.That(t, i.contact() == "10.0.0.1:80" && i.LacksTag == "wan", "without it: %+v", i)
}

// The catalog may change between the queries. Elements that are null are not there.
func TestCatalogChangesDuringTheExamination(t *testing.T) {
	answers := map[string]string{
		"/v1/status/leader":    `"10.0.0.1:8300"`,
		"/v1/agent/self":       `{"Config": {"NodeName": "a", "Datacenter": "dc1", "Version": "1.22.7"}}`,
		"/v1/catalog/services": `{"old": [], "new": [], "bare": []}`,
		"/v1/catalog/nodes":    `[{"Node": "a", "Address": "10.0.0.1"}, {"Node": "left", "Address": "10.0.0.2"}, null]`,
		"/v1/health/state/any": `[null, {"Node": "a", "CheckID": "serfHealth", "Status": "passing"}, {"Node": "a", "CheckID": "o", "ServiceID": "old-1", "Status": "passing"}]`,
		// Registered after the checks were listed, at index 40, with a check.
		"/v1/catalog/node-services/a": `{"Node": {"Node": "a", "Address": "10.0.0.1"}, "Services": [
			{"ID": "old-1", "Service": "old", "Port": 1, "CreateIndex": 30}, {"ID": "bare-1", "Service": "bare", "Port": 2, "CreateIndex": 31},
			{"ID": "new-1", "Service": "new", "Port": 3, "CreateIndex": 41}, null]}`,
		"/v1/catalog/node-services/left": `null`,
		"/v1/health/service/new": `[null, {"Node": {"Node": "a", "Address": "10.0.0.1"}, "Service": {"ID": "new-1", "Service": "new", "Port": 3, "CreateIndex": 41},
			"Checks": [null, {"Node": "a", "CheckID": "serfHealth", "Status": "passing"}, {"Node": "a", "CheckID": "n", "ServiceID": "new-1", "Status": "passing"}]}]`,
	}
	report := examineAnswers(t, answers)
	got, want := strings.Join(briefs(report.Findings), "\n"), "warning no-check bare bare-1 on node a, 10.0.0.1:2"
	verify.That(t, got == want, "got\n%s\nwant\n%s", got, want)
	verify.That(t, report.Looked.Instances == 3 && report.Looked.Nodes == 1 && report.Looked.Queries == 9, "%+v", report.Looked)
}

// examineAnswers examines a Consul that has these answers, by path.
func examineAnswers(t *testing.T, answers map[string]string) *Report {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok {
			http.Error(w, "ACL support disabled", http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-Consul-Index", "40")
		w.Header().Set("X-Consul-KnownLeader", "true")
		fmt.Fprint(w, answer)
	}))
	defer server.Close()
	d := New(Options{Consul: consul.Options{Addresses: []string{server.URL}}, CriticalFor: time.Hour})
	defer d.Close()
	return examine(t, d)
}

// A node whose name is no path does not end the examination.
func TestNodeWithoutAListOfInstances(t *testing.T) {
	report := examineAnswers(t, map[string]string{
		"/v1/status/leader": `"10.0.0.1:8300"`, "/v1/agent/self": `{}`, "/v1/catalog/services": `{"a": [], "b": []}`, "/v1/catalog/nodes": `[{"Node": ".."}]`,
		"/v1/health/service/a": `[{"Node": {"Node": "..", "Address": "10.0.0.1"}, "Service": {"ID": "a-1", "Service": "a", "Port": 1}, "Checks": []}]`,
		"/v1/health/service/b": `[]`,
	})
	verify.Equal(t, report.Looked.Instances, 1, "instances")
}

// Nor does a service with such a name. There is a finding about it.
func TestServiceWithoutAListOfInstances(t *testing.T) {
	report := examineAnswers(t, map[string]string{
		"/v1/status/leader": `"10.0.0.1:8300"`, "/v1/agent/self": `{}`, "/v1/catalog/services": `{"a": [], "..": []}`, "/v1/catalog/nodes": `[{"Node": "n"}, {"Node": "m"}]`,
		"/v1/health/service/a": `[{"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": {"ID": "a-1", "Service": "a", "Port": 1}, "Checks": []}]`,
	})
	verify.Equal(t, report.Looked.Instances, 1, "instances")
	verify.That(t, slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Code == CodeServiceName && f.Service == ".." }),
		"there is no finding about the name: %v", report.Findings)
}
