package consul

import (
	"context"
	"strings"
	"testing"
	"time"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/parallel"
	"sluice/test/verify"
)

// Tests of what an answer may take out of service.

func TestLossOfAllInstancesIsConfirmedAndPutsThemOnProbation(t *testing.T) {
	watchInBubble(t, ServiceOptions{Probation: 10 * time.Minute}, having("a b"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		n := len(b.Requests())
		b.set("")
		b.expect(2*sec, "1s: a? b?")
		r := b.since(n)
		verify.That(t, len(r) >= 2 && r[0].Consistent && r[0].Index == 0 && !r[1].Consistent, "requests %+v, want one consistent first", r)
		b.fresh()
		s := b.status()
		verify.That(t, s.Probation == 2 && s.LastError == "", "status %+v", s)
		first := b.latest()[0]
		verify.Equal(t, first.Probation.Sub(b.begin), sec, "on probation since")
		verify.That(t, !first.Serving(), "%+v is serving", first)
		b.at(10 * sec)
		b.set("a:unchecked")
		b.at(11 * sec)
		b.set("a")
		b.expect(12*sec, "11s: a b?")
		b.expectOne(601*sec, 603*sec, "a")
		verify.Equal(t, b.status().Probation, 0, "on probation")
		log := b.log.String()
		for _, line := range []string{
			`"level":"warn","service":"star","source":"consul service \"star\"","instances":2`,
			`"level":"info","service":"star","source":"consul service \"star\""`,
		} {
			verify.Equal(t, countLines(log, line), 1, "lines with %s in %s", line, log)
		}
	})
}

// The servers elect a leader only after they have answered with a lower index.
func TestLowerIndexIsRememberedUntilItIsConfirmed(t *testing.T) {
	watchInBubble(t, ServiceOptions{Wait: 2 * sec}, having("a b c"), func(t *testing.T, b *bubble) {
		b.expect(10*sec, "0s: a b c")
		b.Break(discoverytest.Fault{Status: 500, Body: "No cluster leader", Only: func(r discoverytest.Request) bool { return r.Consistent }})
		b.SetIndex(7)
		b.set("c")
		b.at(15 * sec)
		b.Heal()
		b.at(60 * sec)
		verify.Equal(t, formatSet(b.latest()), "a? b? c", "the pool")
	})
}

// setTagged is set for instances with tags.
func (b *bubble) setTagged(words string, tags ...string) {
	entries := b.entries(words)
	for _, e := range entries {
		e.Service.Tags = tags
	}
	b.Set("star", entries...)
}

// live select the instances with the tag live.
var live = []ServiceOptions{{Tags: []string{"live"}}, {Filter: `"live" in Service.Tags`}}

// An operator moves the tag to other instances. Consul still has the former ones.
func TestInstancesWithoutTheTagAreNotOnProbation(t *testing.T) {
	for _, o := range live {
		watchInBubble(t, o, func(b *bubble) { b.setTagged("a b", "live") }, func(t *testing.T, b *bubble) {
			b.expect(sec, "0s: a b")
			b.setTagged("a b")
			b.expect(2*sec, "1s: ")
			b.setTagged("a b", "live")
			b.expect(3*sec, "2s: a b")
			b.set("")
			b.expect(4*sec, "3s: a? b?")
			// It is deployed anew, and is another one's instance now.
			b.setTagged("a", "next")
			b.expect(5*sec, "4s: b?")
			b.setTagged("a b", "next")
			b.expect(6*sec, "5s: ")
		})
	}
}

// An instance that registers again between two of the queries about a loss has the tag, and is used
// without a pause.
func TestInstanceThatRegistersAgainMeanwhileIsUsed(t *testing.T) {
	for _, o := range live {
		watchInBubble(t, o, func(b *bubble) { b.setTagged("a b", "live") }, func(t *testing.T, b *bubble) {
			b.expect(sec, "0s: a b")
			returning := "a"
			b.Break(discoverytest.Fault{Only: func(r discoverytest.Request) bool {
				if r.Consistent && len(r.Tags) == 0 && r.Filter == "" && returning != "" {
					b.setTagged(returning, "live")
					returning = ""
				}
				return false
			}})
			b.set("")
			b.expectLast(2*sec, "1s: a b?")
			returning = "a b"
			b.setTagged("a:warning", "live")
			b.expectLast(3*sec, "2s: a b")
		})
	}
}

// Without views, every removal is confirmed, also that of the last instance.
func TestRemovalWithoutStreamingIsConfirmed(t *testing.T) {
	plain := func(b *bubble) { b.set("a b"); b.DisableStreaming() }
	watchInBubble(t, ServiceOptions{}, plain, func(t *testing.T, b *bubble) {
		b.expect(20*sec, "0s: a b")
		b.Break(discoverytest.Fault{Empty: true, Only: func(r discoverytest.Request) bool { return !r.Consistent }})
		b.expect(30 * sec)
		b.Heal()
		for n, set := range []string{"b", ""} {
			at := time.Duration(50+20*n) * sec // the token bucket is full again
			b.at(at)
			asked := len(b.Requests())
			b.set(set)
			b.expect(at, at.String()+": "+[]string{"b", "b?"}[n])
			verify.That(t, len(b.confirmations(asked)) > 0, "no consistent request in %+v", b.since(asked))
		}
	})
}

