package doctor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/config"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/test/verify"
)

var now = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

// healthy are facts without findings: star-1 on node a and star-2 on node b.
func healthy() *Facts {
	return &Facts{
		Time:  now,
		Agent: Agent{URL: "http://127.0.0.1:8500", Node: "a", Leader: "10.0.0.1:8300"},
		Nodes: map[string]Node{
			"a": {Name: "a", Address: "10.0.0.1"},
			"b": {Name: "b", Address: "10.0.0.2"},
			"c": {Name: "c", Address: "10.0.0.3"},
		},
		NodeAddresses: map[string]bool{"10.0.0.1": true, "10.0.0.2": true, "10.0.0.3": true, "10.0.0.9": true},
		Instances:     []Instance{star(1, "a", "10.0.0.1", 80), star(2, "b", "10.0.0.2", 80)},
	}
}

// star is a passing instance with a check.
func star(n int, node, address string, port int) Instance {
	return Instance{Checks: 1, Modified: uint64(n), Instance: discovery.Instance{
		Service: "star", ID: fmt.Sprintf("star-%d", n), Node: node, Address: address, Port: port, Weight: 1,
	}}
}

// with returns i after change.
func (i Instance) with(change func(*Instance)) Instance {
	change(&i)
	return i
}

func critical(i *Instance) {
	i.Status, i.Weight, i.Critical = discovery.StatusCritical, 0, "http: refused"
}

// brief is the compared part of a finding.
func brief(f Finding) string {
	s := fmt.Sprintf("%v %s", f.Severity, f.Code)
	if subject := f.subject(); subject != "" {
		s += " " + subject
	}
	if f.Fix != nil {
		s += fmt.Sprintf("; %s@%s stays, possible %v", f.Fix.KeepID, f.Fix.KeepNode, f.Fix.Possible)
	}
	return s
}

func briefs(findings []Finding) []string {
	var all []string
	for _, f := range findings {
		all = append(all, brief(f))
	}
	return all
}

