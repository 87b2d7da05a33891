package consul

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// entry returns the entry of a passing instance after change.
func entry(change func(*api.ServiceEntry)) *api.ServiceEntry {
	e := discoverytest.Instance("star", "star-1", 8080)
	if change != nil {
		change(e)
	}
	return e
}

// listed returns entries as read from an answer.
func listed(t *testing.T, entries ...*api.ServiceEntry) []serviceEntry {
	t.Helper()
	return listedAt(t, "", entries...)
}

// listedAt is listed for instances at a tagged address.
func listedAt(t *testing.T, tag string, entries ...*api.ServiceEntry) []serviceEntry {
	t.Helper()
	answer := verify.Result(json.Marshal(entries)).Must(t)
	return verify.Result(readEntries(bytes.NewReader(answer), tag)).Must(t)
}

// readEntries decodes an answer about a service, with the addresses that have the tag; "": the
// usual ones.
func readEntries(r io.Reader, tag string) ([]serviceEntry, error) {
	entries := entryList{tag: tag}
	err := read(r, &entries)
	return entries.all, err
}

func TestHealthAndWeight(t *testing.T) {
	weights := func(e *api.ServiceEntry) { e.Service.Weights = api.AgentWeights{Passing: 10, Warning: 3} }
	for _, tt := range []struct {
		name        string
		change      func(*api.ServiceEntry)
		passingOnly bool
		status      discovery.Status
		weight      int
		detail      string
	}{
		{name: "passing", status: discovery.StatusPassing, weight: 10},
		{name: "no checks", change: func(e *api.ServiceEntry) { e.Checks = nil }, status: discovery.StatusPassing, weight: 10},
		{name: "warning", change: func(e *api.ServiceEntry) { discoverytest.Health(e, "warning", "disk\nfull ") },
			status: discovery.StatusWarning, weight: 3, detail: "Service 'star' check: disk full"},
		{name: "warning without weight", change: func(e *api.ServiceEntry) {
			discoverytest.Health(e, "warning", "")
			e.Service.Weights.Warning = 0
		}, status: discovery.StatusWarning, weight: 0, detail: "Service 'star' check: Consul has no output of it"},
		{name: "warning, passing only", passingOnly: true, change: func(e *api.ServiceEntry) { discoverytest.Health(e, "warning", "") },
			status: discovery.StatusWarning, weight: 0, detail: "Service 'star' check: Consul has no output of it"},
		{name: "critical", change: func(e *api.ServiceEntry) { discoverytest.Health(e, "critical", "refused") },
			status: discovery.StatusCritical, detail: "Service 'star' check: refused"},
		{name: "critical node", change: func(e *api.ServiceEntry) {
			discoverytest.Health(e, "warning", "slow")
			e.Checks[0].Status, e.Checks[0].Output = "critical", "Agent not live or unreachable"
		}, status: discovery.StatusCritical, detail: "Serf Health Status: Agent not live or unreachable"},
		{name: "service maintenance", change: func(e *api.ServiceEntry) {
			discoverytest.Health(e, "critical", "refused")
			discoverytest.Maintenance(e, "disk swap")
		}, status: discovery.StatusMaintenance, detail: "service maintenance: disk swap"},
		{name: "node maintenance", change: func(e *api.ServiceEntry) {
			e.Checks = append(e.Checks, &api.HealthCheck{CheckID: api.NodeMaint, Status: "critical", Notes: "reboot"})
		}, status: discovery.StatusMaintenance, detail: "node maintenance: reboot"},
		{name: "unknown word", change: func(e *api.ServiceEntry) { discoverytest.Health(e, "unheard-of", "") },
			status: discovery.StatusCritical, detail: "Service 'star' check: Consul has no output of it"},
		{name: "no weights in the answer", change: func(e *api.ServiceEntry) {
			e.Service.Weights = api.AgentWeights{}
			discoverytest.Health(e, "warning", "")
		}, status: discovery.StatusWarning, weight: 1, detail: "Service 'star' check: Consul has no output of it"},
		{name: "weight beyond the limit", change: func(e *api.ServiceEntry) { e.Service.Weights.Passing = 1 << 20 },
			status: discovery.StatusPassing, weight: discovery.MaxWeight},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := entry(weights)
			if tt.change != nil {
				tt.change(e)
			}
			set, skipped := instances(listed(t, e), &ServiceOptions{Service: "star", PassingOnly: tt.passingOnly})
			verify.Require(t, len(set) == 1 && len(skipped) == 0, "got %v, skipped %v", set, skipped)
			verify.Equal(t, set[0].Status, tt.status, "status")
			verify.Equal(t, set[0].Weight, tt.weight, "weight")
			verify.Equal(t, set[0].Detail, tt.detail, "detail")
		})
	}
}

