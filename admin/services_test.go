package admin

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/proxy"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// Groups are beside each other, in the services and in the routes; each peer names its own.
func TestGroups(t *testing.T) {
	pool := newPool(t, "star", instance("star", "a", "10.0.0.1"), instance("star", "b", "10.0.0.2"))
	divide(t, pool)
	canary, rest := pool.Group("canary"), pool.Group(balancer.RestGroup)
	q := &balancer.Query{Group: canary.ID(), Fallback: rest.ID()}
	try := func(o balancer.Outcome) { verify.Result(pool.Pick(q)).Must(t).Done(o) }
	try(balancer.Outcome{Class: balancer.OutcomeOK, Status: 200, Latency: 4 * time.Millisecond})
	try(balancer.Outcome{Class: balancer.OutcomeServerError, Status: 500, Latency: 4 * time.Millisecond})
	q.Tried.Add(pool.Snapshot().All[0])
	try(balancer.Outcome{Class: balancer.OutcomeClientGone})

	service := &route.Service{Name: "star", Pool: pool}
	redirect := verify.Result(route.NewRedirect("https://$host/", route.RedirectCodes{Code: 301})).Must(t)
	table := verify.Result(route.NewTable([]route.Route{
		{Path: "/", Service: service, Split: &route.Split{Shares: []route.Share{{Group: canary, Size: .05}}, Rest: rest, Fallback: rest}},
		{Path: "/canary", Service: service, Split: route.ToGroup(canary)},
		{Path: "/all", Service: service},
		{Path: "/redirected", Actions: &route.Actions{Redirect: redirect}},
	})).Must(t)
	h := handlerOf(Options{Services: Services{Pools: poolsOf(pool)}, Routes: Routes{Table: func() *route.Table { return table }}, Documents: documents{history(t, firstConfig)}})
	groups := getJSON[[]Service](t, h, "/api/services")[0].Groups
	want := []Group{
		{Group: "canary", Peers: 1, Eligible: 1, Attempts: 2, Errors: 1, P50MS: 3.75, P99MS: 4.975, Fallbacks: 1},
		{Group: "rest", Peers: 1, Eligible: 1, Attempts: 1, P50MS: .05, P99MS: .099},
	}
	verify.Require(t, slices.Equal(groups, want), "groups %+v, want %+v", groups, want)
	for _, p := range getJSON[[]Peer](t, h, "/api/peers") {
		verify.Equal(t, p.Group, map[string]string{"a": "canary", "b": "rest"}[p.ID], "peer %s: group", p.ID)
	}
	byUser := route.Split{Shares: []route.Share{{Group: canary, Size: .5}}, Rest: rest, Key: route.SplitKey{Source: route.SplitHeader, Header: "x-user"}}
	byAddress := byUser
	byAddress.Key = route.SplitKey{Source: route.SplitClientAddress}
	explained := verify.Result(route.NewTable([]route.Route{
		{Path: "/cookie", Service: service, Split: &route.Split{Shares: byUser.Shares, Rest: rest}},
		{Path: "/user", Service: service, Split: &byUser},
		{Path: "/address", Service: service, Split: &byAddress},
		{Path: "/canary", Service: service, Split: route.ToGroup(canary)},
		{Path: "/all", Service: service},
	})).Must(t)
	asks := handlerOf(Options{Services: Services{Pools: poolsOf(pool)}, Routes: explaining(t, explained, nil, proxy.Switches{}, "web")})
	for query, want := range map[string]string{
		"/all": "", "/canary": "canary", "/cookie": "canary rest", "/user": "canary rest", "/address": "canary rest",
		"/cookie&header=Cookie:+a=b%3B+sluice_client=x":   byUser.Group([]byte("x")).Name(),
		"/cookie&header=Cookie:+a=b%3B+sluice_client=abc": byUser.Group([]byte("abc")).Name(),
		"/user&header=X-User:+x":                          byUser.Group([]byte("x")).Name(),
		"/address&client=10.0.0.7":                        byUser.Group([]byte("10.0.0.7")).Name(),
	} {
		got := getJSON[RouteAnswer](t, asks, "/api/route?url=http://a"+query)
		groups := each(got.Ends, func(e End) string { return e.Group })
		verify.Equal(t, strings.Join(groups, " "), want, "%s: groups", query)
	}
	splits := map[string]*Split{
		"/":       {Groups: []Share{{.05, groups[0]}, {.95, groups[1]}}, Key: "cookie", Fallback: "rest"},
		"/canary": {Groups: []Share{{1, groups[0]}}, Key: "none"},
	}
	for _, r := range getJSON[[]Route](t, h, "/api/routes") {
		verify.DeepEqual(t, r.Split, splits[r.Path], "route %s: split", r.Path)
	}
}

