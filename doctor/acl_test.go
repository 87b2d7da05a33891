package doctor

import (
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/config"
	consulsource "sluice/discovery/consul"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// token creates a token with a policy.
func token(t *testing.T, agent *consultest.Agent, name, rules string) string {
	t.Helper()
	policy, _, err := agent.Client().ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
	verify.NoError(t, err)
	made, _, err := agent.Client().ACL().TokenCreate(&api.ACLToken{Description: name, Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	verify.NoError(t, err)
	return made.SecretID
}

// testACLs examines an agent with default policy deny, and star-1, with several tokens.
func testACLs(t *testing.T, agent *consultest.Agent) {
	uses := []Use{{Name: "front", Source: consulsource.ServiceOptions{Service: "star"}, Routed: true}}
	look := func(token string) *Report {
		t.Helper()
		return examine(t, newDoctor(t, agent, nil, func(o *Options) {
			o.Consul.Token, o.Uses, o.Config = token, uses, new(config.Config)
		}))
	}

	var report *Report
	// The policy in the finding is as good as every permission.
	for _, enough := range []string{agent.Token(), token(t, agent, "sees-everything", readPolicy)} {
		report = look(enough)
		for _, f := range report.Findings {
			verify.That(t, !strings.HasPrefix(string(f.Code), "acl-") &&
				f.Severity != SeverityError,
				"%s: %+v", report.Agent.Token, f)
		}
	}
	verify.That(t, report.Agent.Token == "sees-everything" && report.Looked.Instances == 1, "%+v %+v", report.Agent, report.Looked)

	report = look("")
	f := one(t, report, CodeACLAnonymous)
	verify.That(t, f.Severity == SeverityError && f.Policy == readPolicy, "%+v", f)
	verify.Contains(t, one(t, report, CodeServiceMissing).Do, "ACLs may hide it", "what to do")
	one(t, report, CodeACLAgent)

	report = look(token(t, agent, "sees-nodes", `node_prefix "" { policy = "read" }`))
	one(t, report, CodeACLFiltered)
	one(t, report, CodeACLAgent)
	f = one(t, report, CodeACLService)
	verify.That(t, f.Service == "star" && f.Severity == SeverityError && strings.Contains(f.Policy, `service     "star" { policy = "read" }`), "%+v", f)
	found := report.of(CodeServiceMissing)
	verify.That(t, len(found) == 0, "hidden services are reported as missing: %+v", found)

	d := newDoctor(t, agent, nil, func(o *Options) { o.Consul.Token = "00000000-0000-0000-0000-00000000dead" })
	_, err := d.Examine(t.Context())
	verify.That(t, err != nil && strings.Contains(err.Error(), "the token is not valid") && strings.Contains(err.Error(), "service_prefix"), "unknown token: %v", err)
}
