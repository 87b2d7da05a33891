package doctor

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	consulsource "sluice/discovery/consul"
	"sluice/test/configtest"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// register registers an instance of star at 127.0.0.1.
func register(t *testing.T, agent *consultest.Agent, id string, port int, status string) {
	t.Helper()
	registerAt(t, agent, "127.0.0.1", id, port, status)
}

func registerAt(t *testing.T, agent *consultest.Agent, address, id string, port int, status string) {
	t.Helper()
	verify.NoError(t, agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "star", ID: id, Address: address, Port: port,
		Check: &api.AgentServiceCheck{CheckID: "check-" + id, TTL: "1h", Status: status},
	}))
}

// deregisterAll deregisters all services of agents that run.
func deregisterAll(t *testing.T, agents ...*consultest.Agent) {
	t.Helper()
	for _, agent := range agents {
		if agent.Process() == nil {
			continue
		}
		for id := range verify.Result(agent.Client().Agent().Services()).Must(t) {
			verify.NoError(t, agent.Client().Agent().ServiceDeregister(id))
		}
	}
}

// awaitNodeB waits until the servers report this status of node b's agent.
func awaitNodeB(t *testing.T, server *consultest.Agent, status string) {
	t.Helper()
	consultest.Await(t, "the agent of node b is "+status, func() bool {
		checks, _, err := server.Client().Health().Node("b", nil)
		return err == nil && slices.ContainsFunc(checks, func(c *api.HealthCheck) bool { return c.CheckID == serfHealth && c.Status == status })
	})
}

// registered returns the instances of star as "id@node", sorted; nil on an error.
func registered(agent *consultest.Agent) []string {
	entries, _, err := agent.Client().Health().Service("star", "", false, &api.QueryOptions{RequireConsistent: true})
	if err != nil {
		return nil
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Service.ID+"@"+e.Node.Node)
	}
	slices.Sort(names)
	return names
}

// awaitRegistered waits for the instances of star in the catalog.
func awaitRegistered(t *testing.T, agent *consultest.Agent, want ...string) {
	t.Helper()
	consultest.Await(t, fmt.Sprintf("the catalog has %q", want), func() bool {
		got := registered(agent)
		return got != nil && slices.Equal(got, want)
	})
}

// checkRegistered checks the instances of star in the catalog.
func checkRegistered(t *testing.T, agent *consultest.Agent, want ...string) {
	t.Helper()
	var got []string
	consultest.Await(t, "the catalog answers", func() bool { got = registered(agent); return got != nil })
	verify.Slices(t, got, want, "the catalog")
}

// machine is the address of a node, so that each of its ports belongs to one process.
const machine = "192.0.2.77"

func addMachine(t *testing.T, agent *consultest.Agent) {
	t.Helper()
	verify.Result(agent.Client().Catalog().Register(&api.CatalogRegistration{Node: "machine", Address: machine}, nil)).Must(t)
}

// registerTwice registers star-1 on node b, whose agent is client, and then on
// node a, as if it had moved.
func registerTwice(t *testing.T, server, client *consultest.Agent) {
	t.Helper()
	addMachine(t, server)
	registerAt(t, client, machine, "star-1", 9001, api.HealthPassing)
	awaitRegistered(t, server, "star-1@b")
	registerAt(t, server, machine, "star-1", 9001, api.HealthPassing)
	awaitRegistered(t, server, "star-1@a", "star-1@b")
}

// newDoctor returns a doctor that queries agent; others are the agents of nodes.
func newDoctor(t *testing.T, agent *consultest.Agent, others map[string]string, change func(*Options)) *Doctor {
	t.Helper()
	o := Options{
		Consul:      consul.Options{Addresses: []string{agent.URL()}},
		AgentURLs:   others,
		CriticalFor: time.Hour,
	}
	if change != nil {
		change(&o)
	}
	d := New(o)
	t.Cleanup(d.Close)
	return d
}

