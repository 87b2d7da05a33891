package consul

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

func TestChangesArriveAtOnce(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having(""), func(t *testing.T, b *bubble) {
		b.expect(0, "0s: ")
		b.at(sec)
		b.set("a b")
		b.expect(sec, "1s: a b")
		b.set("a b:critical")
		b.expect(sec, "1s: a b:critical")
		b.at(sec + ms) // close after: within the burst of the token bucket
		b.set("b")
		b.expect(sec+ms, "1.001s: b")
		s := b.status()
		verify.That(t, s.State == discovery.WatchFresh && s.Index != 0 && s.Queries == 4 && s.Changes == 4, "status %+v", s)
	})
}

func TestQueryParameters(t *testing.T) {
	watchInBubble(t, ServiceOptions{Tags: []string{"v1", "eu"}, Filter: `Node.Meta.zone == "a"`, Datacenter: "dc2", Wait: maxWait}, having("a"), func(t *testing.T, b *bubble) {
		b.at(time.Hour)
		requests := b.Requests()
		for n, r := range requests {
			verify.That(t, slices.Equal(r.Tags, []string{"v1", "eu"}) && r.Filter == `Node.Meta.zone == "a"` && r.Datacenter == "dc2", "request %d: %+v", n, r)
			blocks := r.Index > 0 && r.Wait <= 10*time.Minute && r.Wait >= 9*time.Minute
			verify.That(t, n == 0 && r.Index == 0 || n > 0 && blocks, "request %d: index %d, wait %v", n, r.Index, r.Wait)
		}
		verify.That(t, len(requests) <= 9, "%d requests in an hour without a change", len(requests))
		waits := make(map[time.Duration]bool)
		for _, r := range requests[2:] {
			waits[r.Wait] = true
		}
		verify.That(t, len(waits) >= 2, "waits without jitter: %v", waits)
	})
}

func TestOlderStaleAnswerIsRepeated(t *testing.T) {
	watchInBubble(t, ServiceOptions{Consistency: ConsistencyStale, Cached: true, Near: "_agent"}, havingAt(100, "a b"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		for n, r := range b.Requests() {
			verify.That(t, r.Stale && r.Cached && !r.Consistent && r.Near == "_agent", "request %d: %+v", n, r)
		}
		// A lagging server does not have b yet.
		lagging := discoverytest.Fault{Body: b.body("a"), Index: "90", Only: func(r discoverytest.Request) bool { return r.Stale }}
		b.Break(lagging)
		b.expect(60 * sec)
		s := b.status()
		verify.That(t, s.Probation == 0 && s.Errors == 0, "status %+v", s)
		b.set("a") // nor is what is gone by now lost with Consul's state
		b.expectOne(60*sec, 62*sec, "a")
	})
}

// A lagging server that has all instances brings no old status back, and no loss of Consul's state.
func TestOlderStaleAnswerOfTheSameInstances(t *testing.T) {
	watchInBubble(t, ServiceOptions{Consistency: ConsistencyStale}, havingAt(100, "a b:critical"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b:critical")
		b.Break(discoverytest.Fault{Body: b.body("a b"), Index: "90", Only: func(r discoverytest.Request) bool { return r.Stale }})
		b.expect(60 * sec)
		b.Heal()
		b.set("a b")
		b.expectOne(60*sec, 62*sec, "a b")
		for _, e := range b.events.All() {
			verify.That(t, e.Kind != events.KindReset, "event %+v", e)
		}
	})
}

func TestConsistentModeConfirmsEachChange(t *testing.T) {
	watchInBubble(t, ServiceOptions{Consistency: ConsistencyConsistent}, having("a"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a")
		n := len(b.Requests())
		b.set("a b")
		b.expect(sec, "1s: a b")
		r := b.since(n)
		verify.That(t, len(r) == 2 && r[0].Index == 0 && r[0].Consistent && r[1].Index != 0,
			"requests %+v, want one that does not block and the next that does", r)
		for _, r := range b.Requests() {
			verify.That(t, r.Consistent && !r.Stale && !r.Cached, "request %+v", r)
		}
	})
}