func TestDiagnose(t *testing.T) {
	add := func(more ...Instance) func(*Facts) {
		return func(f *Facts) { f.Instances = append(f.Instances, more...) }
	}
	uses := func(more ...Use) func(*Facts) {
		return func(f *Facts) {
			f.Config = new(config.Config)
			f.Uses = append(f.Uses, Use{Name: "star", Service: "star", Routed: true, Listed: 2, Serving: 2})
			f.Uses = append(f.Uses, more...)
		}
	}
	tests := []struct {
		name   string
		change func(*Facts)
		want   []string
	}{
		{"nothing wrong", func(*Facts) {}, nil},
		{"no leader", func(f *Facts) { f.Agent.Leader = "" }, []string{"error no-leader"}},
		{"no leader and no catalog", func(f *Facts) {
			f.Agent.Leader, f.Blind, f.Config = "", "500", new(config.Config)
			f.Uses = []Use{{Name: "x"}}
		}, []string{"error no-leader"}},

		{"no token", func(f *Facts) { f.Token = Token{ACLs: true, DefaultDeny: true, Anonymous: true} }, []string{"error acl-anonymous"}},
		{"no token and none needed", func(f *Facts) { f.Token = Token{ACLs: true, Anonymous: true} }, nil},
		{"filtered", func(f *Facts) { f.Filtered = []string{"/v1/catalog/nodes"} }, []string{"warning acl-filtered"}},
		{"agent does not say who it is", func(f *Facts) { f.Agent.Refused = "403" }, []string{"notice acl-agent"}},

		{"all is used", uses(), nil},
		{"service missing", uses(Use{Name: "x", Service: "y", Routed: true}), []string{"error service-missing y"}},
		{"service missing that no route uses", uses(Use{Name: "x", Service: "y"}), []string{"warning service-missing y", "notice unrouted y"}},
		{"service hidden", uses(Use{Name: "x", Service: "y", Routed: true, Hidden: true}), []string{"error acl-service y"}},
		{"service forbidden", uses(Use{Name: "x", Service: "y", Routed: true, Refused: "403", Forbidden: true}), []string{"error acl-service y"}},
		{"service refused", uses(Use{Name: "x", Service: "y", Routed: true, Refused: "500"}), []string{"error service-refused y"}},
		{"service without an instance in service", uses(Use{Name: "x", Service: "y", Routed: true, Listed: 3}), []string{"error service-empty y"}},
		{"service asked for by name", func(f *Facts) { f.Uses = []Use{{Service: "y", Routed: true}} }, []string{"error service-missing y"}},
		{"service asked for by name that no route uses", uses(Use{Service: "y", Routed: true, Listed: 1, Serving: 1}), nil},
		{"prepared query without result", uses(Use{Name: "geo", Routed: true}), []string{"error service-missing geo"}},
		{"service in Consul that no route uses", func(f *Facts) { f.Config = new(config.Config) }, []string{"notice unused star"}},
		{"sluice itself needs no route", func(f *Facts) { f.Config, f.Own = new(config.Config), "star" }, nil},
		{"sidecar that no route uses", func(f *Facts) {
			uses()(f)
			add(star(3, "a", "10.0.0.1", 81).with(func(i *Instance) { i.Service, i.Sidecar = "star-sidecar-proxy", true }))(f)
		}, nil},

		{"port 0", add(star(3, "a", "10.0.0.1", 0).with(func(i *Instance) { i.Unusable = "it has port 0" })), []string{"error no-port star star-3 on node a, 10.0.0.1:0"}},
		{"port 0 of what no route uses", func(f *Facts) {
			uses()(f)
			add(star(3, "a", "10.0.0.1", 0).with(func(i *Instance) { i.Service, i.Unusable = "batch", "it has port 0" }))(f)
		}, []string{"notice no-port batch star-3 on node a, 10.0.0.1:0", "notice unused batch"}},
		{"no tagged address", add(star(3, "a", "10.0.0.1", 81).with(func(i *Instance) { i.Contact, i.LacksTag = "10.0.0.1:81", "wan" })), []string{"warning no-tagged-address star star-3 on node a, 10.0.0.1:81"}},
		{"a refused tagged address", func(f *Facts) {
			add(star(3, "a", "10.0.0.1", 81).with(func(i *Instance) { i.Contact = "192.0.2.1:81" }))(f)
			f.Peers = []Peer{{Node: "a", ID: "star-3", Address: "192.0.2.1:81", Refused: "no"}}
		}, []string{"error refused-address star star-3 on node a, 10.0.0.1:81"}},
		{"loopback elsewhere", add(star(3, "b", "127.0.0.1", 80)), []string{"error loopback-address star star-3 on node b, 127.0.0.1:80"}},
		{"loopback elsewhere, mapped", add(star(3, "b", "::ffff:127.0.0.1", 80)), []string{"error loopback-address star star-3 on node b, [::ffff:127.0.0.1]:80"}},
		{"loopback elsewhere, out of service", add(star(3, "b", "::1", 80).with(func(i *Instance) { i.Status, i.Weight = discovery.StatusMaintenance, 0 })), []string{"warning loopback-address star star-3 on node b, [::1]:80"}},
		{"loopback here", add(star(3, "a", "127.0.0.1", 80)), nil},
		{"loopback on a node of this machine", func(f *Facts) {
			f.Nodes["b"] = Node{Name: "b", Address: "127.0.0.1"}
			add(star(3, "b", "127.0.0.1", 80))(f)
		}, nil},
		{"loopback on a node of that name elsewhere", func(f *Facts) { f.Remote = true; add(star(3, "a", "127.0.0.1", 80))(f) }, []string{"error loopback-address star star-3 on node a, 127.0.0.1:80"}},
		{"host name", add(star(3, "a", "localhost", 80)), nil},
		{"refused by a running sluice", func(f *Facts) {
			f.Peers = []Peer{{Node: "a", ID: "star-3", Address: "localhost:80", Refused: `127.0.0.1:80 is the listener "admin" of sluice itself`}}
			add(star(3, "a", "localhost", 80))(f)
		}, []string{"error refused-address star star-3 on node a, localhost:80"}},
		{"refused, and known why anyway", func(f *Facts) {
			f.Peers = []Peer{{Node: "b", ID: "star-3", Address: "127.0.0.1:80", Refused: "127.0.0.1 is a loopback address"}}
			add(star(3, "b", "127.0.0.1", 80))(f)
		}, []string{"error loopback-address star star-3 on node b, 127.0.0.1:80"}},
		{"silent", func(f *Facts) { f.Silent = map[string]string{"10.0.0.2:80": "refused"} }, []string{"error unreachable star star-2 on node b, 10.0.0.2:80"}},

		{"dead node", func(f *Facts) {
			f.Nodes["b"] = Node{Name: "b", Address: "10.0.0.2", Liveness: NodeDead}
			critical(&f.Instances[1])
		}, []string{"warning dead-node star star-2 on node b, 10.0.0.2:80"}},
		{"node without agent", func(f *Facts) { f.Nodes["b"] = Node{Name: "b", Liveness: NodeWithoutAgent} }, []string{"warning no-agent star star-2 on node b, 10.0.0.2:80"}},
		{"node without agent, watched", func(f *Facts) { f.Nodes["b"] = Node{Name: "b", Liveness: NodeWithoutAgent, Watched: true} }, []string{"notice no-agent star star-2 on node b, 10.0.0.2:80"}},
		{"no check", add(star(3, "a", "10.0.0.1", 81).with(func(i *Instance) { i.Checks = 0 })), []string{"warning no-check star star-3 on node a, 10.0.0.1:81"}},
		{"critical, nobody knows since when", add(star(3, "a", "10.0.0.1", 81).with(critical)), []string{"notice critical star star-3 on node a, 10.0.0.1:81"}},
		{"critical for an hour", func(f *Facts) {
			f.Peers = []Peer{{Node: "a", ID: "star-3", Address: "10.0.0.1:81", Critical: true, Since: now.Add(-time.Hour)}}
			add(star(3, "a", "10.0.0.1", 81).with(critical))(f)
		}, []string{"warning critical-long star star-3 on node a, 10.0.0.1:81"}},
		{"critical for less", func(f *Facts) {
			f.Peers = []Peer{{Node: "a", ID: "star-3", Address: "10.0.0.1:81", Critical: true, Since: now.Add(-59 * time.Minute)}}
			add(star(3, "a", "10.0.0.1", 81).with(critical))(f)
		}, nil},

		{"sluice's checks hear another service", func(f *Facts) { f.Peers = []Peer{{Node: "a", ID: "star-1", Address: "10.0.0.1:80", Other: `"moon"`}} },
			[]string{"error other-service star star-1 on node a, 10.0.0.1:80"}},
		{"its own check hears another service", func(f *Facts) {
			f.Instances[0].Status, f.Instances[0].Critical = discovery.StatusCritical, `app: http GET /health: another service answers: "moon/moon-1"`
		}, []string{"error other-service star star-1 on node a, 10.0.0.1:80", "notice critical star star-1 on node a, 10.0.0.1:80"}},

		{"an address that another service has now", add(star(3, "a", "10.0.0.1", 80).with(func(i *Instance) { i.Service = "other" })),
			[]string{"notice shared-address star star-1 on node a, 10.0.0.1:80"}},
		{"out of service at an address that another service has", add(star(3, "a", "10.0.0.1", 80).with(func(i *Instance) { i.Service = "other"; critical(i) })),
			[]string{"notice critical other star-3 on node a, 10.0.0.1:80"}},
		{"all addresses of two services", add(star(3, "a", "10.0.0.1", 80).with(func(i *Instance) { i.Service = "other" }),
			star(4, "b", "10.0.0.2", 80).with(func(i *Instance) { i.Service = "other" })), nil},
		{"a service that has one address of another", add(star(0, "a", "10.0.0.1", 80).with(func(i *Instance) { i.Service = "other" })), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := healthy()
			test.change(f)
			findings := Diagnose(f, time.Hour)
			got := briefs(findings)
			verify.That(t, slices.Equal(got, test.want), "got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			for _, f := range findings {
				verify.That(t, f.Seen != "" && f.Why != "" && f.Do != "", "%s lacks a text: %+v", f.Code, f)
			}
		})
	}
}

