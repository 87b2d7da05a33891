package balancer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/observe/metrics"
	"sluice/route/places"
	"sluice/test/verify"
)

// withTags returns one instance per element, with these comma-separated tags.
func withTags(tags ...string) []discovery.Instance {
	set := instances(len(tags))
	for i, list := range tags {
		if list != "" {
			set[i].Tags = strings.Split(list, ",")
		}
	}
	return set
}

// byTag returns a group for each tag, with the tag's name.
func byTag(tags ...string) []GroupSelector {
	var groups []GroupSelector
	for _, tag := range tags {
		groups = append(groups, GroupSelector{Name: tag, Selector: Selector{Tags: []string{tag}}})
	}
	return groups
}

// in returns a query of the group with that name.
func in(p *Pool, group string) *Query { return &Query{Group: p.Group(group).ID()} }

// members returns the numbers of the eligible instances of each group.
func members(p *Pool) map[string][]int {
	groups := make(map[string][]int)
	for _, part := range p.Snapshot().Groups {
		groups[part.Group.Name()] = nil
		for _, peer := range part.Eligible {
			groups[part.Group.Name()] = append(groups[part.Group.Name()], peer.Instance().Port-10000)
		}
	}
	return groups
}

func expectMembers(t *testing.T, p *Pool, want map[string][]int) {
	t.Helper()
	got := members(p)
	verify.That(t, maps.EqualFunc(got, want, slices.Equal), "groups %v, want %v", got, want)
	for name, numbers := range want {
		picked := make(map[int]bool)
		for range 300 {
			if token, err := p.Pick(in(p, name)); err == nil {
				picked[token.Peer.Instance().Port-10000] = true
				token.Done(Outcome{})
			}
		}
		verify.Slices(t, slices.Sorted(maps.Keys(picked)), numbers, "group %s: picked", name)
	}
}

// An instance belongs to the first group that selects it. Its tags decide anew whenever
// they change, and the options whenever they do; the peers stay the same ones.
func TestGroups(t *testing.T) {
	o := Options{Policy: PolicyRandom, Groups: byTag("a", "b"), NewTransport: newTestTransport}
	p := newTestPool(t, o, withTags("a", "b", "a,b", "", "c")...)
	before := p.Snapshot().All
	held := mustPick(t, p, in(p, "b"))
	expectMembers(t, p, map[string][]int{"a": {0, 2}, "b": {1}, "rest": {3, 4}})
	set := withTags("a", "b", "b", "a", "c")
	set[3].Node = "node-2"
	p.Apply(set)
	expectMembers(t, p, map[string][]int{"a": {0, 3}, "b": {1, 2}, "rest": {4}})

	o.Groups = append(byTag("c"), GroupSelector{Name: "b", Selector: Selector{Nodes: []string{"node-2"}}})
	p.Reconfigure(complete(o))
	expectMembers(t, p, map[string][]int{"c": {4}, "b": {3}, "rest": {0, 1, 2}})
	verify.Equal(t, held.Peer.Group().Name(), RestGroup, "the peer is in")
	n := held.Peer.Inflight()
	verify.That(t, n == 1 && slices.Equal(p.Snapshot().All, before), "the peers are others, or the one with a request has %d", n)
	held.Done(Outcome{})

	p.Reconfigure(complete(Options{NewTransport: newTestTransport}))
	verify.That(t, p.Snapshot().Groups == nil && held.Peer.Group() == nil, "there are groups after the last was removed")
	mustPick(t, p, in(p, "b")).Done(Outcome{}) // routed just before
}

// A group that the pool does not have is the whole pool.
func TestUnknownGroupIsTheWholePool(t *testing.T) {
	p := newTestPool(t, Options{Groups: byTag("a")}, withTags("", "")...)
	expectPick(t, p, in(p, "b"), nil)
	expectPick(t, p, in(p, "a"), ErrNoPeers)
	first := p.Group("a")
	verify.That(t, p.Group("a") == first && first.ID() != p.Group("b").ID(), "groups are not told apart by name")
}