func TestAddress(t *testing.T) {
	for _, tt := range []struct {
		service, node, want string
	}{
		{"10.0.0.1", "10.9.9.9", "10.0.0.1:8080"},
		{"", "10.9.9.9", "10.9.9.9:8080"},
		{"", "2001:db8::1", "[2001:db8::1]:8080"},
		{"[2001:db8::2]", "10.9.9.9", "[2001:db8::2]:8080"},
		{"app.example.com", "10.9.9.9", "app.example.com:8080"},
	} {
		e := entry(func(e *api.ServiceEntry) { e.Service.Address, e.Node.Address = tt.service, tt.node })
		set, skipped := instances(listed(t, e), &ServiceOptions{Service: "star"})
		verify.That(t, len(set) == 1 && len(skipped) == 0 && set[0].HostPort() == tt.want, "service %q on node %q: got %v, want %s", tt.service, tt.node, set, tt.want)
	}
}

func TestTaggedAddress(t *testing.T) {
	const own, node = "10.0.0.1", "10.9.9.9"
	for _, tt := range []struct {
		name, service string
		ofService     map[string]api.ServiceAddress
		ofNode        map[string]string
		want, tag     string
	}{
		{"of the service", own, map[string]api.ServiceAddress{"wan": {Address: "192.0.2.1", Port: 443}, "lan": {Address: "10.0.0.2", Port: 1}}, map[string]string{"wan": "192.0.2.9"}, "192.0.2.1:443", "wan"},
		{"without a port", own, map[string]api.ServiceAddress{"wan": {Address: "2001:db8::1"}}, nil, "[2001:db8::1]:8080", "wan"},
		{"of the node", "", map[string]api.ServiceAddress{"lan": {Address: own}}, map[string]string{"wan": "192.0.2.9"}, "192.0.2.9:8080", "wan"},
		{"of the node of a service with an address", own, nil, map[string]string{"wan": "192.0.2.9"}, own + ":8080", ""},
		{"of neither, own", own, map[string]api.ServiceAddress{"lan": {Address: "10.0.0.2", Port: 1}}, nil, own + ":8080", ""},
		{"of neither", "", nil, map[string]string{"lan": "10.0.0.3"}, node + ":8080", ""},
		{"empty", own, map[string]api.ServiceAddress{"wan": {Port: 443}}, map[string]string{"wan": ""}, own + ":8080", ""},
	} {
		e := entry(func(e *api.ServiceEntry) {
			e.Service.Address, e.Node.Address = tt.service, node
			e.Service.TaggedAddresses, e.Node.TaggedAddresses = tt.ofService, tt.ofNode
		})
		entries := listedAt(t, "wan", e, nil, &api.ServiceEntry{Node: e.Node}, &api.ServiceEntry{Service: e.Service})
		set, skipped := instances(entries, &ServiceOptions{Service: "star", Address: "wan"})
		verify.Require(t, len(set) == 1 && len(skipped) == 3, "%s: got %+v, skipped %v", tt.name, set, skipped)
		i := set[0]
		verify.Equal(t, i.HostPort()+" "+i.AddressTag, tt.want+" "+tt.tag, "%s: address and tag", tt.name)
		verify.That(t, i.NodeAddress == node && i.ID == "star-1", "%s: got %+v", tt.name, i)
		same, unusable := InstanceOf(e, "wan")
		verify.That(t, unusable == "" && same.Equal(i), "%s: %+v is not %+v", tt.name, same, i)
	}
	got := preparedResult{Nodes: entryList{tag: "wan"}}
	err := read(strings.NewReader(`{"Nodes": [{"Node": {"Address": "10.9.9.9", "TaggedAddresses": {"wan": "192.0.2.9"}}, "Service": {"Port": 80}}], "DNS": {"TTL": "7s"}}`), &got)
	verify.That(t, err == nil && got.DNS.TTL == "7s" && len(got.Nodes.all) == 1 && got.Nodes.all[0].address() == "192.0.2.9", "prepared query: %+v, %v", got, err)
}