func TestFailedConfirmationChangesNothing(t *testing.T) {
	t.Parallel()
	watchInBubble(t, ServiceOptions{}, having("a b"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		b.Break(discoverytest.Fault{Status: 500, Body: "No cluster leader", Only: func(r discoverytest.Request) bool { return r.Consistent }})
		b.set("")
		b.expect(5 * time.Minute)
		b.stale("confirm the answer")
	})
}

// With active checks, sluice may use critical instances.
func TestRemovalOfACriticalInstanceByTheStreamingBackendIsConfirmed(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a:critical"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a:critical")
		b.Break(discoverytest.Fault{Filtered: true, Empty: true}) // the token has lost its permissions
		b.expect(20 * sec)
		b.stale("")
		b.Heal()
		b.at(40 * sec)
		b.set("")
		b.expect(40*sec, "40s: ")
	})
}

// A token that is missing is logged, once, if there is nothing without it.
func TestWithoutTokenAnEmptyAnswerPutsInstancesOnProbation(t *testing.T) {
	for first, lines := range map[string]int{"a": 0, "": 1} {
		denying := func(b *bubble) { b.set(first); b.Break(discoverytest.Fault{Deny: true}) }
		watchInBubble(t, ServiceOptions{}, denying, func(t *testing.T, b *bubble) {
			b.expect(10*sec, "0s: "+first)
			log := b.log.String()
			verify.Equal(t, countLines(log, `"default_policy":"deny"`), lines, "warnings in %s", log)
			b.set("")
			if first != "" {
				b.expectOne(10*sec, 11*sec, "a?")
			}
		})
	}
}

func TestWatchFollowsTheVisibleInstancesOfAFilteredService(t *testing.T) {
	filtered := func(b *bubble) { b.Break(discoverytest.Fault{Filtered: true}) }
	watchInBubble(t, ServiceOptions{}, filtered, func(t *testing.T, b *bubble) {
		b.at(20 * sec)
		s := b.status()
		verify.That(t, s.State == discovery.WatchPending && s.Changes == 0, "empty filtered answer: %+v", s)
		b.set("a b")
		b.at(40 * sec)
		b.set("a")
		b.at(60 * sec)
		b.fresh()
		verify.Equal(t, formatSet(b.latest()), "a", "the pool")
		verify.Equal(t, countLines(b.log.String(), `"needs":`), 1, "warnings in %s", b.log.String())
		b.set("")
		b.at(80 * sec)
		b.stale("")
		verify.Equal(t, formatSet(b.latest()), "a", "the pool after an empty filtered answer")
	})
}

// A snapshot that is restored loses no index that a watch could see: a query that blocks ends early
// with what there was before, or goes on in a view, and the next write makes the index higher than
// ever. What the snapshot lacks is on probation all the same. TestAnEarlyAnswerIsAskedAgain of
// package consul has a write before the query that blocked is sent again.
func TestARestoredSnapshotPutsWhatItLacksOnProbation(t *testing.T) {
	service := ServiceOptions{Wait: time.Minute}
	strong := ServiceOptions{Wait: time.Minute, Consistency: ConsistencyConsistent}
	for name, c := range map[string]struct {
		options ServiceOptions
		plain   bool // no view answers
		act     func(b *bubble, backup discoverytest.Snapshot)
		want    string
	}{
		"a query of a server, then nothing": {service, true, func(b *bubble, backup discoverytest.Snapshot) { b.Restore(backup) }, "a b? x?"},
		"consistent": {strong, true, func(b *bubble, backup discoverytest.Snapshot) {
			b.Restore(backup)
			b.at(13 * sec)
			b.set("a c")
		}, "a b? c x?"},
		"a view, and another loop whose query a server answers": {service, false, func(b *bubble, backup discoverytest.Snapshot) {
			b.Restore(backup)
			b.at(13 * sec)
			b.set("a c")
		}, "a b? c x?"},
		"a view alone, and an instance that is registered as before": {service, false, func(b *bubble, backup discoverytest.Snapshot) {
			b.Restore(backup)
			b.set("a c")
		}, "a b? c x?"},
		"no restore": {service, true, func(b *bubble, _ discoverytest.Snapshot) { b.set("a c") }, "a c"},
	} {
		t.Run(name, func(t *testing.T) {
			watchInBubble(t, c.options, having("a"), func(t *testing.T, b *bubble) {
				if c.plain {
					b.DisableStreaming()
				}
				parallel.Run(t, func(ctx context.Context) {
					if strings.Contains(name, "alone") {
						return
					}
					_ = b.client.Follow(ctx, consul.FollowOptions{ // ends with ctx
						Query: consul.Query{Path: "catalog/services"}, Wait: time.Minute,
						Read: func(consul.Answer, []byte) error { return nil }, Ended: func(error) {},
					})
				})
				b.at(5 * sec)
				backup := b.Snapshot()
				again := b.entries("a b x")
				again[0].Service.Tags = []string{"again"}
				b.Set("star", again...)
				b.at(11 * sec)
				verify.Equal(t, formatSet(b.latest()), "a b x", "before")
				c.act(b, backup)
				b.at(20 * sec)
				verify.Equal(t, formatSet(b.latest()), c.want, "the pool")
			})
		})
	}
}
