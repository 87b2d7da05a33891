package consul

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
)

// asked returns how many times the agent was asked for its checks.
func (b *bubble) asked() (n int) {
	for _, r := range b.Requests() {
		if r.Path == "/v1/agent/checks" {
			n++
		}
	}
	return n
}

// detail returns the detail of the first instance.
func (b *bubble) detail() string {
	if set := b.latest(); len(set) > 0 {
		return set[0].Detail
	}
	return ""
}

// silentCheck is that of the instance a, as its agent has it.
func silentCheck(output string) *api.HealthCheck {
	return &api.HealthCheck{Node: "node-1", CheckID: "service:a", Name: "Service 'star' check", Status: "critical", Output: output, ServiceID: "a", ServiceName: "star"}
}

const withoutOutput = "Service 'star' check: Consul has no output of it"

// What Consul's servers do not know yet, the agent that runs the check does.
func TestOutputOfASilentCheckComesFromItsAgent(t *testing.T) {
	t.Parallel()
	watchInBubble(t, ServiceOptions{Wait: maxWait}, func(b *bubble) {
		b.set("a:critical b")
		b.SetAgentChecks(silentCheck(""))
	}, func(t *testing.T, b *bubble) {
		if b.at(firstAsk - 1); b.detail() != withoutOutput || b.asked() != 0 {
			t.Errorf("at first: %q, asked %d times", b.detail(), b.asked())
		}
		if b.at(2 * firstAsk); b.detail() != withoutOutput || b.asked() != 1 {
			t.Errorf("before the check has run: %q, asked %d times", b.detail(), b.asked())
		}
		b.SetAgentChecks(silentCheck("connection refused\n"))
		const want = "Service 'star' check: connection refused"
		if b.at(5 * firstAsk); b.detail() != want || b.asked() != 2 {
			t.Errorf("after it has run: %q, asked %d times", b.detail(), b.asked())
		}
		b.set("a:critical b c")
		if b.at(time.Hour); b.detail() != want || b.asked() != 2 {
			t.Errorf("later: %q, asked %d times", b.detail(), b.asked())
		}
		b.Set("star", discoverytest.Health(b.entries("a")[0], "critical", "timeout"))
		if b.at(2 * time.Hour); b.detail() != "Service 'star' check: timeout" || b.asked() != 2 {
			t.Errorf("with an output in the catalog: %q, asked %d times", b.detail(), b.asked())
		}
	})
}

// An agent that does not have the check is asked once, and nobody is asked about a check that
// passes soon.
func TestQuestionsAboutSilentChecksAreFew(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(*bubble)
		asked   int
	}{
		"the check of another node":           {func(b *bubble) { c := silentCheck("x"); c.Node = "node-2"; b.SetAgentChecks(c) }, 1},
		"the check of another instance":       {func(b *bubble) { c := silentCheck("x"); c.ServiceID = "b"; b.SetAgentChecks(c) }, 1},
		"an agent without checks":             {func(*bubble) {}, 1},
		"an agent that denies it":             {func(b *bubble) { b.Break(discoverytest.Fault{Only: isAgent, Status: 403}) }, 17},
		"an agent that does not answer":       {func(b *bubble) { b.Break(discoverytest.Fault{Only: isAgent, Hang: true}) }, 34},
		"a check that never gives any output": {func(b *bubble) { b.SetAgentChecks(silentCheck("")) }, 17},
	} {
		t.Run(name, func(t *testing.T) {
			watchInBubble(t, ServiceOptions{Wait: maxWait}, func(b *bubble) {
				b.set("a:critical b")
				test.prepare(b)
			}, func(t *testing.T, b *bubble) {
				if b.at(time.Hour); b.detail() != withoutOutput || b.asked() > test.asked {
					t.Errorf("%q, asked %d times", b.detail(), b.asked())
				}
			})
		})
	}
	watchInBubble(t, ServiceOptions{Wait: maxWait}, having("a:critical b"), func(t *testing.T, b *bubble) {
		b.at(firstAsk - 1)
		b.set("a b")
		if b.at(time.Hour); b.detail() != "" || b.asked() != 0 {
			t.Errorf("a check that passes: %q, asked %d times", b.detail(), b.asked())
		}
	})
}

func isAgent(r discoverytest.Request) bool { return strings.HasPrefix(r.Path, "/v1/agent/") }

// checksThatNeverPassed looks at what arrives from a real Consul about them.
func checksThatNeverPassed(t *testing.T, agent *consultest.Agent) {
	for id, check := range map[string]*api.AgentServiceCheck{
		"http":  {CheckID: "http", HTTP: "http://127.0.0.1:1/", Interval: "1s", Timeout: "1s"},
		"later": {CheckID: "later", HTTP: "http://127.0.0.1:1/", Interval: "1h", Timeout: "1s"},
		"ttl":   {CheckID: "ttl", TTL: "1h"},
	} {
		registerTTL(t, agent, "star-"+id, id, 8000, func(r *api.AgentServiceRegistration) { r.Check = check })
		recorder := watchReal(t, agent, ServiceOptions{Service: "star-" + id})
		const never = "' check: it has not passed since it was registered, and Consul has no output of it yet"
		want := "Service 'star-" + id + never
		if set := recorder.await(id + ":critical"); set[0].Detail != want && id != "http" || !set[0].Unchecked {
			t.Errorf("%s: got %+v, want %q", id, set[0], want)
		}
		if id == "http" {
			var set []discovery.Instance
			for set = []discovery.Instance{{}}; len(set) != 1 || !strings.Contains(set[0].Detail, "connection refused"); {
				select {
				case set = <-recorder.sets:
				case <-time.After(patience):
					t.Fatalf("the agent's output has not come")
				}
			}
		}
	}
}