func TestSameIDOnTwoNodesIsOneInstance(t *testing.T) {
	routable := func(e *api.ServiceEntry) { e.Service.Address = "10.0.0.1" }
	here := entry(routable)
	there := discoverytest.OnNode(entry(routable), "node-0", "10.0.0.9")
	set, _ := instances(listed(t, here, there), &ServiceOptions{Service: "star"})
	verify.That(t, len(set) == 1 && set[0].Node == "node-0", "got %v, want one instance", set)
	discoverytest.Maintenance(here, "disk swap")
	set, _ = instances(listed(t, here, there), &ServiceOptions{Service: "star"})
	verify.That(t, len(set) == 1 && set[0].Status == discovery.StatusMaintenance && set[0].Weight == 0, "maintenance through one agent: got %+v", set)
	there.Checks = append(there.Checks, &api.HealthCheck{CheckID: serfHealth, Status: api.HealthCritical, Output: "Agent not live or unreachable"})
	set, _ = instances(listed(t, here, there), &ServiceOptions{Service: "star"})
	verify.That(t, len(set) == 1 && set[0].Status == discovery.StatusMaintenance && !set[0].Unchecked,
		"maintenance through one agent, the other one failed: got %+v", set)

	elsewhere := entry(func(e *api.ServiceEntry) { e.Service.Address = "10.0.0.2" })
	set, _ = instances(listed(t, here, elsewhere), &ServiceOptions{Service: "star"})
	verify.Equal(t, len(set), 2, "the same id at another address: got %v", set)
}

// A process registers again with another agent: what it says now counts, whatever the nodes are
// called. The status is the best one nevertheless.
func TestNewestRegistrationOfAProcessCounts(t *testing.T) {
	for _, nodes := range [][2]string{{"a", "b"}, {"b", "a"}} {
		old := entry(func(e *api.ServiceEntry) {
			e.Node.Node, e.Service.Tags, e.Service.Weights, e.Service.ModifyIndex = nodes[0], []string{"v1"}, api.AgentWeights{Passing: 1, Warning: 1}, 10
		})
		latest := entry(func(e *api.ServiceEntry) {
			e.Node.Node, e.Service.Tags, e.Service.Weights, e.Service.ModifyIndex = nodes[1], []string{"v2"}, api.AgentWeights{Passing: 7, Warning: 3}, 11
			e.Service.Meta = map[string]string{"version": "2"}
		})
		for _, status := range []string{"passing", "critical"} {
			discoverytest.Health(latest, status, "")
			for _, entries := range [][]*api.ServiceEntry{{old, latest}, {latest, old}} {
				set, _ := instances(listed(t, entries...), &ServiceOptions{Service: "star"})
				verify.Require(t, len(set) == 1, "nodes %q, the newest is %s: got %+v", nodes, status, set)
				i := set[0]
				verify.That(t, slices.Equal(i.Tags, []string{"v2"}) && i.Meta["version"] == "2" && i.Weight == 7 &&
					i.Status == discovery.StatusPassing && i.Node == "a", "nodes %q, the newest is %s: got %+v", nodes, status, i)
			}
		}
	}
}

func TestDetailIsOneShortLine(t *testing.T) {
	got := detail("check", "HTTP GET http://10.0.0.1/: 500\n\n Output:\t"+strings.Repeat("ü", 300))
	verify.That(t, !strings.ContainsAny(got, "\n\t") && len(got) <= 200+len("…") && strings.HasSuffix(got, "ü…"), "got %q", got)
}