func examine(t *testing.T, d *Doctor) *Report {
	t.Helper()
	return verify.Result(d.Examine(t.Context())).Must(t)
}

// of returns the findings with a code.
func (r *Report) of(code Code) []Finding {
	var findings []Finding
	for _, f := range r.Findings {
		if f.Code == code {
			findings = append(findings, f)
		}
	}
	return findings
}

func (r *Report) text(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	verify.NoError(t, r.WriteText(&b))
	return b.String()
}

// one returns the only finding with a code.
func one(t *testing.T, r *Report, code Code) Finding {
	t.Helper()
	findings := r.of(code)
	verify.Require(t, len(findings) == 1, "%d findings %s, want 1:\n%s", len(findings), code, r.text(t))
	return findings[0]
}

// duplicate returns the only duplicate that a doctor finds.
func duplicate(t *testing.T, d *Doctor) Finding {
	t.Helper()
	return one(t, examine(t, d), CodeDuplicate)
}

// fixes fails the test unless a fix has this result, and returns its detail.
func fixes(t *testing.T, d *Doctor, f Finding, o FixOptions, want Result) string {
	t.Helper()
	fixed := d.Fix(t.Context(), f, o)
	verify.That(t, fixed.Result == want, "%+v, want %s", fixed, want)
	return fixed.Detail
}

// awaitStars waits until so many instances of star pass, of those with a tag if it is not "".
func awaitStars(t *testing.T, agent *consultest.Agent, what, tag string, want int) {
	t.Helper()
	consultest.Await(t, what, func() bool {
		entries, _, err := agent.Client().Health().Service("star", tag, true, nil)
		return err == nil && len(entries) == want
	})
}

// TestTwoAgents has tests with the catalog of a dev agent, on node a, and a client agent, on node
// b. Each begins without instances of star.
func TestTwoAgents(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, consultest.Options{Node: "a"})
	client := consultest.Start(t, consultest.Options{Mode: consultest.Client, Node: "b", Join: []string{server.SerfAddress()}})
	consultest.Await(t, "node b is in the catalog", func() bool {
		nodes, _, err := server.Client().Catalog().Nodes(nil)
		return err == nil && len(nodes) == 2
	})
	for _, test := range []struct {
		name string
		run  func(t *testing.T, server, client *consultest.Agent)
	}{
		{"a fix deregisters through the owner", testFixThroughTheOwner},
		{"a fix examines again", testFixExaminesAgain},
		{"a fix of a container is confirmed", testFixOfAContainer},
		{"a fix of different registrations is confirmed", testFixOfDifferentRegistrations},
		{"a fix keeps loopback addresses of different machines", testFixOfLoopbackAddresses},
		{"a fix requires the owner's agent", testFixWithoutTheOwner},
		{"the token is sent to members only", testTokenForAStranger},
		{"a dead node", testDeadNode}, // the last one
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, server, client) })
		deregisterAll(t, server, client)
	}
}

func testFixThroughTheOwner(t *testing.T, server, client *consultest.Agent) {
	registerTwice(t, server, client)

	d := newDoctor(t, server, map[string]string{"b": client.URL()}, nil)
	finding := duplicate(t, d)
	verify.Require(t, finding.Node == "b" && finding.Fix.KeepNode == "a" && finding.Fix.Possible && finding.Fix.Agent == client.URL(), "%+v %+v", finding, finding.Fix)
	verify.Contains(t, fixes(t, d, finding, FixOptions{DryRun: true}, ResultWould), client.URL(), "dry run")
	checkRegistered(t, server, "star-1@a", "star-1@b") // after a dry run
	fixes(t, d, finding, FixOptions{}, ResultDone)
	checkRegistered(t, server, "star-1@a")
	verify.Equal(t, fixes(t, d, finding, FixOptions{}, ResultLeft), "it is not a duplicate any more", "a second time")
	findings := examine(t, d).of(CodeDuplicate)
	verify.That(t, len(findings) == 0, "afterwards: %+v", findings)
}