// TestHostileAnswers has what no Consul answers.
func TestErrorsKeepTheInstances(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fault discoverytest.Fault
		want  string // part of the error
	}{
		{"500", discoverytest.Fault{Status: 500, Body: "No cluster leader"}, "500 Internal Server Error (No cluster leader)"},
		{"429", discoverytest.Fault{Status: 429, Body: "slow down"}, "429 Too Many Requests: the agent limits"},
		{"403", discoverytest.Fault{Status: 403, Body: "ACL not found"}, `lacks service:read for "star" and node:read for its nodes (ACL not found)`},
		{"a long error page", discoverytest.Fault{Status: 502, Body: strings.Repeat("<html>", 1000)}, "502 Bad Gateway (<html>"},
		{"a dropped connection", discoverytest.Fault{Drop: true}, "EOF"},
		{"no known leader", discoverytest.Fault{NoLeader: true, Empty: true}, "knows no leader"},
		{"filtered by ACLs to nothing", discoverytest.Fault{Filtered: true, Empty: true}, `the token lacks service:read for "star"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			watchInBubble(t, ServiceOptions{}, having("a b"), func(t *testing.T, b *bubble) {
				b.expect(sec, "0s: a b")
				b.Break(tt.fault)
				b.expect(40 * sec)
				b.stale(tt.want)
				s := b.status()
				verify.Equal(t, s.Instances, 2, "instances")
				verify.That(t, len(s.LastError) <= 600, "an error of %d bytes", len(s.LastError))
				log := b.log.String()
				verify.Equal(t, countLines(log, `"level":"warn"`, `"instances_in_use":2`), 1, "warnings in %s", log)
				b.Heal()
				b.at(56 * sec)
				b.fresh()
				s = b.status()
				verify.That(t, s.LastError == "" && s.Changes == 1, "after the fault: %+v", s)
			})
		})
	}
}

func TestRetriesBackOff(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
		b.at(sec)
		b.Break(discoverytest.Fault{Status: 500})
		n := len(b.Requests())
		b.at(61 * sec)
		retries := b.since(n)
		first := retries[0].Time.Sub(b.begin.Add(sec))
		verify.That(t, first >= 50*ms && first <= 150*ms, "first retry after %v", first)
		verify.That(t, len(retries) >= 20 && len(retries) <= 90, "%d retries in a minute", len(retries))
		for n, r := range retries {
			verify.Equal(t, r.Index, 0, "retry %d blocks on index", n)
			before := retries[max(n-1, 0)].Time
			verify.That(t, r.Time.Sub(before) <= 3*sec, "%v before retry %d", r.Time.Sub(before), n)
		}
		b.set("a b")
		b.Heal()
		b.at(64 * sec)
		s := b.status()
		verify.That(t, s.Instances == 2 && s.State == discovery.WatchFresh, "3 s after the fault: %+v", s)

		b.Break(discoverytest.Fault{Status: 429})
		n = len(b.Requests())
		b.at(124 * sec)
		got := len(b.since(n))
		verify.That(t, got <= 12, "%d retries in a minute of 429", got)
	})
}

// A server that does not know the new leader holds queries, while others answer.
func TestHeldQueryIsRepeated(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a")
		b.Break(discoverytest.Fault{Status: 500})
		synctest.Wait()
		// The query after the error and the one after 1 s are held, the one after 3 s is
		// not.
		held := b.begin.Add(3 * sec)
		b.Break(discoverytest.Fault{Hang: true, Only: func(r discoverytest.Request) bool { return r.Index == 0 && r.Time.Before(held) }})
		b.set("a b")
		b.expectOne(sec, 5*sec, "a b")
		verify.Equal(t, b.status().Errors, 1, "errors")
	})
}

func TestHalfOpenConnectionIsDetected(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
		b.at(sec)
		b.Break(discoverytest.Fault{Hang: true, Only: func(r discoverytest.Request) bool { return r.Index > 0 }})
		b.at(79 * sec) // wait, wait/16 and the grace
		verify.Equal(t, b.status().Errors, 1, "errors")
		verify.Contains(t, b.log.String(), "no answer within 1m", "log")
		anew := func(r discoverytest.Request) bool { return r.Index == 0 }
		verify.That(t, slices.ContainsFunc(b.since(2), anew), "no query without an index after it")
	})
}

func TestLowerIndexResetsTheIndex(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, havingAt(1000, "a"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a")
		n := len(b.Requests())
		b.SetIndex(5)
		b.set("a b") // index 6, unseen by the query that blocks on 1000
		b.expectOne(50*sec, 70*sec, "a b")
		requests := b.since(n)
		verify.That(t, len(requests) == 2 && requests[0].Index == 0 && requests[1].Index == 6, "requests %+v, want one without index, then one with 6", requests)
		b.set("b")
		b.expect(70*sec, "1m10s: b")
	})
}

func TestIndexZeroCausesNoBusyLoop(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
		b.Break(discoverytest.Fault{Index: "0"}) // it does not block either
		b.at(60 * sec)
		requests := b.Requests()
		verify.That(t, len(requests) <= 60, "%d requests in a minute", len(requests))
		for n, r := range requests[2:] {
			verify.Equal(t, r.Index, 1, "request %d: index", n+2)
		}
		b.fresh()
		verify.Equal(t, b.status().Instances, 1, "instances")
	})
}

func TestSteadyChangesAreLimited(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having(""), func(t *testing.T, b *bubble) {
		for n := range 1000 { // 100 a second
			b.at(time.Duration(n) * 10 * ms)
			b.set([]string{"a", "a b"}[n%2])
		}
		got, limit := len(b.Requests()), consul.QueryBurst+10*consul.QueryRate+1
		verify.That(t, got <= limit && got >= limit-5, "%d requests in 10 s, want about %d", got, limit)
	})
}

func TestServiceWithoutNameEndsTheWatch(t *testing.T) {
	client := verify.Result(newClient(consul.Options{})).Must(t)
	err := client.Source(ServiceOptions{}).Run(t.Context(), discovery.WatchState{}, nil)
	verify.That(t, err != nil && !errors.Is(err, context.Canceled), "Run: %v", err)
}

// A stream does not report the loss of the leader.
func TestStreamWithoutALeaderIsNotFresh(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]ServiceOptions{"as usual": {}, "from the cache": {Cached: true}} {
		t.Run(name, func(t *testing.T) {
			watchInBubble(t, o, having("a b"), func(t *testing.T, b *bubble) {
				b.expect(10*sec, "0s: a b")
				b.Break(discoverytest.Fault{Leaderless: true})
				b.at(12 * sec)
				b.fresh() // during an election
				b.at(16 * sec)
				b.stale("")
				for at := 20 * sec; at < 5*time.Minute; at += 7 * sec {
					b.at(at)
					b.stale("")
				}
				n := len(b.Requests())
				b.Heal()
				b.set("a b c")
				b.expectOne(5*time.Minute-8*sec, 5*time.Minute+2*sec, "a b c")
				b.fresh()
				// One in 1 s, give or take a half.
				verify.That(t, n <= 330, "%d requests in five minutes without a leader", n)
			})
		})
	}
}

// An agent that answers probes with 429, or is behind a proxy that denies them, may have a
// leader.
func TestDeniedProbesCancelNoQueries(t *testing.T) {
	t.Parallel()
	for _, status := range []int{403, 404, 429} {
		watchInBubble(t, ServiceOptions{}, having("a b"), func(t *testing.T, b *bubble) {
			b.expect(10*sec, "0s: a b")
			n := len(b.Requests())
			b.BreakProbes(status)
			b.expect(3 * time.Minute)
			got := len(b.since(n))
			verify.That(t, got <= 4, "%d requests in three minutes without a change", got)
			b.set("a b c")
			b.expect(3*time.Minute, "3m0s: a b c")
			s := b.status()
			verify.That(t, s.State == discovery.WatchFresh && s.Errors <= 0, "%d: status %+v", status, s)
			for _, r := range b.Requests() {
				verify.Require(t, r.Index <= 0 || r.Near == "", "%d: a view is bypassed: %+v", status, r)
			}
		})
	}
}

// The agent's cache reports the time since its last update.
func TestAnswerOfAnOutdatedCacheIsNotUsed(t *testing.T) {
	watchInBubble(t, ServiceOptions{Cached: true, Near: "_agent"}, having("a b"), func(t *testing.T, b *bubble) {
		b.expect(10*sec, "0s: a b")
		b.Break(discoverytest.Fault{Age: "30", Empty: true})
		b.expect(60 * sec)
		b.stale("the agent's cache has not been updated for 30s")
		b.Break(discoverytest.Fault{Age: "0"})
		b.at(70 * sec)
		b.fresh()
	})
}

// What is skipped of an answer is in the state of the watch, for as long as it is, and logged once.
func TestSkippedEntriesAreInvalid(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having(""), func(t *testing.T, b *bubble) {
		odd := discoverytest.Instance("star", "z", 0)
		for n := range 3 {
			b.Set("star", odd, discoverytest.Instance("star", "a", 8000+n))
			b.at(time.Duration(n+1) * sec)
			want := []discovery.Invalid{{Key: odd.Service.ID, Reason: "it has port 0"}}
			verify.Slices(t, b.status().Invalid, want, "invalid")
		}
		log := b.log.String()
		verify.Equal(t, countLines(log, `"id":"z"`, `"node":"node-1"`, `"reason":"it has port 0"`), 1, "warnings in %s", log)
		b.set("a")
		verify.Equal(t, len(b.status().Invalid), 0, "invalid at the end")
	})
}

func TestStatsMatchTheRequestsToConsul(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
		b.expect(10*sec, "0s: a")
		b.Break(discoverytest.Fault{Status: 429, Only: func(r discoverytest.Request) bool { return r.Service != "" }})
		b.at(15 * sec)
		b.Heal()
		b.at(30 * sec)
		s := b.client.Stats()
		seen, probes := b.Requests(), b.Probes()
		want := uint64(len(seen) + probes)
		verify.That(t, s.Queries == want, "%d queries, Consul got %d", s.Queries, want)
		verify.Equal(t, s.Probes, uint64(probes), "probes, Consul got %d", probes)
		errors := b.status().Errors
		verify.That(t, s.Refused > 0 && s.Errors == s.Refused && s.Errors == errors, "%+v: want %d errors, one per answer 429", s, errors)
		verify.That(t, s.Opened == uint64(s.Connections) && s.Opened == 2 && s.Watches == 1 && s.OnOverview == 0,
			"%+v: want one connection for the watch and one for probes", s)
	})
}
