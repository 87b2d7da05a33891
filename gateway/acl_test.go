package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// A real Consul with the default policy deny, and sluice with a token of the documented
// policy.
func TestDocumentedPolicyIsSufficient(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	rules := verify.Result(consultest.DocumentedPolicy("../docs/consul.md", "## ACLs")).Must(t)
	_, token, err := agent.NewToken("sluice", rules)
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
consul: { addresses: [%q], token_file: %q }
services: { star: { consul: {} }, moon: { consul: {} } }
routes: [{ path: /moon, service: moon }, { service: star }]
`, agent.URL(), file), time.Millisecond) // moon never gets peers
	r.await("star is served", func() bool {
		status, body := r.get("/")
		return status == 200 && strings.Contains(body, "star")
	})
	// Consul hides moon from the token, which must not be taken for an empty service.
	r.refuses("/moon", 503)
	r.awaitLog(`the token lacks service:read for \"moon\"`)
	verify.NoError(t, agent.Client().Agent().ServiceDeregister("star-1"))
	r.await("star is on probation", func() bool {
		for _, p := range r.peers() {
			return p.Probation != nil
		}
		return false
	})
}