func TestDuplicates(t *testing.T) {
	// alive is an agent with registrations at 10.0.0.1:80, or at 10.0.0.9:80.
	alive := func(ids ...string) NodeAgent {
		o := NodeAgent{URL: "http://agent", Services: make(map[string]Registration)}
		for _, id := range ids {
			o.Services[id] = Registration{"star", "10.0.0.1:80"}
		}
		return o
	}
	moved := func() NodeAgent {
		return NodeAgent{URL: "http://agent", Services: map[string]Registration{"star-1": {"star", "10.0.0.9:80"}}}
	}
	again := star(1, "b", "10.0.0.1", 80).with(func(i *Instance) { i.Modified = 9 }) // star-1, written later
	both := map[string]NodeAgent{"a": alive("star-1"), "b": alive("star-1")}
	const possible = "star star-1 on node b, 10.0.0.1:80; star-1@a stays, possible true"
	leftA := []string{"warning duplicate star star-1 on node a, 10.0.0.1:80; star-1@b stays, possible false"}
	leftB := []string{"warning duplicate star star-1 on node b, 10.0.0.1:80; star-1@a stays, possible false"}
	tests := []struct {
		name   string
		change func(*Facts)
		want   []string
		whyNot string // of the first one
	}{
		{"both agents have it: the one whose address it is", func(f *Facts) { f.NodeAgents = both }, []string{"warning duplicate " + possible}, ""},
		{"both agents have it: the one written last", func(f *Facts) {
			f.NodeAgents = map[string]NodeAgent{"a": moved(), "b": moved()}
			f.Instances[0].Address, f.Instances[2].Address = "10.0.0.9", "10.0.0.9"
		}, []string{"warning duplicate star star-1 on node a, 10.0.0.9:80; star-1@b stays, possible true"}, ""},
		{"both agents have it: the one written last, the other way round", func(f *Facts) {
			f.NodeAgents = map[string]NodeAgent{"a": moved(), "b": moved()}
			f.Instances[0].Address, f.Instances[2].Address = "10.0.0.9", "10.0.0.9"
			f.Instances[0].Modified = 10
		}, []string{"warning duplicate star star-1 on node b, 10.0.0.9:80; star-1@a stays, possible true"}, ""},
		{"both agents have it: the one that passes", func(f *Facts) {
			f.NodeAgents = both
			f.Instances[0].Status = discovery.StatusWarning
		}, []string{"warning duplicate star star-1 on node a, 10.0.0.1:80; star-1@b stays, possible true"}, ""},
		{"what would stay does not pass", func(f *Facts) {
			f.NodeAgents = both
			f.Instances[0].Status, f.Instances[2].Status = discovery.StatusWarning, discovery.StatusWarning
		}, leftB, "is warning"},
		{"in maintenance mode", func(f *Facts) {
			f.NodeAgents = both
			f.Instances[2].Status = discovery.StatusMaintenance
		}, leftB, "maintenance"},
		{"its agent does not know it", func(f *Facts) { f.NodeAgents = map[string]NodeAgent{"a": alive("star-1"), "b": alive()} }, leftB, "anti-entropy"},
		{"its agent does not answer", func(f *Facts) {
			f.NodeAgents = map[string]NodeAgent{"a": alive("star-1"), "b": {Problem: "refused"}}
		}, leftB, "does not answer (refused)"},
		{"its agent was not asked", func(f *Facts) { f.NodeAgents = map[string]NodeAgent{"a": alive("star-1")} }, leftB, "was not queried"},
		{"its node is dead", func(f *Facts) {
			f.Nodes["b"] = Node{Liveness: NodeDead}
			f.NodeAgents = map[string]NodeAgent{"a": alive("star-1")}
			f.Instances = slices.Delete(f.Instances, 1, 2)
		}, []string{"warning duplicate star star-1 on node b, 10.0.0.1:80; star-1@a stays, possible false", "warning dead-node star star-1 on node b, 10.0.0.1:80"}, "agent is dead"},
		{"its node has no agent", func(f *Facts) {
			f.Nodes["b"] = Node{Liveness: NodeWithoutAgent, Watched: true}
			f.NodeAgents = map[string]NodeAgent{"a": alive("star-1")}
			f.Instances = slices.Delete(f.Instances, 1, 2)
		}, []string{"warning duplicate star star-1 on node b, 10.0.0.1:80; star-1@a stays, possible false", "notice no-agent star star-1 on node b, 10.0.0.1:80"}, "has no agent"},
		{"they differ: the one written last", func(f *Facts) {
			f.NodeAgents = both
			f.Instances[2].Tags = []string{"v2"}
		}, leftA, `its tags are [], the ones of star-1 on node b are ["v2"]`},
		{"they differ: the operator keeps the other one", func(f *Facts) {
			f.NodeAgents, f.Keep = both, "a"
			f.Instances[2].Tags = []string{"v2"}
		}, leftB, "its tags are"},
		{"the operator keeps one that does not pass", func(f *Facts) {
			f.NodeAgents, f.Keep = both, "b"
			f.Instances[2].Status = discovery.StatusCritical
		}, leftA, "is critical"},
		{"the operator keeps one whose agent does not know it", func(f *Facts) {
			f.NodeAgents, f.Keep = map[string]NodeAgent{"a": alive("star-1"), "b": alive()}, "b"
		}, leftA, "is not the live one"},
		{"the operator keeps one on a node without any", func(f *Facts) { f.NodeAgents, f.Keep = both, "c" }, leftB, "no registration on node c"},
		{"another id at the address", func(f *Facts) {
			f.NodeAgents = map[string]NodeAgent{"a": alive("star-1", "star-7")}
			f.Instances[2] = star(7, "a", "10.0.0.1", 80)
		}, []string{"warning duplicate-address star star-1 on node a, 10.0.0.1:80; star-7@a stays, possible true"}, ""},
		{"three", func(f *Facts) {
			f.NodeAgents = map[string]NodeAgent{"a": alive("star-1"), "b": alive("star-1"), "c": alive("star-1")}
			f.Instances = append(f.Instances, star(1, "c", "10.0.0.1", 80))
		}, []string{"warning duplicate " + possible, "warning duplicate star star-1 on node c, 10.0.0.1:80; star-1@a stays, possible true"}, ""},
		{"loopback addresses of two machines are two processes", func(f *Facts) {
			f.Instances = []Instance{star(1, "a", "127.0.0.1", 80), star(1, "b", "127.0.0.1", 80)}
		}, []string{"error loopback-address star star-1 on node b, 127.0.0.1:80"}, ""},

		{"same id elsewhere", func(f *Facts) { f.Instances[2].Address = "10.0.0.2"; f.Instances[2].Port = 81 }, nil, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := healthy()
			f.Instances = append(f.Instances, again)
			test.change(f)
			findings := Diagnose(f, time.Hour)
			got := briefs(findings)
			verify.Require(t, slices.Equal(got, test.want), "got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			if len(findings) > 0 && findings[0].Fix != nil {
				verify.Contains(t, findings[0].Fix.WhyNot, test.whyNot, "why not")
			}
		})
	}
}

