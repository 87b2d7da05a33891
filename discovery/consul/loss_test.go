package consul

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/discovery/discoverytest"
)

// What an answer may take out of service.

func TestSuddenEmptyIsConfirmedAndHeld(t *testing.T) {
	watchInBubble(t, ServiceOptions{EmptyHold: 20 * sec}, having("a b"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		n := len(b.Requests())
		b.set("")
		b.expect(2 * sec)
		if r := b.since(n); len(r) < 2 || !r[0].Consistent || r[0].Index != 0 || r[1].Consistent {
			t.Errorf("requests %+v, want one consistent first", r)
		}
		s := b.status()
		if s.State != discovery.WatchStale || s.Held != 2 || !strings.Contains(s.LastError, "suddenly lists 0 instances in service: 2 that were are kept until") {
			t.Errorf("status %+v", s)
		}
		if !strings.Contains(b.log.String(), "instances kept after a sudden loss") {
			t.Errorf("log: %s", b.log.String())
		}
		b.at(10 * sec)
		b.set("a:critical")
		b.at(11 * sec)
		b.set("a")
		b.expectOne(21*sec, 23*sec, "a")
		if !strings.Contains(b.log.String(), `"instances":1,"message":"kept instances given up`) {
			t.Errorf("log: %s", b.log.String())
		}
		if s := b.status(); s.State != discovery.WatchFresh || s.Held != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestInstancesThatAWipedAgentTakesOutOneByOneComeBack(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a b c"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b c")
		b.set("b c")
		b.expect(sec, "1s: b c")
		b.at(sec + 20*ms)
		b.set("c")
		b.expect(sec+20*ms, "1.02s: c")
		b.at(sec + 40*ms)
		b.set("")
		b.expect(sec+40*ms, "1.04s: a b c")
	})
}

func TestInstancesThatMayStillAnswerAreKeptUnlisted(t *testing.T) {
	o := ServiceOptions{EmptyHold: 20 * sec, KeepAnswering: 10 * time.Minute, Wait: time.Minute}
	watchInBubble(t, o, having("a b"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		b.set("")
		b.expect(20 * sec)
		b.expectOne(21*sec, 22*sec, "a? b?")
		s := b.status()
		if s.State != discovery.WatchStale || s.Held != 0 || s.Unlisted != 2 || s.Instances != 2 ||
			!strings.Contains(s.LastError, "suddenly lists 0 instances in service: 2 that were are used as long as they answer, at most until ") {
			t.Errorf("status %+v", s)
		}
		set := b.latest()
		if since := set[0].Unlisted.Sub(b.begin); since != sec || set[0].Serving() {
			t.Errorf("unlisted after %v, serving %v; want since the loss", since, set[0].Serving())
		}
		b.at(2 * time.Minute) // Consul is away: nothing changes
		b.Break(discoverytest.Fault{Status: 500})
		b.expect(12 * time.Minute)
		b.Heal()
		b.set("b")
		b.expectOne(12*time.Minute, 12*time.Minute+4*sec, "b")
		if s := b.status(); s.State != discovery.WatchFresh || s.Held+s.Unlisted != 0 {
			t.Errorf("status %+v", s)
		}
		for _, line := range []string{
			`"instances":2,"for":"10m0s","message":"consul did not list kept instances in service again: they are used as long as they pass active checks"`,
			`"given_up":1,"message":"no instance is used any more that consul does not list"`,
		} {
			if got := strings.Count(b.log.String(), line); got != 1 {
				t.Errorf("%d lines with %s, want one:\n%s", got, line, b.log.String())
			}
		}
	})
}

func TestUnlistedInstancesGoWhenTheirTimeIsOver(t *testing.T) {
	o := ServiceOptions{EmptyHold: 20 * sec, KeepAnswering: 90 * sec, Wait: 10 * time.Minute}
	watchInBubble(t, o, having("a b"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		b.set("")
		b.expectOne(21*sec, 22*sec, "a? b?")
		b.expect(110 * sec)
		b.expectOne(111*sec, 112*sec, "")
		if s := b.status(); s.State != discovery.WatchFresh || s.Unlisted != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestSuddenEmptyThatIsNotConfirmedIsNoEvent(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a b"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		b.Break(discoverytest.Fault{Empty: true, Only: func(r discoverytest.Request) bool { return !r.Consistent }})
		b.expect(60 * sec)
		b.Heal()
		b.expect(120 * sec)
	})
}

func TestUnreachableConfirmationKeepsTheInstances(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a b"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		b.Break(discoverytest.Fault{Status: 500, Body: "No cluster leader", Only: func(r discoverytest.Request) bool { return r.Consistent }})
		b.set("")
		b.expect(5 * time.Minute)
		if s := b.status(); !strings.Contains(s.LastError, "confirm the answer") {
			t.Errorf("status %+v", s)
		}
	})
}

func TestLastInstanceLeavesAtOnce(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a")
		b.set("")
		b.expect(sec, "1s: ")
	})
}

func TestFilteredAnswerRemovesNothing(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a b c"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b c")
		b.Break(discoverytest.Fault{Filtered: true})
		b.set("a") // b and c may be there: the token cannot see them
		b.expect(60 * sec)
		if s := b.status(); s.State != discovery.WatchStale {
			t.Errorf("status %+v", s)
		}
		b.set("a b c d")
		b.at(90 * sec)
		if s := b.status(); s.Instances != 4 || s.State != discovery.WatchFresh {
			t.Errorf("after an addition: %+v", s)
		}
	})
}