// FuzzInstances converts answers of any form.
func FuzzInstances(f *testing.F) {
	f.Add(verify.Result(json.Marshal([]*api.ServiceEntry{entry(nil)})).Must(f))
	f.Add([]byte(`[{"Node":null}]`))
	f.Add([]byte(`[{"Node":{},"Service":{"Port":-1},"Checks":[null,{"CheckID":"_service_maintenance:"}]}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		entries, err := readEntries(bytes.NewReader(body), "")
		if err != nil {
			return
		}
		set, skipped := instances(entries, &ServiceOptions{Service: "star"})
		verify.Require(t, len(set)+len(skipped) <= len(entries), "%d instances and %d skipped from %d entries", len(set), len(skipped), len(entries))
		for _, i := range set {
			verify.Require(t, discovery.MayBeInstance(i.Address) && i.Port >= 1 && i.Port <= 65535 &&
				i.Weight >= 0 && i.Weight <= discovery.MaxWeight, "unusable instance %+v", i)
			verify.Require(t, i.Status < discovery.StatusCritical || i.Weight == 0, "traffic for %+v", i)
		}
	})
}

// A check without an output says in every case what is known.
func TestDetailOfChecksWithoutOutput(t *testing.T) {
	const name, never = "Service 'star' check: ", "it has not passed since it was registered, and Consul has no output of it yet"
	check := func(status, output string, created, modified uint64) *api.HealthCheck {
		return &api.HealthCheck{CheckID: "service:star-1", Name: "Service 'star' check", Status: status, Output: output, CreateIndex: created, ModifyIndex: modified}
	}
	for _, tt := range []struct {
		name   string
		checks []*api.HealthCheck
		want   string
	}{
		{"never passed", []*api.HealthCheck{check("critical", "", 7, 7)}, name + never},
		{"blank", []*api.HealthCheck{check("critical", " \n", 7, 7)}, name + never},
		{"passed before", []*api.HealthCheck{check("critical", "", 7, 9)}, name + "Consul has no output of it"},
		{"warning", []*api.HealthCheck{check("warning", "", 7, 7)}, name + "Consul has no output of it"},
		{"an output", []*api.HealthCheck{check("critical", "refused", 7, 7)}, name + "refused"},
		{"without a name", []*api.HealthCheck{{CheckID: "a", Status: "critical"}}, "a: Consul has no output of it"},
		{"another one has an output", []*api.HealthCheck{{CheckID: "a", Status: "critical"}, check("critical", "refused", 7, 9), {CheckID: "z", Status: "critical", Output: "z"}}, name + "refused"},
		{"a better one has an output", []*api.HealthCheck{check("critical", "", 7, 7), {CheckID: "z", Status: "warning", Output: "slow"}}, name + never},
		{"maintenance without a reason", []*api.HealthCheck{check("critical", "", 7, 7), {CheckID: api.ServiceMaintPrefix + "star-1", Status: "critical"}}, "service maintenance"},
	} {
		set, _ := instances(listed(t, entry(func(e *api.ServiceEntry) { e.Checks = tt.checks })), &ServiceOptions{Service: "star"})
		verify.That(t, len(set) == 1 && set[0].Detail == tt.want, "%s: got %+v, want %q", tt.name, set, tt.want)
	}
}

// A name chooses one of several ports, also beside a tagged address. An instance that has no port
// with the name is not used, and another port of it neither.
func TestNamedPorts(t *testing.T) {
	several := api.ServicePorts{{Name: "http", Port: 8080, Default: true}, {Name: "admin", Port: 9090}}
	tagged := map[string]api.ServiceAddress{"wan": {Address: "192.0.2.1", Port: 443}}
	for _, tt := range []struct {
		name, port, tag, want string
		change                func(*api.AgentService)
	}{
		{"default", "", "", "10.0.0.1:8080", func(s *api.AgentService) { s.Ports = several }},
		{"named", "admin", "", "10.0.0.1:9090", func(s *api.AgentService) { s.Ports = several }},
		{"named, tagged address", "admin", "wan", "192.0.2.1:9090", func(s *api.AgentService) { s.Ports, s.TaggedAddresses = several, tagged }},
		{"tagged address", "", "wan", "192.0.2.1:443", func(s *api.AgentService) { s.Ports, s.TaggedAddresses = several, tagged }},
		{"another name", "grpc", "", "", func(s *api.AgentService) { s.Ports = several }},
		{"one port without a name", "admin", "", "", func(*api.AgentService) {}},
	} {
		e := entry(func(e *api.ServiceEntry) { e.Service.Address = "10.0.0.1"; tt.change(e.Service) })
		set, skipped := instances(listedAt(t, tt.tag, e), &ServiceOptions{Service: "star", Address: tt.tag, Port: tt.port})
		if tt.want != "" {
			verify.That(t, len(set) == 1 && set[0].HostPort() == tt.want, "%s: got %+v, skipped %v, want %s", tt.name, set, skipped, tt.want)
			continue
		}
		verify.Require(t, len(set) == 0 && len(skipped) == 1, "%s: got %+v, skipped %v", tt.name, set, skipped)
		verify.Contains(t, skipped[0].Reason, strconv.Quote(tt.port), "%s: why it is skipped", tt.name)
	}
}

// Checks may connect to another port than requests. An instance without it is not used: nobody
// would check it.
func TestNamedPortsOfChecks(t *testing.T) {
	e := entry(func(e *api.ServiceEntry) {
		e.Service.Ports = api.ServicePorts{{Name: "http", Port: 8080, Default: true}, {Name: "admin", Port: 9090}}
	})
	set, _ := instances(listed(t, e), &ServiceOptions{Service: "star", CheckPort: "admin"})
	verify.That(t, len(set) == 1 && set[0].Port == 8080 && set[0].CheckPort == 9090, "got %+v", set)
	set, skipped := instances(listed(t, e), &ServiceOptions{Service: "star", Port: "http", CheckPort: "grpc"})
	verify.Require(t, len(set) == 0 && len(skipped) == 1, "without the port of checks: %+v, skipped %v", set, skipped)
	verify.Contains(t, skipped[0].Reason, `"grpc"`, "why it is skipped")
}

// Whether a critical check has run is not known without an output, until its first interval is
// over.
func TestWhenAChecksFirstResultIsDue(t *testing.T) {
	t.Parallel()
	critical := func(id, output, interval, timeout string) *entryCheck {
		return &entryCheck{CheckID: id, Status: "critical", Output: output, Interval: interval, Timeout: timeout}
	}
	for name, test := range map[string]struct {
		checks    []*entryCheck
		unchecked bool
		first     time.Duration
	}{
		"interval and timeout": {[]*entryCheck{critical("a", "", "3s", "1s")}, true, 4 * time.Second},
		"Consul's timeout":     {[]*entryCheck{critical("a", "", "3s", "")}, true, 13 * time.Second},
		"a TTL":                {[]*entryCheck{critical("a", "", "", "")}, true, 10 * time.Second},
		"nonsense":             {[]*entryCheck{critical("a", "", "-1s", "x")}, true, 10 * time.Second},
		"the first of two":     {[]*entryCheck{nil, critical("a", "", "1m", "1s"), critical("b", "", "3s", "1s")}, true, 4 * time.Second},
		"a result":             {[]*entryCheck{critical("a", "", "1m", "1s"), critical("b", "refused", "3s", "1s")}, false, 0},
		"the agent is gone":    {[]*entryCheck{critical(serfHealth, "Agent not live", "", ""), critical("a", "", "3s", "1s")}, true, 0},
		"none is critical":     {[]*entryCheck{{CheckID: "a", Status: "passing"}}, false, 0},
	} {
		unchecked, first := serviceEntry{Checks: test.checks}.unchecked()
		verify.That(t, unchecked == test.unchecked && first == test.first, "%s: got %v, %v, want %v, %v", name, unchecked, first, test.unchecked, test.first)
	}
}

// FuzzReadEntries reads answers in Consul's format with any content.
func FuzzReadEntries(f *testing.F) {
	for _, entries := range [][]*api.ServiceEntry{
		nil, {}, {nil},
		{entry(nil), discoverytest.Maintenance(entry(nil), "disk \"swap\"\n☃")},
		{entry(func(e *api.ServiceEntry) {
			e.Service.Tags, e.Service.Meta = []string{"v1", ""}, map[string]string{"a": "b", "": "\\"}
			e.Service.Ports = api.ServicePorts{{Name: "http", Port: 80}, {Name: "grpc", Port: 81, Default: true}}
			e.Service.Proxy = &api.AgentServiceConnectProxyConfig{Config: map[string]any{"ID": []any{1.5, nil, true}}}
			e.Checks = append(e.Checks, nil)
		})},
	} {
		f.Add(verify.Result(json.MarshalIndent(entries, "", "    ")).Must(f))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var entries []*api.ServiceEntry
		if json.Unmarshal(body, &entries) != nil {
			return
		}
		for _, e := range entries { // some of these cannot be written as they were read
			if e != nil && e.Service != nil {
				e.Service.Proxy, e.Service.Connect = nil, nil
			}
		}
		answer, err := json.Marshal(entries)
		if err != nil {
			return
		}
		entries = nil
		if json.Unmarshal(answer, &entries) != nil {
			return
		}
		got, err := readEntries(bytes.NewReader(answer), "")
		verify.Require(t, err == nil, "%s: %v", answer, err)
		want := make([]serviceEntry, len(entries))
		for n, e := range entries {
			want[n] = shorten(e)
		}
		verify.Equal(t, got == nil, entries == nil, "%s: nil", answer)
		verify.Equal(t, text(append([]serviceEntry{}, got...)), text(want), "%s", answer)
	})
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return strings.NewReplacer(":null", ":[]", ":{}", ":[]").Replace(string(b))
}

func TestReadEntriesRejectsOtherValues(t *testing.T) {
	answers := []string{"{}", "5", `"x"`, "[1]", "[] []", "[]x", `[{"Node":5}]`, `[{"Service":{"Port":"x"}}]`, `[{"Checks":{}}]`}
	whole := verify.Result(json.Marshal([]*api.ServiceEntry{entry(nil)})).Must(t)
	for n := range whole {
		answers = append(answers, string(whole[:n]))
	}
	for _, answer := range answers {
		got, err := readEntries(strings.NewReader(answer), "")
		verify.That(t, err != nil, "no error for %q: %v", answer, got)
	}
	for _, tag := range []string{"", "wan"} {
		got, err := readEntries(strings.NewReader("null"), tag)
		verify.That(t, got == nil && err == nil, "null: got %v, %v", got, err)
	}
}