// Registrations that may be different processes are kept: one may be the only registration
// of a healthy instance.
func TestDuplicatesThatMayBeDifferentProcesses(t *testing.T) {
	for _, test := range []struct {
		name     string
		address  string
		change   func(dropped *Instance)
		findings int // of the kind
		whyNot   string
		confirm  bool
	}{
		{"the address of a node", "10.0.0.1", nil, 1, "", false},
		{"a name that each machine has for itself", "localhost", nil, 0, "", false},
		{"below it", "exporter.localhost", nil, 0, "", false},
		{"a name", "exporter", nil, 1, "exporter is a name", true},
		{"a loopback address", "127.0.0.1", nil, 0, "", false},
		{"an IPv6 loopback address", "::1", nil, 0, "", false},
		{"an unspecified address", "0.0.0.0", nil, 0, "", false},
		{"a link-local address", "169.254.1.1", nil, 0, "", false},
		{"an IPv6 link-local address", "fe80::1", nil, 0, "", false},
		{"a bridge of Docker", "172.17.0.2", nil, 1, "no node of the catalog has the address 172.17.0.2", true},
		{"a bridge of Podman", "10.88.0.2", nil, 1, "no node of the catalog has the address 10.88.0.2", true},
		{"a bridge of Docker, and other tags", "172.17.0.2", func(i *Instance) { i.Tags = []string{"canary"} }, 1, `and its tags are [], the ones of star-1 on node b are ["canary"]`, true},
		{"a bridge of Docker, in maintenance mode", "172.17.0.2", func(i *Instance) { i.Status = discovery.StatusMaintenance }, 1, "maintenance", false},
		{"other tags", "10.0.0.1", func(i *Instance) { i.Tags = []string{"canary"} }, 1, `its tags are [], the ones of star-1 on node b are ["canary"]`, true},
		{"other meta", "10.0.0.1", func(i *Instance) { i.Meta = map[string]string{"version": "2"} }, 1, `its meta values are map[], the ones of star-1 on node b are map["version":"2"]`, true},
		{"more checks", "10.0.0.1", func(i *Instance) { i.Checks, i.CheckKinds = 2, []string{"alive http", "alive tcp"} }, 1, `its checks are [], the ones of star-1 on node b are ["alive http" "alive tcp"]`, true},
		{"other checks", "10.0.0.1", func(i *Instance) { i.CheckKinds = []string{"alive http"} }, 1, `its checks are [], the ones of star-1 on node b are ["alive http"]`, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := healthy()
			first, second := star(1, "a", test.address, 80), star(1, "b", test.address, 80)
			if test.change != nil {
				test.change(&second)
			}
			f.Instances = []Instance{first, second}
			own := NodeAgent{URL: "http://agent", Services: map[string]Registration{"star-1": {"star", first.address()}}}
			f.NodeAgents = map[string]NodeAgent{"a": own, "b": own}
			findings := f.duplicateFindings()
			verify.Require(t, len(findings) == test.findings, "%d findings: %+v", len(findings), findings)
			for _, finding := range findings {
				verify.That(t, finding.Fix.Possible == (test.whyNot == "") && strings.Contains(finding.Fix.WhyNot, test.whyNot), "%+v, want %q", finding.Fix, test.whyNot)
				verify.That(t, finding.Fix.Confirm == test.confirm && test.confirm == strings.Contains(finding.Do, "sluice doctor --fix deregisters it, after you confirm"), "%+v: %s; to be confirmed: %v", finding.Fix, finding.Do, test.confirm)
			}
		})
	}
}

