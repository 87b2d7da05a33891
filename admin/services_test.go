package admin

import (
	"maps"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/test/balancertest"
)

func TestServices(t *testing.T) {
	bad := instance("star", "b", "10.0.0.2")
	bad.Status = discovery.StatusCritical
	star := newPool(t, "star", instance("star", "a", "10.0.0.1"), bad)
	if err := star.Reconfigure(balancertest.Complete(balancer.Options{Policy: balancer.PolicyRoundRobin})); err != nil {
		t.Fatal(err)
	}
	defer pick(t, star).Done(balancer.Outcome{})
	star.Requests().Observe(0, 200, 4*time.Millisecond, 0, 10)
	star.Requests().Observe(1, 503, 4*time.Millisecond, 0, 10)

	gone := newPool(t, "star", instance("star", "old", "10.0.0.9")) // an earlier pool of that name
	defer pick(t, gone).Done(balancer.Outcome{})
	gone.Close()

	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := handlerOf(Options{
		Pools: poolsOf(star, newPool(t, "origin"), gone),
		Watches: func() []discovery.WatchStatus {
			return []discovery.WatchStatus{{
				Service: "star", Source: "consul", Endpoint: "http://c", State: discovery.WatchStale, Since: since, Index: 42, Instances: 2, Probation: 1,
				LastSuccess: since, Restored: since, LastError: "connection refused", Queries: 9, Errors: 3, Changes: 2,
			}}
		},
		History: history(t, "services: { star: { consul: {}, balance: { policy: round_robin } }, origin: { peers: ['127.0.0.1:1'] } }\nroutes: [ { service: star } ]"),
	})
	got := getJSON[[]Service](t, h, "/api/services")
	if len(got) != 2 || got[0].Service != "origin" || got[1].Service != "star" {
		t.Fatalf("got %+v", got)
	}
	if got[0].Watch != nil || got[0].Policy != "ewma" || got[0].Eligible != 0 {
		t.Errorf("origin: got %+v", got[0])
	}
	s := got[1]
	if want := (map[string]int{"up": 1, "warming": 0, "ejected": 0, "unhealthy": 1, "draining": 1}); !maps.Equal(s.Peers, want) {
		t.Errorf("peers: got %v, want %v", s.Peers, want)
	}
	if s.Policy != "round_robin" || s.Eligible != 1 || s.Inflight != 2 || s.Requests != 2 || s.P50MS <= 2 || s.P99MS > 5 {
		t.Errorf("got %+v", s)
	}
	w := *s.Watch
	if w.LastSuccess == nil || !w.LastSuccess.Equal(since) || w.LastChange != nil || w.Restored == nil || !w.Restored.Equal(since) {
		t.Errorf("last success %v, last change %v, restored %v", w.LastSuccess, w.LastChange, w.Restored)
	}
	w.LastSuccess, w.Restored = nil, nil
	want := Watch{Source: "consul", Endpoint: "http://c", State: "stale", Since: since, Index: 42, Instances: 2, Probation: 1, LastError: "connection refused", Queries: 9, Errors: 3, Changes: 2}
	if w != want {
		t.Errorf("watch: got %+v, want %+v", w, want)
	}
}
