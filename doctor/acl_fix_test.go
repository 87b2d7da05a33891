package doctor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/config"
	consulsource "sluice/discovery/consul"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// TestTwoAgentsWithACLs has tests with a server and a client agent, on the nodes a and b, with
// default policy deny. Each agent has its own token.
func TestTwoAgentsWithACLs(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, consultest.Options{Node: "a", ACLs: true})
	agentB := verify.Result(server.NewAgentToken(t.Context(), "b")).Must(t)
	client := consultest.Start(t, consultest.Options{
		Mode: consultest.Client, Node: "b", Join: []string{server.SerfAddress()},
		ACLs: true, AgentToken: agentB.SecretID, Token: server.Token(),
	})
	register(t, server, "star-1", 9001, api.HealthPassing)
	awaitRegistered(t, server, "star-1@a")
	t.Run("findings", func(t *testing.T) { testACLs(t, server) })
	again := func() {
		deregisterAll(t, server, client)
		awaitNodeB(t, server, api.HealthPassing)
		registerTwice(t, server, client)
	}
	again()
	t.Run("missing permissions", func(t *testing.T) { testMissingPermissions(t, server, client) })
	t.Run("the documented policy", func(t *testing.T) { testDocumentedPolicy(t, server, client) })
	again()
	t.Run("node:write of the agent itself", func(t *testing.T) {
		verify.Result(server.Client().ACL().TokenDelete(agentB.AccessorID, nil)).Must(t)
		testTokenOfTheAgent(t, server, client)
	})
}

// documented returns the rules below a heading of the manual.
func documented(t *testing.T, heading string) string {
	t.Helper()
	return verify.Result(consultest.DocumentedPolicy("../docs/doctor.md", heading)).Must(t)
}

// A fix is possible with the documented policy, and what it removes does not come back.
func testDocumentedPolicy(t *testing.T, server, client *consultest.Agent) {
	look, write := documented(t, "## Permissions"), documented(t, "## Removing a duplicate")
	verify.That(t, look == readPolicy, "the manual shows\n%sand a report shows\n%s", look, readPolicy)
	secret := token(t, server, "doctor", look+write)
	d := newDoctor(t, server, map[string]string{"b": client.URL()}, func(o *Options) { o.Consul.Token = secret })
	report := examine(t, d)
	for _, f := range report.Findings {
		verify.That(t, !strings.HasPrefix(string(f.Code), "acl-"), "the policy is not enough: %+v", f)
	}
	finding := one(t, report, CodeDuplicate)
	verify.Require(t, finding.Node == "b" && finding.Fix.KeepNode == "a" && finding.Fix.Possible && finding.Policy == write, "%+v %+v", finding, finding.Fix)
	fixes(t, d, finding, FixOptions{}, ResultDone)
	checkRegistered(t, server, "star-1@a")
	// The agents' next full synchronisation would restore their registrations. A restart
	// triggers it.
	verify.NoError(t, client.Kill())
	awaitNodeB(t, server, api.HealthCritical) // so that it is not noticed later, in the next test
	verify.NoError(t, client.Launch(t.Context()))
	register(t, client, "marker", 9100, api.HealthPassing)
	awaitRegistered(t, server, "marker@b", "star-1@a")
}

const writeStar = "service \"star\" { policy = \"write\" }\n"

// doctorWith returns a doctor for a configuration that uses star, whose token has these rules.
func doctorWith(t *testing.T, server, client *consultest.Agent, name, rules string) *Doctor {
	t.Helper()
	secret := token(t, server, name, rules)
	return newDoctor(t, server, map[string]string{"b": client.URL()}, func(o *Options) {
		o.Consul.Token, o.Config = secret, new(config.Config)
		o.Uses = []Use{{Name: "front", Source: consulsource.ServiceOptions{Service: "star"}, Routed: true}}
	})
}

// The findings name the missing permissions, and nothing is deregistered.
func testMissingPermissions(t *testing.T, server, client *consultest.Agent) {
	doctor := func(name, rules string) *Doctor { return doctorWith(t, server, client, name, rules) }
	t.Run("service:write", func(t *testing.T) {
		d := doctor("looks", readPolicy)
		finding := duplicate(t, d)
		verify.That(t, finding.Fix.Possible && finding.Policy == writeStar, "%+v %+v", finding, finding.Fix)
		detail := fixes(t, d, finding, FixOptions{}, ResultFailed)
		verify.That(t, strings.HasPrefix(detail, client.URL()) &&
			strings.Contains(detail, `the token lacks service:write for "star"`),
			"%s", detail)
	})
	t.Run("service:write for this service", func(t *testing.T) {
		d := doctor("writes-moon", readPolicy+`service "moon" { policy = "write" }`)
		verify.Contains(t, fixes(t, d, duplicate(t, d), FixOptions{}, ResultFailed), `the token lacks service:write for "star"`,
			"the fix")
	})
	t.Run("agent:read for the owner", func(t *testing.T) {
		d := doctor("knows-agent-a", `service_prefix "" { policy = "write" } node_prefix "" { policy = "read" } agent "a" { policy = "read" }`)
		finding := duplicate(t, d)
		verify.That(t, !finding.Fix.Possible && strings.Contains(finding.Fix.WhyNot, `the token lacks agent:read for "b"`), "%+v", finding.Fix)
		verify.Equal(t, finding.Policy, "agent \"b\" { policy = \"read\" }\n"+writeStar, "policy")
		fixes(t, d, finding, FixOptions{}, ResultLeft)
	})
	t.Run("all that sluice itself does not need", func(t *testing.T) {
		rules := verify.Result(consultest.DocumentedPolicy("../docs/consul.md", "## ACLs")).Must(t)
		report := examine(t, doctor("sluice", rules))
		one(t, report, CodeACLAgent)
		f := one(t, report, CodeDuplicate)
		verify.That(t, !f.Fix.Possible && strings.Contains(f.Fix.WhyNot, fmt.Sprintf("the token lacks agent:read for %q", f.Node)), "%+v %+v", f, f.Fix)
	})
	t.Run("node:read for the owner", func(t *testing.T) {
		d := doctor("knows-node-a", `service_prefix "" { policy = "write" } node "a" { policy = "read" } agent_prefix "" { policy = "read" }`)
		report := examine(t, d)
		f := one(t, report, CodeACLFiltered)
		verify.That(t, f.Policy == readPolicy && strings.Contains(f.Seen, "/v1/catalog/nodes"), "%+v", f)
		found := report.of(CodeDuplicate)
		verify.That(t, len(found) == 0, "%+v", found)
	})
	checkRegistered(t, server, "star-1@a", "star-1@b")
}

// The agent accepts the deregistration, but may not change the catalog.
func testTokenOfTheAgent(t *testing.T, server, client *consultest.Agent) {
	d := doctorWith(t, server, client, "may-all", readPolicy+writeStar)
	d.goneTimeout = 500 * time.Millisecond
	verify.Contains(t, fixes(t, d, duplicate(t, d), FixOptions{}, ResultFailed), `the agent's own token (acl.tokens.agent) lacks node:write for "b"`,
		"the fix")
	checkRegistered(t, server, "star-1@a", "star-1@b")
	finding := duplicate(t, d)
	verify.That(t, finding.Node == "b" && !finding.Fix.Possible && strings.Contains(finding.Fix.WhyNot, `unless the agent's own token (acl.tokens.agent) lacks node:write for "b"`), "%+v %+v", finding, finding.Fix)
}