// Without the nodes, no address is known to be the address of one.
func TestDuplicatesWithUnknownNodes(t *testing.T) {
	f := healthy()
	f.NodeAddresses = nil
	f.Instances = []Instance{star(1, "a", "10.0.0.1", 80), star(1, "b", "10.0.0.1", 80)}
	own := NodeAgent{Services: map[string]Registration{"star-1": {"star", "10.0.0.1:80"}}}
	f.NodeAgents = map[string]NodeAgent{"a": own, "b": own}
	findings := f.duplicateFindings()
	verify.That(t, len(findings) == 1 && findings[0].Fix.Confirm && strings.HasPrefix(findings[0].Fix.WhyNot, "the nodes of the catalog could not be read"), "%+v", findings)
}

// Containers on one machine may have the same loopback address.
func TestTwoIDsWithOneLoopbackAddress(t *testing.T) {
	f := healthy()
	f.Instances = []Instance{star(1, "a", "127.0.0.1", 80), star(2, "a", "127.0.0.1", 80)}
	f.NodeAgents = map[string]NodeAgent{"a": {Services: map[string]Registration{"star-1": {"star", "127.0.0.1:80"}, "star-2": {"star", "127.0.0.1:80"}}}}
	findings := f.duplicateFindings()
	verify.That(t, len(findings) == 1 && !findings[0].Fix.Possible && strings.Contains(findings[0].Fix.WhyNot, "127.0.0.1"), "%+v", findings)
}