// Groups with names that change with each release do not take more and more memory. The id of one
// means no other group soon, and never one in use.
func TestFormerGroupsAreForgotten(t *testing.T) {
	p := newTestPool(t, Options{Groups: byTag("a")})
	a := p.Group("a")
	last := a
	for i := range 10 {
		if i == 5 {
			p.groups.last = maxGroups - 1 // as after so many groups
		}
		name := fmt.Sprint("v", i)
		group := p.Group(name) // a route table is made before the options change
		for _, other := range []GroupID{0, a.ID(), last.ID(), p.Group(RestGroup).ID()} {
			verify.That(t, group.ID() != other, "the id %d of %s is in use", group.ID(), name)
		}
		last = group
		p.Reconfigure(complete(Options{Groups: byTag("a", name)}))
		verify.That(t, p.Group(name) == group && p.Group("a") == a, "groups in use are forgotten")
		// With the one before, and RestGroup.
		verify.That(t, len(p.groups.named) <= 4, "%d groups", len(p.groups.named))
	}
}

// A pick never leaves its group, unless it has a fallback.
func TestPicksStayInTheirGroup(t *testing.T) {
	set := withTags("a", "", "")
	p := newTestPool(t, Options{Groups: byTag("a"), RetryBudget: ampleRetries}, set...)
	q := in(p, "a")
	q.Tried.Add(peerOf(t, p, set[0]))
	expectPick(t, p, q, ErrAllTried)
	setReason(p, set[0].Key(), ReasonEjected, true, "")
	expectPick(t, p, in(p, "a"), ErrNoEligible)
	p.Apply(set[1:])
	expectPick(t, p, in(p, "a"), ErrNoPeers)

	fallback := in(p, "a")
	fallback.Fallback = p.Group(RestGroup).ID()
	expectPick(t, p, fallback, nil)
	p.Apply(set)
	setReason(p, set[0].Key(), ReasonEjected, true, "")
	expectPick(t, p, fallback, nil)
	setReason(p, set[0].Key(), ReasonEjected, false, "")
	for range 100 {
		verify.Require(t, picked(t, p, fallback).Group().Name() == "a",
			"the fallback is used although the group has a peer")
	}
	fallback.Tried.Add(peerOf(t, p, set[0]))
	expectPick(t, p, fallback, nil)
	verify.Equal(t, p.Group("a").Fallbacks(), 3, "fallbacks are counted")
	setReason(p, set[1].Key(), ReasonEjected, true, "")
	setReason(p, set[2].Key(), ReasonEjected, true, "")
	expectPick(t, p, fallback, ErrNoEligible)
}

// In a group, no peer has more than its share of the requests that the group's peers
// have in flight, whichever way they came.
func TestHashesOfAGroupAreBounded(t *testing.T) {
	o := Options{Policy: PolicyHash, HashBound: 1.25, Groups: byTag("a")}
	p := newTestPool(t, o, withTags("a", "a", "", "", "", "")...)
	var held []Token
	q := in(p, "a")
	q.Hash = 4711
	for range 400 {
		held = append(held, mustPick(t, p, q))
	}
	for _, peer := range p.Snapshot().part(q.Group).All {
		n := peer.Inflight()
		verify.That(t, n >= 140 && n <= 260, "%v has %d of 400 requests", peer, n)
	}
	held = append(held, hold(t, p, 600)...)
	inflight := 0
	for _, peer := range p.Snapshot().part(q.Group).All {
		inflight += peer.Inflight()
	}
	verify.Equal(t, p.Group("a").inflight.Load(), int64(inflight), "are counted for the group, its peers have %d", inflight)
	for _, token := range held {
		token.Done(Outcome{})
	}
	a, rest := p.Group("a").inflight.Load(), p.Group(RestGroup).inflight.Load()
	verify.That(t, a == 0 && rest == 0, "%d and %d are counted when none is in flight", a, rest)
}

