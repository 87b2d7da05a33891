package consul

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// confirmations returns the filters of the consistent queries after the first n
// requests.
func (b *bubble) confirmations(n int) (filters []string) {
	for _, r := range b.since(n) {
		if r.Consistent {
			filters = append(filters, r.Filter)
		}
	}
	return filters
}

func TestFewMissingInstancesAreQueriedByID(t *testing.T) {
	for _, tt := range []struct {
		name, filter, before, after string
		want                        []string
	}{
		{"one of three", "", "a b c", "a c", []string{`Service.ID == "b"`}},
		{"beside a filter", `Service.Meta.zone == "1"`, "a b c", "c",
			[]string{`(Service.Meta.zone == "1") and (Service.ID == "a" or Service.ID == "b")`}},
		{"many", "", "a b c d e f", "f", []string{""}},
		{"a check that fails", "", "a b", "a b:critical", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			watchInBubble(t, ServiceOptions{Filter: tt.filter}, having(tt.before), func(t *testing.T, b *bubble) {
				b.expect(20*sec, "0s: "+tt.before)
				n := len(b.Requests())
				b.set(tt.after)
				b.expect(20*sec, "20s: "+tt.after)
				got := b.confirmations(n)
				verify.That(t, fmt.Sprintf("%q", got) == fmt.Sprintf("%q", tt.want), "confirmed with %q, want %q", got, tt.want)
			})
		})
	}
}

// The answer to a query for one instance reports whether ACLs hide it.
func TestInstanceHiddenByACLsIsNotGone(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a b c"), func(t *testing.T, b *bubble) {
		b.expect(20*sec, "0s: a b c")
		n := len(b.Requests())
		b.Break(discoverytest.Fault{Filtered: true})
		b.set("a c") // as the agent's view, which tells nothing of ACLs, and the servers list it
		b.expect(60 * sec)
		got := b.confirmations(n)
		verify.That(t, len(got) >= 2 && got[0] != "" && got[1] == "", "confirmed with %q, want a query for one instance, then for all", got)
		b.stale("")
	})
}

// The agent answers from its view, which tells nothing of ACLs, when they no longer hide b and c.
func TestInstanceThatACLsHideAgainIsNotGone(t *testing.T) {
	hidden := discoverytest.Fault{Filtered: true}
	for _, tt := range []struct {
		name  string
		shown discoverytest.Fault // while b and c are in the view
		end   string
		state discovery.Freshness
	}{
		{"the leader tells that they hide none", discoverytest.Fault{}, "a b:critical c", discovery.WatchStale},
		{"the leader tells that they hide others", hidden, "a", discovery.WatchFresh},
		{"the leader fails", discoverytest.Fault{Status: 500, Only: func(r discoverytest.Request) bool { return r.Consistent }},
			"a", discovery.WatchFresh},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := func(b *bubble) { b.set("a"); b.Break(hidden) }
			watchInBubble(t, ServiceOptions{}, start, func(t *testing.T, b *bubble) {
				b.expect(20*sec, "0s: a")
				n := len(b.Requests())
				for step, words := range []string{"a b c", "a b:critical c"} {
					b.Break(tt.shown)
					b.set(words)
					b.at(time.Duration(40+20*step) * sec)
					verify.Equal(t, formatSet(b.latest()), words, "the pool")
				}
				verify.Equal(t, len(b.confirmations(n)), 1, "the queries of the leader, for two new instances and a new status, are")
				b.Break(hidden)
				b.set("a")
				b.at(80 * sec)
				verify.Equal(t, formatSet(b.latest()), tt.end, "at the end the pool")
				verify.Equal(t, b.status().State, tt.state, "the watch is")
			})
		})
	}
}

func TestAllInstancesAreQueriedIfTheFilterIsRefused(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a b c"), func(t *testing.T, b *bubble) {
		b.expect(20*sec, "0s: a b c")
		b.Break(discoverytest.Fault{Status: http.StatusBadRequest, Body: "Failed to parse",
			Only: func(r discoverytest.Request) bool { return r.Filter != "" }})
		b.set("a c")
		b.expect(20*sec, "20s: a c")
	})
}

// aclsHideOneInstance: Consul marks the answer to a query for one instance if ACLs hide it.
func aclsHideOneInstance(t *testing.T, agent *consultest.Agent) {
	const seesAll = `service "moon" { policy = "read" } node_prefix "" { policy = "read" }`
	policy, token, err := agent.NewToken("one-instance", seesAll)
	verify.NoError(t, err)
	for n, node := range []string{"open", "secret"} {
		_, err := agent.Client().Catalog().Register(&api.CatalogRegistration{
			Node: node, Address: fmt.Sprint("10.0.0.", n+1),
			Service: &api.AgentService{ID: "on-" + node, Service: "moon", Port: 8000},
		}, nil)
		verify.NoError(t, err)
	}
	r := watchRealWith(t, agent, token.SecretID, ServiceOptions{Service: "moon", Wait: time.Second})
	r.await("on-open on-secret")
	r.awaitFresh(1)
	policy.Rules = `service "moon" { policy = "read" } node "open" { policy = "read" }`
	_, _, err = agent.Client().ACL().PolicyUpdate(policy, nil)
	verify.NoError(t, err)
	r.awaitError("filtered by ACLs")
	r.quiet()
}

// idsInAFilter: Consul accepts the filter for any id.
func idsInAFilter(t *testing.T, agent *consultest.Agent) {
	ids := []string{"plain", "with space", `quo"te`, "back`tick", `back\slash`, "ünï✓", "a' or '", "new\nline", "x) or (Service.Port > 0"}
	register := func(id string, port int) {
		_, err := agent.Client().Catalog().Register(&api.CatalogRegistration{
			Node: "bench", Address: "127.0.0.1",
			Service: &api.AgentService{ID: id, Service: "strange", Port: port, Meta: map[string]string{"zone": "1"}},
		}, nil)
		verify.NoError(t, err)
	}
	register("stays", 8000)
	for n, id := range ids {
		register(id, 8001+n)
	}
	r := watchReal(t, agent, ServiceOptions{Service: "strange", Filter: `Service.Meta.zone == "1" or Service.Meta.zone == "2"`})
	size := func(want int) {
		t.Helper()
		r.awaitStatus(fmt.Sprint(want, " instances"), func(s discovery.WatchStatus) bool {
			return s.Instances == want && s.State == discovery.WatchFresh
		})
	}
	size(1 + len(ids))
	for n, id := range ids {
		verify.Result(agent.Client().Catalog().Deregister(&api.CatalogDeregistration{Node: "bench", ServiceID: id}, nil)).Must(t)
		size(len(ids) - n)
	}
	for line := range strings.Lines(agent.LogTail(1000)) {
		refused := strings.Contains(line, "/health/service/strange") && strings.Contains(line, "boolean expression")
		verify.That(t, !refused, "Consul refused a filter: %s", line)
	}
}

// registeredAgainWithoutTheTag: a query with a tag or a filter, which no instance has any more,
// ends when Consul has one again without.
func registeredAgainWithoutTheTag(t *testing.T, agent *consultest.Agent) {
	for n, o := range live {
		o.Service = fmt.Sprint("again-", n)
		register := func(tag string) {
			registerTTL(t, agent, o.Service, "a", 8000, func(r *api.AgentServiceRegistration) { r.Tags = []string{tag} })
		}
		register("live")
		r := watchReal(t, agent, o)
		r.await("a")
		verify.NoError(t, agent.Client().Agent().ServiceDeregister("a"))
		r.await("a?")
		register("next")
		r.await("")
	}
}