func testFixExaminesAgain(t *testing.T, server, client *consultest.Agent) {
	registerTwice(t, server, client)
	d := newDoctor(t, server, map[string]string{"b": client.URL()}, nil)
	finding := duplicate(t, d)

	// Now another registration is the live one.
	registerAt(t, server, machine, "star-7", 9001, api.HealthPassing)
	awaitRegistered(t, server, "star-1@a", "star-1@b", "star-7@a")
	verify.Contains(t, fixes(t, d, finding, FixOptions{}, ResultLeft), "is now star-7 on node a", "what stays")
	verify.NoError(t, server.Client().Agent().ServiceDeregister("star-7"))
	awaitRegistered(t, server, "star-1@a", "star-1@b")

	// The remaining registration fails: now the other one is the live one.
	verify.NoError(t, server.Client().Agent().UpdateTTL("check-star-1", "broken", api.HealthCritical))
	awaitStars(t, server, "star-1 on node a is critical", "", 1)
	fixes(t, d, finding, FixOptions{}, ResultLeft)
	// Both fail.
	verify.NoError(t, client.Client().Agent().UpdateTTL("check-star-1", "broken", api.HealthCritical))
	awaitStars(t, server, "star-1 on node b is critical", "", 0)
	verify.Contains(t, fixes(t, d, finding, FixOptions{}, ResultLeft), "critical", "both fail")
	checkRegistered(t, server, "star-1@a", "star-1@b")
}

// One container is registered with two agents, at an address that no node has.
func testFixOfAContainer(t *testing.T, server, client *consultest.Agent) {
	for _, agent := range []*consultest.Agent{client, server} {
		registerAt(t, agent, "172.17.0.2", "star-1", 9001, api.HealthPassing)
	}
	awaitRegistered(t, server, "star-1@a", "star-1@b")
	d := newDoctor(t, server, map[string]string{"b": client.URL()}, nil)
	finding := duplicate(t, d)
	verify.Require(t, !finding.Fix.Possible && finding.Fix.Confirm, "%+v", finding.Fix)
	verify.Equal(t, fixes(t, d, finding, FixOptions{}, ResultLeft), finding.Fix.WhyNot, "not confirmed")
	verify.Contains(t, fixes(t, d, finding, FixOptions{DryRun: true}, ResultWould), "after you confirm that it is the same process: "+finding.Fix.WhyNot,
		"dry run")
	other := finding
	other.Fix = &Fix{Confirm: true, WhyNot: "exporter is a name", KeepID: finding.Fix.KeepID, KeepNode: finding.Fix.KeepNode}
	verify.Equal(t, fixes(t, d, other, FixOptions{Confirmed: true}, ResultLeft), finding.Fix.WhyNot,
		"something else was confirmed")
	checkRegistered(t, server, "star-1@a", "star-1@b")
	fixes(t, d, finding, FixOptions{Confirmed: true}, ResultDone)
	checkRegistered(t, server, "star-1@"+finding.Fix.KeepNode)
}

// A process was released with other tags through another agent: the newer registration stays, or
// the one that the operator names.
func testFixOfDifferentRegistrations(t *testing.T, server, client *consultest.Agent) {
	registerTwice(t, server, client)
	verify.NoError(t, client.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "star", ID: "star-1", Address: machine, Port: 9001, Tags: []string{"v2"},
		Check: &api.AgentServiceCheck{CheckID: "check-star-1", TTL: "1h", Status: api.HealthPassing},
	}))
	awaitStars(t, server, "the catalog has the tag", "v2", 1)
	agents := map[string]string{"a": server.URL(), "b": client.URL()}
	newest := duplicate(t, newDoctor(t, server, agents, nil))
	verify.That(t, newest.Node == "a" && newest.Fix.Confirm && strings.Contains(newest.Fix.WhyNot, `its tags are [], the ones of star-1 on node b are ["v2"]`), "%+v", newest.Fix)
	d := newDoctor(t, server, agents, func(o *Options) { o.Keep = "a" })
	finding := duplicate(t, d)
	verify.Require(t, finding.Node == "b" && finding.Fix.KeepNode == "a" && finding.Fix.Confirm, "%+v", finding.Fix)
	fixes(t, d, finding, FixOptions{}, ResultLeft) // not confirmed
	fixes(t, d, finding, FixOptions{Confirmed: true}, ResultDone)
	checkRegistered(t, server, "star-1@a")
}