func TestAttemptsOfAGroup(t *testing.T) {
	p := newTestPool(t, Options{Groups: byTag("a")}, withTags("a", "")...)
	for _, o := range []Outcome{
		{Class: OutcomeOK, Status: 204, Latency: time.Millisecond},
		{Class: OutcomeOK, Status: 404}, // before the end of the request
		{Class: OutcomeServerError, Status: 500, Latency: time.Millisecond},
		{Class: OutcomeConnectFailure, Latency: time.Millisecond},
		{Class: OutcomeTimeout, Latency: time.Second},
		{Class: OutcomeReset},
		{Class: OutcomeClientGone},
		{Class: OutcomeSuperseded, Latency: time.Second},
		{Class: OutcomeStale},
		{Class: OutcomeLocal},
	} {
		mustPick(t, p, in(p, "a")).Done(o)
	}
	stream := mustPick(t, p, in(p, "a"))
	stream.Connected(time.Millisecond)
	stream.Done(Outcome{Class: OutcomeOK})
	attempts := p.Group("a").Attempts().Snapshot()
	var got [metrics.NumClasses]uint64
	for class := range got {
		got[class] = attempts.Class(metrics.Class(class))
	}
	verify.Equal(t, got, [metrics.NumClasses]uint64{metrics.Class2xx: 2, metrics.Class4xx: 1, metrics.Class5xx: 4, metrics.ClassAborted: 2}, "attempts by class")
	verify.Equal(t, attempts.Latency, 2*time.Second+4*time.Millisecond, "latency")
	rest := p.Group(RestGroup).Attempts().Snapshot()
	verify.Equal(t, rest.Total(), 0, "attempts of the rest")
	// Attempts count for the group of their peer, also without a group in the query.
	for range 50 {
		mustPick(t, p, nil).Done(Outcome{Class: OutcomeOK, Status: 200})
	}
	attempts, rest = p.Group("a").Attempts().Snapshot(), p.Group(RestGroup).Attempts().Snapshot()
	a, b := attempts.Total(), rest.Total()
	verify.That(t, a+b == 59 && b != 0, "%d and %d attempts, want 59 together", a, b)
}

// Requests that wait for a connection to a peer of one group do not hold up those of
// another.
func TestGroupsWaitInTheirOwnLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{Groups: byTag("a"), Limits: Limits{PeerConnections: 1}}, withTags("a", "")...)
		a := mustPick(t, p, in(p, "a"))
		ctx, cancel := context.WithCancel(t.Context())
		waited := make(chan error)
		go func() {
			token, err := p.AwaitConnection(ctx, places.Many, in(p, "a"))
			if err == nil {
				token.Done(Outcome{})
			}
			waited <- err
		}()
		synctest.Wait()
		expectPick(t, p, in(p, RestGroup), nil)
		rest := mustPick(t, p, in(p, RestGroup))
		expectPick(t, p, in(p, RestGroup), ErrConnectionsSaturated)
		rest.Done(Outcome{})
		expectPick(t, p, in(p, "a"), ErrConnectionsSaturated)
		synctest.Wait()
		a.Done(Outcome{})
		verify.Succeeds(t, <-waited)
		cancel()
		verify.That(t, p.queue.length.Load() == 0 && len(p.queue.lines) == 0, "still wait: %v", p.queue.lines)
	})
}

// A group learns of the attempts of clients that a split has assigned to it, and of no others.
func TestGroupOnDone(t *testing.T) {
	o := Options{Policy: PolicyRandom, Groups: byTag("a", "empty"), NewTransport: newTestTransport}
	p := newTestPool(t, o, withTags("a", "")...)
	var got []string
	a, rest := p.Group("a"), p.Group(RestGroup)
	a.OnDone(func(client uint64, o Outcome) { got = append(got, fmt.Sprint(client, o.Class)) })
	try := func(q Query, class OutcomeClass) { mustPick(t, p, &q).Done(Outcome{Class: class}) }
	try(Query{Group: a.ID(), Client: 1}, OutcomeReset)
	try(Query{Group: a.ID(), Client: 2}, OutcomeServerError)
	try(Query{Group: a.ID(), Client: 3}, OutcomeOK)
	try(Query{Group: a.ID(), Client: 4}, OutcomeClientGone)
	try(Query{Group: a.ID()}, OutcomeReset) // by a rule
	try(Query{Group: rest.ID(), Client: 6}, OutcomeReset)
	try(Query{Group: p.Group("empty").ID(), Fallback: a.ID(), Client: 7}, OutcomeReset)
	try(Query{Client: 8}, OutcomeReset)
	a.OnDone(nil)
	try(Query{Group: a.ID(), Client: 9}, OutcomeReset)
	verify.Slices(t, got, []string{"1 reset", "2 server error", "3 ok", "4 client gone"},
		"the group learns of")
}
