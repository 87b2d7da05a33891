package consul

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

func TestPreparedQueryIsExecutedAtItsTTL(t *testing.T) {
	for _, tt := range []struct {
		ttl         string
		least, most time.Duration // between two
	}{
		{"", 6300 * ms, 7700 * ms}, // Poll
		{"3s", 2700 * ms, 3300 * ms},
		{"0s", 6300 * ms, 7700 * ms},
		{"10ms", 900 * ms, 1100 * ms},
	} {
		t.Run("TTL "+tt.ttl, func(t *testing.T) {
			with := func(b *bubble) {
				b.set("a b")
				b.SetTTL("star", tt.ttl)
			}
			watchInBubble(t, ServiceOptions{PreparedQuery: "star", Poll: 7 * sec, Near: "_agent"}, with, func(t *testing.T, b *bubble) {
				b.expect(60*sec, "0s: a b")
				requests := b.Requests()
				gaps := make(map[time.Duration]bool)
				for n, r := range requests {
					verify.That(t, r.Service == "star" && r.Index == 0 && r.Near == "_agent", "request %d: %+v", n, r)
					if n > 0 {
						gap := r.Time.Sub(requests[n-1].Time)
						gaps[gap] = true
						verify.That(t, gap >= tt.least && gap <= tt.most, "interval %v", gap)
					}
				}
				verify.That(t, len(gaps) >= 3, "no jitter: %v", gaps)
				b.set("a c")
				b.expectOne(60*sec, 60*sec+tt.most, "a c")
				b.fresh()
				verify.Equal(t, b.status().Source, `consul prepared query "star"`, "the source")
				verify.Equal(t, b.client.Stats().Watches, 0, "loops, without queries that do not block")
			})
		})
	}
}

func TestEmptyResultPutsInstancesOnProbation(t *testing.T) {
	watchInBubble(t, ServiceOptions{PreparedQuery: "star"}, having("a b"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		for n, f := range []discoverytest.Fault{{Status: 500}, {NoLeader: true, Empty: true}, {Body: "{}"}, {Body: "null"}, {Drop: true}, {Filtered: true, Empty: true}} {
			at := time.Duration(n+1) * time.Minute
			b.at(at)
			b.Break(f)
			b.expect(at + 30*sec)
			b.stale("")
			verify.Equal(t, b.status().Instances, 2, "%+v: instances", f)
			b.Heal()
		}
		b.at(10 * time.Minute)
		b.set("")
		b.expectOne(10*time.Minute, 10*time.Minute+12*sec, "a? b?")
	})
}

func TestOtherInstancesInAResultReplaceTheFirst(t *testing.T) {
	watchInBubble(t, ServiceOptions{PreparedQuery: "star", Poll: sec}, having("a b"), func(t *testing.T, b *bubble) {
		b.expect(sec/2, "0s: a b")
		b.set("a:critical b:critical x")
		b.expectOne(sec/2, 2*sec, "x")
		b.set("")
		b.expectOne(2*sec, 10*sec, "x?") // and it alone
	})
}

func TestProbationEndsBeforeTheNextInterval(t *testing.T) {
	o := ServiceOptions{PreparedQuery: "star", Poll: 5 * time.Minute, Probation: 30 * sec}
	watchInBubble(t, o, having("a b"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		b.set("")
		for b.status().Probation == 0 { // the next execution is 4.5 to 5.5 min after the first
			time.Sleep(sec)
		}
		lost := b.Requests()[1].Time.Sub(b.begin)
		b.expect(lost+2*sec, lost.String()+": a? b?")
		b.expectOne(lost+30*sec, lost+32*sec, "")
	})
}

func TestCachedPreparedQueryHasAMaximumAge(t *testing.T) {
	watchInBubble(t, ServiceOptions{PreparedQuery: "star", Poll: 7 * sec, Cached: true}, having("a"), func(t *testing.T, b *bubble) {
		b.at(sec)
		b.SetTTL("star", "3s")
		b.at(20 * sec)
		for n, r := range b.Requests() {
			verify.Equal(t, r.MaxAge, []time.Duration{7 * sec, 7 * sec, 3 * sec}[min(n, 2)], "request %d: max-age", n)
		}
	})
}

func preparedQueryFailsOver(t *testing.T, one, two *consultest.Agent) {
	registerTTL(t, one, "star", "a", 8001, nil)
	registerTTL(t, two, "star", "x", 8002, nil)
	watchReal(t, one, ServiceOptions{Service: "star", Datacenter: "dc2"}).await("x") // they know each other
	_, _, err := one.Client().PreparedQuery().Create(&api.PreparedQueryDefinition{
		Name:    "geo-star",
		Service: api.ServiceQuery{Service: "star", Failover: api.QueryFailoverOptions{Datacenters: []string{"dc2"}}},
		DNS:     api.QueryDNSOptions{TTL: "1s"},
	}, nil)
	verify.NoError(t, err)
	r := watchReal(t, one, ServiceOptions{PreparedQuery: "geo-star", Probation: -1})
	r.await("a")
	verify.NoError(t, one.Client().Agent().UpdateTTL("check-star-a", "refused", api.HealthCritical))
	verify.Equal(t, r.await("x")[0].Datacenter, "dc2", "data centre")
	verify.NoError(t, two.Client().Agent().ServiceDeregister("x"))
	r.await("") // without probation
	watchReal(t, one, ServiceOptions{PreparedQuery: "nope"}).awaitError(`there is no prepared query "nope"`)
}

// The agent caches the result of a prepared query for three days if the query has no
// maximum age.
func cachedPreparedQueryFollowsChanges(t *testing.T, agent, _ *consultest.Agent) {
	registerTTL(t, agent, "star", "a", 8001, nil)
	_, _, err := agent.Client().PreparedQuery().Create(&api.PreparedQueryDefinition{
		Name:    "any-star",
		Service: api.ServiceQuery{Service: "star"},
		DNS:     api.QueryDNSOptions{TTL: "1s"},
	}, nil)
	verify.NoError(t, err)
	r := watchReal(t, agent, ServiceOptions{PreparedQuery: "any-star", Cached: true})
	r.await("a")
	registerTTL(t, agent, "star", "b", 8002, nil)
	r.await("a b")
}