// The agent may have reused the id since the catalog was read.
func TestReusedID(t *testing.T) {
	for _, now := range []Registration{{"moon", "10.0.0.1:80"}, {"star", "10.0.0.1:81"}, {"star", "10.0.0.2:80"}} {
		f := healthy()
		f.Instances = []Instance{star(1, "a", "10.0.0.1", 80), star(1, "b", "10.0.0.1", 80)}
		f.NodeAgents = map[string]NodeAgent{
			"a": {Services: map[string]Registration{"star-1": {"star", "10.0.0.1:80"}}},
			"b": {Services: map[string]Registration{"star-1": now}},
		}
		findings, why := f.duplicateFindings(), fmt.Sprintf("its agent has this id for %s at %s", now.Service, now.Address)
		verify.That(t, len(findings) == 1 && findings[0].Node == "b" && !findings[0].Fix.Possible &&
			strings.Contains(findings[0].Fix.WhyNot, why),
			"%+v: %+v", now, findings)
	}
}

func TestCommandsQuoteNames(t *testing.T) {
	f := healthy()
	f.Nodes["it's\n$(x)"] = Node{Liveness: NodeWithoutAgent}
	f.Instances = []Instance{star(1, "it's\n$(x)", "10.0.0.1", 80)}
	got := Diagnose(f, 0)[0].Command
	want := `curl -X PUT -H "X-Consul-Token: $CONSUL_HTTP_TOKEN" -d '{"Node":"it'\''s\n$(x)","ServiceID":"star-1"}' "$CONSUL_HTTP_ADDR/v1/catalog/deregister"`
	verify.That(t, got == want, "got  %s\nwant %s", got, want)
}