// Each machine has an exporter at localhost:9100, registered with its own agent.
func testFixOfLoopbackAddresses(t *testing.T, server, client *consultest.Agent) {
	for _, address := range []string{"localhost", "127.0.0.1", "172.17.0.2", "exporter"} {
		for _, agent := range []*consultest.Agent{server, client} {
			registerAt(t, agent, address, "star-at-"+address, 9100, api.HealthPassing)
		}
	}
	all := []string{
		"star-at-127.0.0.1@a", "star-at-127.0.0.1@b", "star-at-172.17.0.2@a", "star-at-172.17.0.2@b",
		"star-at-exporter@a", "star-at-exporter@b", "star-at-localhost@a", "star-at-localhost@b",
	}
	awaitRegistered(t, server, all...)
	d := newDoctor(t, server, map[string]string{"b": client.URL()}, nil)
	findings := examine(t, d).of(CodeDuplicate)
	verify.That(t, len(findings) == 4, "%+v", findings) // here, both nodes are at 127.0.0.1
	for _, finding := range findings {
		possible := *finding.Fix
		possible.Possible, possible.WhyNot = true, ""
		for _, fix := range []*Fix{finding.Fix, &possible} { // as somebody might say who does not look
			finding.Fix = fix
			fixes(t, d, finding, FixOptions{}, ResultLeft)
		}
	}
	checkRegistered(t, server, all...)
}

func testFixWithoutTheOwner(t *testing.T, server, client *consultest.Agent) {
	registerTwice(t, server, client)

	// The doctor expects the agent of node b at its address and the port of the agent in
	// use, where the agent of node a answers.
	d := newDoctor(t, server, nil, nil)
	finding := duplicate(t, d)
	// Node a lists it and node b cannot be queried: a is the live one.
	verify.Require(t, finding.Node == "b" && !finding.Fix.Possible &&
		strings.Contains(finding.Fix.WhyNot, "answers the agent of node a"),
		"%+v %+v", finding, finding.Fix)
	fixes(t, d, finding, FixOptions{}, ResultLeft)
	checkRegistered(t, server, "star-1@a", "star-1@b")
}

// A writer to the catalog must not get the token.
func testTokenForAStranger(t *testing.T, server, _ *consultest.Agent) {
	register(t, server, "star-1", 9001, api.HealthPassing)
	verify.Result(server.Client().Catalog().Register(&api.CatalogRegistration{
		Node: "trap", Address: "127.0.0.1",
		Service: &api.AgentService{Service: "star", ID: "star-1", Address: "127.0.0.1", Port: 9001},
		Check:   &api.AgentCheck{Node: "trap", CheckID: serfHealth, Name: "Serf Health Status", Status: api.HealthPassing},
	}, nil)).Must(t)
	awaitRegistered(t, server, "star-1@a", "star-1@trap")
	finding := duplicate(t, newDoctor(t, server, nil, nil))
	verify.That(t, finding.Node == "trap" && finding.Fix.Agent == "" && strings.Contains(finding.Fix.WhyNot, "its node is not a member of the agent's cluster"), "%+v %+v", finding, finding.Fix)
	verify.Result(server.Client().Catalog().Deregister(&api.CatalogDeregistration{Node: "trap"}, nil)).Must(t)
}

