package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// A real Consul with the default policy deny, and sluice with a token of the documented policy. Without the policy for
// the registration sluice serves, and names the permission; with it, it registers and lists the fleet.
func TestDocumentedPoliciesAreSufficient(t *testing.T) {
	t.Parallel()
	agent, own := sharedWithACLs.Agent(t)
	watching := verify.Result(consultest.DocumentedPolicy("../docs/consul.md", "## ACLs")).Must(t)
	registering := verify.Result(consultest.DocumentedPolicy("../docs/consul.md", "### What a token must allow")).Must(t)
	policy, token, err := agent.NewToken(own, watching)
	verify.NoError(t, err)
	file := filepath.Join(t.TempDir(), "token")
	verify.NoError(t, os.WriteFile(file, []byte(token.SecretID+"\n"), 0o600))
	register := func(service string) {
		t.Helper()
		err := agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: service + "-1", Name: service, Address: "127.0.0.1", Port: port(t, origin(t, service)),
			Check: &api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing},
		})
		verify.NoError(t, err)
	}
	register("star")
	register("moon")
	r := startWithin(t, fmt.Sprintf(`
consul: { addresses: [%q], token_file: %q, register: {} }
services: { star: { consul: {} }, moon: { consul: {} } }
routes: [{ path: /moon, service: moon }, { service: star }]
`, agent.URL(), file), time.Millisecond) // moon never gets peers
	r.answers("/", "star")
	// Consul hides moon from the token, which must not be taken for an empty service.
	r.refuses("/moon", 503)
	r.awaitLog(`the token lacks service:read for \"moon\"`)
	var v admin.Replicas
	r.await("the missing permission is named", func() bool {
		return r.api("/api/replicas", &v) == 200 && v.Registration.State == "failing" &&
			strings.Contains(v.Registration.LastError, `lacks service:write: service "sluice" { policy = "write" }`)
	})
	r.gets("/", "star")
	policy.Rules = watching + registering
	_, _, err = agent.Client().ACL().PolicyUpdate(policy, nil)
	verify.NoError(t, err)
	r.await("the registration and the fleet", func() bool {
		return r.api("/api/replicas", &v) == 200 && v.Registration.State == "registered" &&
			v.Error == "" && v.Converged != nil && *v.Converged && len(v.Replicas) == 1 && v.Replicas[0].Status == "passing"
	})
	verify.NoError(t, agent.Client().Agent().ServiceDeregister("star-1"))
	r.await("star is on probation", func() bool {
		for _, p := range r.peers() {
			return p.Probation != nil
		}
		return false
	})
	r.stop()
	r.await("the registration is removed", func() bool { return len(instances(t, agent, "sluice")) == 0 })
}