// Another agent may have the same id.
func TestDeregistrationCommandNamesTheAgent(t *testing.T) {
	f := healthy()
	f.NodeAgents = map[string]NodeAgent{"b": {URL: "https://10.0.0.2:8501"}, "c": {URL: "http://10.0.0.3:8500", Problem: "refused"}}
	for node, want := range map[string]string{
		"a":   "consul services deregister -id=star-1 -http-addr=http://127.0.0.1:8500",
		"b":   "consul services deregister -id=star-1 -http-addr=https://10.0.0.2:8501",
		"c":   "ssh c 'consul services deregister -id=star-1'",
		"-oX": "",
	} {
		verify.Equal(t, f.agentDeregister(star(1, node, "10.0.0.1", 80)), want, "on node %s", node)
	}
	f.Remote = true
	verify.Equal(t, f.agentDeregister(star(1, "a", "10.0.0.1", 80)), "ssh a 'consul services deregister -id=star-1'", "on a node with that name in another data centre")
}

func TestSelects(t *testing.T) {
	instances := []Instance{
		star(1, "a", "10.0.0.1", 80).with(func(i *Instance) { i.Tags = []string{"v1", "x"} }),
		star(2, "a", "10.0.0.1", 81).with(func(i *Instance) { i.Tags, i.Status = []string{"v1"}, discovery.StatusWarning }),
		star(3, "a", "10.0.0.1", 82).with(critical),
		star(4, "a", "10.0.0.1", 0).with(func(i *Instance) { i.Unusable = "it has port 0" }),
		star(5, "a", "10.0.0.1", 84).with(func(i *Instance) { i.Service = "other" }),
	}
	tests := []struct {
		options         consulsource.ServiceOptions
		listed, serving int
	}{
		{consulsource.ServiceOptions{Service: "star"}, 4, 2},
		{consulsource.ServiceOptions{Service: "star", PassingOnly: true}, 4, 1},
		{consulsource.ServiceOptions{Service: "star", Tags: []string{"v1"}}, 2, 2},
		{consulsource.ServiceOptions{Service: "star", Tags: []string{"v1", "x"}}, 1, 1},
		{consulsource.ServiceOptions{Service: "nope"}, 0, 0},
	}
	for _, test := range tests {
		selected, serving := selects(instances, test.options)
		verify.That(t, len(selected) == test.listed && serving == test.serving, "%+v: %d, %d; want %d, %d", test.options, len(selected), serving, test.listed, test.serving)
	}
}