func testDeadNode(t *testing.T, server, client *consultest.Agent) {
	register(t, client, "star-1", 9001, api.HealthPassing)
	register(t, client, "star-2", 9002, api.HealthPassing)
	awaitRegistered(t, server, "star-1@b", "star-2@b")
	register(t, server, "star-1", 9001, api.HealthPassing)
	awaitRegistered(t, server, "star-1@a", "star-1@b", "star-2@b")
	verify.NoError(t, client.Kill())
	awaitNodeB(t, server, api.HealthCritical)

	d := newDoctor(t, server, map[string]string{"b": client.URL()}, nil)
	report := examine(t, d)
	dead := report.of(CodeDeadNode)
	verify.That(t, len(dead) == 2 && dead[0].ID == "star-1" && dead[1].ID == "star-2" && dead[0].Command == "consul force-leave b", "%+v", dead)
	finding := one(t, report, CodeDuplicate)
	verify.That(t, finding.Node == "b" && !finding.Fix.Possible && strings.Contains(finding.Do, "its agent is dead") && finding.Command == "consul force-leave b", "%+v", finding)
	fixes(t, d, finding, FixOptions{}, ResultLeft)
	checkRegistered(t, server, "star-1@a", "star-1@b", "star-2@b")
}

// A catalog is read without a leader, but the first of several agents that has one is queried.
func TestNoLeader(t *testing.T) {
	t.Parallel()
	config := map[string]any{"bootstrap_expect": 2, "performance": map[string]any{"raft_multiplier": 1, "rpc_hold_timeout": "500ms"}}
	first := consultest.Start(t, consultest.Options{Mode: consultest.Server, Node: "a", NoWait: true, Config: config})
	second := consultest.Start(t, consultest.Options{Mode: consultest.Server, Node: "b", Join: []string{first.SerfAddress()}, Config: config})
	verify.NoError(t, first.WaitReady(t.Context()))
	register(t, first, "star-1", 9001, api.HealthPassing)
	consultest.Await(t, "the first server has the registration itself", func() bool {
		entries, _, err := first.Client().Health().Service("star", "", false, &api.QueryOptions{AllowStale: true})
		return err == nil && len(entries) == 1 && len(entries[0].Checks) == 2
	})
	verify.NoError(t, second.Kill())
	consultest.Await(t, "the leader is gone", func() bool {
		leader, err := first.Client().Status().Leader()
		return err == nil && leader == ""
	})
	report := examine(t, newDoctor(t, first, nil, nil))
	f := one(t, report, CodeNoLeader)
	verify.That(t, f.Severity == SeverityError && report.Agent.Node == "a" && report.Looked.Instances == 1, "%+v, %+v\n%s", f, report.Looked, report.text(t))
	other := consultest.Start(t, consultest.Options{Node: "c"})
	d := newDoctor(t, first, nil, func(o *Options) { o.Consul.Addresses = []string{first.URL(), other.URL()} })
	report = examine(t, d)
	verify.That(t, report.Agent.Node == "c" && len(report.of(CodeNoLeader)) == 0, "%+v", report.Agent)
}

func TestUnusableAddresses(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, consultest.Options{Node: "a"})
	listener := verify.Result(net.Listen("tcp4", "127.0.0.1:0")).Must(t)
	defer listener.Close()
	register(t, server, "star-up", listener.Addr().(*net.TCPAddr).Port, api.HealthPassing)
	register(t, server, "star-down", unused, api.HealthPassing)
	register(t, server, "star-critical", unused, api.HealthCritical)
	verify.NoError(t, server.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "star", ID: "star-portless"}))
	verify.Result(server.Client().Catalog().Register(&api.CatalogRegistration{
		Node: "outside", Address: "192.0.2.1",
		Service: &api.AgentService{Service: "far", ID: "far-loop", Address: "127.0.0.1", Port: 9001},
	}, nil)).Must(t)
	awaitRegistered(t, server, "star-critical@a", "star-down@a", "star-portless@a", "star-up@a")
	report := examine(t, newDoctor(t, server, nil, nil))
	for code, id := range map[Code]string{CodeNoPort: "star-portless", CodeLoopback: "far-loop"} {
		f := one(t, report, code)
		verify.That(t, f.ID == id && f.Severity == SeverityError, "%+v", f)
	}
	one(t, report, CodeNoAgent)
	f := report.of(CodeNoCheck)
	verify.That(t, len(f) == 2, "without check: %+v", f)
	still := one(t, report, CodeCritical)
	verify.That(t, still.ID == "star-critical" &&
		strings.Contains(still.Seen, "has not changed since it was registered"),
		"%+v", still)

	connected := examine(t, newDoctor(t, server, nil, func(o *Options) { o.Services, o.ConnectTimeout = []string{"star"}, consultest.Patience }))
	verify.Equal(t, one(t, connected, CodeUnreachable).ID, "star-down", "unreachable in\n%s", connected.text(t))
	checkFindingsOfAConfiguration(t, server)
}