func TestServices(t *testing.T) {
	bad := instance("star", "b", "10.0.0.2")
	bad.Status = discovery.StatusCritical
	star := newPool(t, "star", instance("star", "a", "10.0.0.1"), bad)
	star.Reconfigure(balancertest.Complete(balancer.Options{Policy: balancer.PolicyRoundRobin}))
	defer pick(t, star).Done(balancer.Outcome{})
	star.Requests.Observe(0, 200, 4*time.Millisecond, 0, 10)
	star.Requests.Observe(1, 503, 4*time.Millisecond, 0, 10)
	star.Requests.Retry(0)
	var again balancer.Query
	again.Tried.Add(star.Snapshot().All[1])
	for star.Admission.RetriesLeft(star.Snapshot()) > 0 {
		verify.Result(star.Pick(&again)).Must(t).Done(balancer.Outcome{})
	}
	_, err := star.Pick(&again)
	verify.Require(t, err != nil, "the retry budget is not used up")

	gone := newPool(t, "star", instance("star", "old", "10.0.0.9")) // an earlier pool of that name
	defer pick(t, gone).Done(balancer.Outcome{})
	gone.Close()

	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := handlerOf(Options{
		Services: Services{
			Pools: poolsOf(star, newPool(t, "origin"), gone),
			Watches: func() []discovery.WatchStatus {
				return []discovery.WatchStatus{{
					Service: "star", Source: "consul", Endpoint: "http://c", State: discovery.WatchStale, Since: since, Index: 42, Instances: 2, Probation: 1,
					LastSuccess: since, Restored: since, LastError: "connection refused", Queries: 9, Errors: 3, Changes: 2,
					Invalid: []discovery.Invalid{{Key: "/star/a", Reason: "empty", InUse: true}},
				}}
			},
			Health: func() map[string]healthcheck.Stats {
				return map[string]healthcheck.Stats{"star": {Ejections: [healthcheck.NumCauses]uint64{2, 3}, Refused: 7}}
			},
		},
		Documents: documents{history(t, "services: { star: { consul: {}, balance: { policy: round_robin } }, origin: { peers: ['127.0.0.1:1'] } }\nroutes: [ { service: star } ]")},
	})
	got := getJSON[[]Service](t, h, "/api/services")
	verify.Require(t, len(got) == 2 && got[0].Service == "origin" && got[1].Service == "star", "got %+v", got)
	verify.That(t, got[0].Watch == nil && got[0].Policy == "ewma" && got[0].Eligible == 0, "origin: got %+v", got[0])
	s := got[1]
	verify.DeepEqual(t, s.Peers, map[string]int{"up": 1, "warming": 0, "ejected": 0, "unhealthy": 1, "draining": 1}, "peers")
	verify.That(t, s.Policy == "round_robin" && s.Eligible == 1 && s.Inflight == 2 && s.Requests == 2 && s.Errors == 1 && s.P50MS > 2 && s.P99MS <= 5, "got %+v", s)
	verify.That(t, s.Retries == 1 && s.Refusals["retry_budget"] == 1 && len(s.Refusals) == 1 && s.Ejections == 5 && s.EjectionsRefused == 7, "retries, refusals, ejections: got %+v", s)
	w := *s.Watch
	verify.That(t, w.LastSuccess != nil && w.LastSuccess.Equal(since) && w.LastChange == nil && w.Restored != nil && w.Restored.Equal(since), "last success %v, last change %v, restored %v", w.LastSuccess, w.LastChange, w.Restored)
	w.LastSuccess, w.Restored = nil, nil
	want := Watch{Source: "consul", Endpoint: "http://c", State: "stale", Since: since, Index: 42, Instances: 2, Probation: 1, LastError: "connection refused", Queries: 9, Errors: 3, Changes: 2, Invalid: []discovery.Invalid{{Key: "/star/a", Reason: "empty", InUse: true}}}
	verify.DeepEqual(t, w, want, "watch")
}