// FuzzDuplicates checks these rules with any registrations of a service: one registration of
// each process stays; another is removed only if its own agent has it, and the one that
// stays passes.
func FuzzDuplicates(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{0, 0, 0, 0, 16, 16, 80, 80, 255, 17})
	f.Fuzz(func(t *testing.T, data []byte) {
		facts := healthy()
		facts.Instances, facts.NodeAgents = nil, make(map[string]NodeAgent)
		nodes := []string{"a", "b", "c"}
		seen := make(map[instanceKey]bool)
		for n, b := range data {
			node := nodes[int(b)%len(nodes)]
			i := star(int(b>>2)%4, node, fmt.Sprintf("10.0.0.%d", b>>4%3), 80)
			i.Modified = uint64(n)
			if i.Status = discovery.Status(b >> 5 % 4); i.Status >= discovery.StatusCritical {
				i.Weight = 0
			}
			if seen[i.key()] {
				continue
			}
			seen[i.key()] = true
			facts.Instances = append(facts.Instances, i)
			if facts.NodeAgents[node].Services == nil && b&1 == 0 {
				facts.NodeAgents[node] = NodeAgent{Services: map[string]Registration{i.ID: {i.Service, i.address()}}}
			}
			if b&8 != 0 {
				facts.Nodes[node] = Node{Name: node, Liveness: Liveness(b % 3)}
			}
		}
		processes := make(map[string]int)
		byKey := make(map[instanceKey]Instance)
		for _, i := range facts.Instances {
			processes[i.address()]++
			byKey[i.key()] = i
		}
		found := make(map[string]int)
		for _, finding := range facts.duplicateFindings() {
			found[finding.Address]++
			keep := byKey[instanceKey{finding.Fix.KeepNode, finding.Fix.KeepID}]
			verify.That(t, keep.address() == finding.Address && (keep.Node != finding.Node || keep.ID != finding.ID), "%+v: the remaining registration is %+v", finding, keep)
			may := keep.Status == discovery.StatusPassing &&
				facts.NodeAgents[finding.Node].Services[finding.ID] == Registration{"star", finding.Address} &&
				facts.Nodes[finding.Node].Liveness == NodeAlive
			verify.That(t, may || !finding.Fix.Possible, "%+v must not be possible", finding.Fix)
		}
		for address, n := range processes {
			verify.Equal(t, found[address], n-1, "%s: %d registrations, findings", address, n)
		}
	})
}

type instanceKey struct{ node, id string }

func (i Instance) key() instanceKey { return instanceKey{i.Node, i.ID} }
