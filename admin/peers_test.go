package admin

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/operator"
	"sluice/test/balancertest"
	"sluice/test/long"
	"sluice/test/verify"
)

// ids returns the ids of peers, in their order.
func ids(peers []Peer) []string {
	list := []string{}
	for _, p := range peers {
		list = append(list, p.ID)
	}
	return list
}

func TestPeersHasEachPeerWithItsState(t *testing.T) {
	up := instance("star", "a-up", "10.0.0.1")
	up.Tags, up.Meta, up.Weight, up.Datacenter = []string{"v1", "sluice.basic_auth.users=ann:hash"}, map[string]string{"rack": "7"}, 5, "dc1"
	critical := instance("star", "b-critical", "10.0.0.2")
	critical.Status, critical.Weight, critical.Detail = discovery.StatusCritical, 0, "http check: connection refused"
	drained := instance("star", "c-drained", "2001:db8::1")
	leaving := instance("star", "d-leaving", "10.0.0.4")
	pool := newPool(t, "web", leaving)
	flying := pick(t, pool)
	before := time.Now()
	pool.Apply([]discovery.Instance{up, critical, drained})
	balancertest.Drain(pool, "by an operator", drained.Key())
	pick(t, pool).Done(balancer.Outcome{Class: balancer.OutcomeOK, Status: 200, Latency: 1}) // the first answer is no sample
	pick(t, pool).Done(balancer.Outcome{Class: balancer.OutcomeTimeout, Latency: 20 * time.Millisecond})
	second := pick(t, pool)

	h := handlerOf(Options{Services: Services{Pools: poolsOf(pool)}, Orders: operator.New(operator.Options{})})
	for _, path := range []string{"/api", "/api/peers"} {
		got := getJSON[[]Peer](t, h, path)
		verify.Require(t, len(got) == 4, "%s: got %+v", path, got)
		for i := range got {
			verify.That(t, !got[i].Since.Before(before.Add(-time.Minute)) && !got[i].Since.After(time.Now()) && got[i].Since.Location() == time.UTC, "%s: since %v", got[i].ID, got[i].Since)
			got[i].Since = time.Time{}
			verify.That(t, (got[i].LatencyMS > 0) == (got[i].Requests > 0), "%s: latency %v ms after %d attempts", got[i].ID, got[i].LatencyMS, got[i].Requests)
			got[i].LatencyMS = 0
		}
		want := []Peer{
			{Service: "web", ID: "a-up", Node: "n", Datacenter: "dc1", Address: "10.0.0.1:80", Weight: 5, Due: 0.7143, Tags: []string{"v1", "sluice.basic_auth.users=***"}, Meta: map[string]string{"rack": "7"},
				Status: "passing", State: "up", Reasons: []string{}, Used: true, Inflight: 1, Requests: 2, Failures: 1},
			{Service: "web", ID: "b-critical", Node: "n", Address: "10.0.0.2:80", Due: 0.1429, Tags: []string{},
				Status: "critical", State: "unhealthy", Reasons: []string{"consul: critical: http check: connection refused"}},
			{Service: "web", ID: "c-drained", Node: "n", Address: "[2001:db8::1]:80", Weight: 1, Due: 0.1429, Tags: []string{},
				Status: "passing", State: "draining", Reasons: []string{"drain: by an operator"}},
			{Service: "web", ID: "d-leaving", Node: "n", Address: "10.0.0.4:80", Weight: 1, Tags: []string{},
				Status: "passing", State: "draining", Reasons: []string{"removed from the set"}, Leaving: true, Inflight: 1},
		}
		verify.DeepEqual(t, got, want, "%s", path)
	}

	flying.Done(balancer.Outcome{})
	second.Done(balancer.Outcome{})
	got := ids(getJSON[[]Peer](t, h, "/api/peers"))
	verify.That(t, !slices.Contains(got, "d-leaving"), "a peer that has drained is still shown: %v", got)
}

// Each peer has the part of the requests that is due to it, the one that it gets, and why.
func TestPeersHasShares(t *testing.T) {
	pool := newPool(t, "web", instance("star", "a", "10.0.0.1"), instance("star", "b", "10.0.0.2"))
	balancertest.Drain(pool, "by an operator", instance("star", "b", "10.0.0.2").Key())
	for range 50 {
		pick(t, pool).Done(balancer.Outcome{Class: balancer.OutcomeOK, Status: 200, Latency: time.Millisecond})
	}
	h := handlerOf(Options{Services: Services{Pools: poolsOf(pool)}, Orders: operator.New(operator.Options{})})
	got := getJSON[[]Peer](t, h, "/api/peers")
	verify.Require(t, len(got) == 2 && got[0].Share != nil && got[1].Share != nil, "got %+v", got)
	verify.That(t, got[0].Due == .5 && got[1].Due == .5 && *got[0].Share == 1 && *got[1].Share == 0, "got %+v", got)
	verify.That(t, slices.Contains(got[1].ShareWhy, "drain: by an operator"), "why %q", got[1].ShareWhy)
}