func TestRemovalFromTheStreamingBackendIsConfirmed(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a b c"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b c")
		// The agent's view lacks b, the servers still have it.
		b.Break(discoverytest.Fault{Body: b.body("a c"), Only: func(r discoverytest.Request) bool { return r.Index > 0 }})
		b.expect(20 * sec)
		b.Heal()
		b.at(30 * sec)
		b.set("a c")
		b.expect(30*sec, "30s: a c")
	})
}

// Active checks may well use what Consul calls critical.
func TestACriticalInstanceThatTheStreamingBackendLacksIsConfirmed(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a:critical"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a:critical")
		b.Break(discoverytest.Fault{Filtered: true, Empty: true}) // the token has lost its permissions
		b.expect(20 * sec)
		if s := b.status(); s.State != discovery.WatchStale || s.Instances != 1 {
			t.Errorf("status %+v", s)
		}
		b.Heal()
		b.at(40 * sec)
		b.set("")
		b.expect(40*sec, "40s: ")
	})
}

func TestLossOfTheLastInstanceIsConfirmedWithoutStreaming(t *testing.T) {
	plain := func(b *bubble) { b.set("a"); b.DisableStreaming() }
	watchInBubble(t, ServiceOptions{}, plain, func(t *testing.T, b *bubble) {
		b.expect(20*sec, "0s: a")
		b.Break(discoverytest.Fault{Empty: true, Only: func(r discoverytest.Request) bool { return !r.Consistent }})
		b.expect(30 * sec)
		b.Heal()
		b.at(50 * sec) // the token bucket is full again
		n := len(b.Requests())
		b.set("")
		b.expect(50*sec, "50s: ")
		if r := b.since(n); !slices.ContainsFunc(r, func(r discoverytest.Request) bool { return r.Consistent }) {
			t.Errorf("requests %+v, want a consistent one", r)
		}
	})
}

func TestOneOfSeveralLeavesWithoutConfirmationWhereAnswersTellOfACLs(t *testing.T) {
	plain := func(b *bubble) { b.set("a b"); b.DisableStreaming() }
	watchInBubble(t, ServiceOptions{}, plain, func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		n := len(b.Requests())
		b.set("b")
		b.expect(sec, "1s: b")
		if r := b.since(n); len(r) != 1 {
			t.Errorf("requests %+v, want one", r)
		}
	})
}

func TestClientWithoutTokenHoldsWhatADenyingConsulNoLongerLists(t *testing.T) {
	denying := func(b *bubble) { b.set("a"); b.Break(discoverytest.Fault{Deny: true}) }
	watchInBubble(t, ServiceOptions{}, denying, func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a")
		b.set("")
		b.expect(20 * sec)
		b.expectOne(31*sec, 35*sec, "")
	})
}

func TestClientWithoutTokenIsToldOfADenyingConsul(t *testing.T) {
	denying := func(b *bubble) { b.Break(discoverytest.Fault{Deny: true}) }
	watchInBubble(t, ServiceOptions{}, denying, func(t *testing.T, b *bubble) {
		b.expect(10*sec, "0s: ")
		if got := strings.Count(b.log.String(), "its default policy is deny and no token is set"); got != 1 {
			t.Errorf("%d warnings, want one:\n%s", got, b.log.String())
		}
	})
}

func TestTokenThatNeverSawEverythingStillFollowsWhatItSees(t *testing.T) {
	filtered := func(b *bubble) { b.Break(discoverytest.Fault{Filtered: true}) }
	watchInBubble(t, ServiceOptions{}, filtered, func(t *testing.T, b *bubble) {
		b.at(20 * sec)
		if s := b.status(); s.State != discovery.WatchPending || s.Changes != 0 {
			t.Errorf("nothing seen: %+v", s)
		}
		b.set("a b")
		b.at(40 * sec)
		b.set("a")
		b.at(60 * sec)
		if s := b.status(); s.Instances != 1 || s.State != discovery.WatchFresh {
			t.Errorf("status %+v", s)
		}
		if got := strings.Count(b.log.String(), "consul leaves out instances"); got != 1 {
			t.Errorf("%d warnings, want one:\n%s", got, b.log.String())
		}
		b.set("")
		b.at(80 * sec)
		if s := b.status(); s.Instances != 1 || s.State != discovery.WatchStale {
			t.Errorf("nothing seen any more: %+v", s)
		}
	})
}

func TestReplacedSourceDoesNotEmptyThePool(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a")
		other := discoverytest.New()
		pipe := discoverytest.ServePipe(other)
		client, err := NewClient(ClientOptions{Addresses: []string{"http://other"}, dial: pipe.DialContext})
		if err != nil {
			t.Fatal(err)
		}
		b.manager.Watch("star", client.Source(ServiceOptions{Service: "star"}))
		b.expect(30 * sec)
		b.expectOne(31*sec, 35*sec, "")
		b.manager.Unwatch("star")
		synctest.Wait()
		client.Close()
		pipe.Close()
	})
}

func TestAgentThatSweepsItsInstancesOneByOneEmptiesNoPool(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a b c"), func(t *testing.T, b *bubble) {
		b.at(10 * sec)
		b.Break(dead)
		b.at(15 * sec)
		before := len(b.Requests())
		b.set("c") // its process may be gone
		b.Heal()
		for len(b.Requests()) == before {
			time.Sleep(10 * ms)
		}
		time.Sleep(100 * ms)
		b.set("")
		b.at(30 * sec)
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, set := range b.sets {
			if !strings.HasSuffix(set, ": a b c") {
				t.Errorf("Sink got %q", set)
			}
		}
	})
}