// checkFindingsOfAConfiguration examines the catalog of an agent with a configuration that asks it
// for what it lacks, and with tags that ask for what they do not get.
func checkFindingsOfAConfiguration(t *testing.T, agent *consultest.Agent) {
	t.Helper()
	tagged := func(service, id string, tags ...string) {
		verify.NoError(t, agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: service, ID: id, Port: 9001, Tags: tags}))
	}
	tagged("moon", "moon-1", "urlprefix-h/", "urlprefix-h?/")
	consultest.Await(t, "moon-1 is the oldest instance of moon", func() bool {
		entries, _, err := agent.Client().Catalog().Service("moon", "", nil)
		return err == nil && len(entries) == 1
	})
	tagged("moon", "moon-2", "urlprefix-h/ strip=/x")
	tagged("sun", "sun-1", "sluice.route=h/")
	tagged("mars", "mars-1", "urlprefix-other/")
	verify.NoError(t, agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "dark", ID: "dark-1", Port: 9001, Check: &api.AgentServiceCheck{CheckID: "check-dark-1", TTL: "1h", Status: api.HealthCritical},
	}))
	consultest.Await(t, "all are in the catalog", func() bool {
		services, _, err := agent.Client().Catalog().Services(nil)
		entries, _, failed := agent.Client().Catalog().Service("moon", "", nil)
		return err == nil && failed == nil && len(entries) == 2 && services["sun"] != nil && services["mars"] != nil && services["dark"] != nil
	})
	report := examine(t, newDoctor(t, agent, nil, func(o *Options) {
		o.Config = configtest.Must(t, "catalog: { tags: [fabio, sluice], claims: [{ service: '*', hosts: [h] }] }")
		o.Uses = []Use{
			{Name: "dark", Source: consulsource.ServiceOptions{Service: "dark"}, Routed: true},
			{Name: "star", Source: consulsource.ServiceOptions{Service: "star", Address: "wan"}, Routed: true},
			{Name: "filtered", Source: consulsource.ServiceOptions{Service: "star", Filter: "Service.Shape == round"}, Routed: true},
		}
		o.Peers = []Peer{{Node: "a", ID: "star-critical", Address: fmt.Sprintf("127.0.0.1:%d", unused), Critical: true, Since: time.Now().Add(-2 * time.Hour)}}
	}))
	for code, want := range map[Code]string{
		CodeServiceEmpty: "dark ", CodeServiceRefused: "star ", CodeCriticalLong: "star star-critical",
		CodeTagBad: "moon moon-1", CodeTagsDiffer: "moon moon-2", CodeTagConflict: "sun sun-1", CodeTagRefused: "mars mars-1",
	} {
		f := one(t, report, code)
		verify.That(t, f.Service+" "+f.ID == want && f.Seen != "", "%s: %+v, want it about %s", code, f, want)
	}
	for _, f := range report.Findings {
		verify.That(t, slices.Contains(codes, f.Code), "%s has no place in the order of a report", f.Code)
	}
	var without []string
	for _, f := range report.of(CodeNoTaggedAddress) {
		without = append(without, f.ID)
	}
	verify.Slices(t, without, []string{"star-critical", "star-down", "star-up"}, "instances without a tagged address")
}