func TestPeersSelectsByServiceStateAndNode(t *testing.T) {
	bad := instance("a", "a2", "10.0.0.2")
	bad.Status = discovery.StatusCritical
	elsewhere := instance("b", "b1", "10.0.0.3")
	elsewhere.Node = "m"
	h := handlerOf(Options{Services: Services{Pools: poolsOf(
		newPool(t, "c", instance("c", "c1", "10.0.0.4")), newPool(t, "a", instance("a", "a1", "10.0.0.1"), bad),
		newPool(t, "b", elsewhere), newPool(t, "empty"),
	)}})
	for query, want := range map[string]string{
		"": "a1 a2 b1 c1", "?service=b": "b1", "?service=a&service=c": "a1 a2 c1", "?service=empty": "",
		"?state=up": "a1 b1 c1", "?state=unhealthy&state=draining": "a2", "?service=a&state=up": "a1",
		"?node=m": "b1", "?node=m&node=n&state=up": "a1 b1 c1", "?node=none": "",
	} {
		verify.Equal(t, strings.Join(ids(getJSON[[]Peer](t, h, "/api/peers"+query)), " "), want, "%q", query)
	}
	for _, wrong := range []string{"unhealty", "", "critical"} { // no peer is ever in these: [] would say that all is well
		status, body := ask(t, h, "GET", "/api/peers?state=up&state="+wrong)
		verify.That(t, status == 400 && strings.Contains(body, "want one of up, warming, ejected, unhealthy, draining"), "state %q: status %d\n%s", wrong, status, body)
	}
}

// When the API reports a peer in maintenance, no later pick uses it, and no response mixes the old
// and the new state of a peer.
func TestPeersAreConsistentWithPicks(t *testing.T) {
	const peers = 250
	sound := make([]discovery.Instance, peers)
	for i := range sound {
		sound[i] = instance("star", fmt.Sprintf("star-%03d", i), fmt.Sprintf("10.0.0.%d", i))
	}
	upgraded := slices.Clone(sound)
	upgraded[0].Status, upgraded[0].Detail, upgraded[0].Weight = discovery.StatusMaintenance, "upgrade", 9
	// With this policy it takes long to build a snapshot.
	pool := balancer.NewPool("web", balancertest.Complete(balancer.Options{Policy: balancer.PolicyHash}))
	t.Cleanup(pool.Close)
	h := handlerOf(Options{Services: Services{Pools: poolsOf(pool)}})
	row := func() Peer { return getJSON[[]Peer](t, h, "/api/peers?service=web")[0] }
	for range long.Count(t, 10, 50) {
		pool.Apply(sound)
		applied := make(chan struct{})
		go func() {
			defer close(applied)
			pool.Apply(upgraded)
		}()
		for maintained := false; !maintained; {
			p := row()
			maintained = p.Status == "maintenance"
			want := Peer{Status: "passing", State: "up", Weight: 1, Reasons: []string{}, Used: true}
			if maintained {
				want = Peer{Status: "maintenance", State: "unhealthy", Weight: 9, Reasons: []string{"consul: maintenance: upgrade"}}
			}
			got := Peer{Status: p.Status, State: p.State, Weight: p.Weight, Reasons: p.Reasons, Used: p.Used}
			verify.Require(t, reflect.DeepEqual(got, want), "shown as %+v", got)
		}
		verify.Require(t, !slices.ContainsFunc(pool.Snapshot().Eligible, func(p *balancer.Peer) bool { return p.ID == sound[0].Key() }), "picked after the API reported maintenance")
		<-applied
	}
}

// An old process that finishes its requests is asked for its peers, and an answer that it does not
// give is no empty one.
func TestPeersOfTheFormerProcess(t *testing.T) {
	var err error
	h := handlerOf(Options{Services: Services{Former: func() ([]Peer, error) {
		one := func(service string) Peer {
			return Peer{Service: service, ID: service + "-1", State: "up", Status: "passing", Tags: []string{}, Reasons: []string{}}
		}
		return []Peer{one("a"), one("b")}, err
	}}})
	for query, want := range map[string][]string{"": {"a-1", "b-1"}, "&service=b": {"b-1"}, "&service=nope": {}, "&state=draining": {}} {
		verify.Slices(t, ids(getJSON[[]Peer](t, h, "/api/peers?process=former"+query)), want, "%q", query)
	}
	status, _ := ask(t, h, "GET", "/api/peers?process=other")
	verify.Equal(t, status, 400, "the status for another process")
	err = errors.New("no answer")
	status, body := ask(t, h, "GET", "/api/peers?process=former")
	verify.That(t, status == 503 && errorOf(t, body) == "no answer", "without an answer: %d %s", status, body)
}
