package healthcheck

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/discovery"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// Outcomes.
var (
	fine     = balancer.Outcome{Class: balancer.OutcomeOK, Status: 200, Latency: time.Millisecond}
	refused  = balancer.Outcome{Class: balancer.OutcomeConnectFailure}
	reset    = balancer.Outcome{Class: balancer.OutcomeReset}
	timeout  = balancer.Outcome{Class: balancer.OutcomeTimeout, Latency: time.Second}
	internal = balancer.Outcome{Class: balancer.OutcomeServerError, Status: 500}
	gateway  = balancer.Outcome{Class: balancer.OutcomeServerError, Status: 503}
)

// passiveSettings eject for 10 s after 5 consecutive failures.
func passiveSettings() Settings {
	return Settings{Passive: Passive{
		ConsecutiveFailures: 5,
		Interval:            10 * time.Second,
		Ejection:            10 * time.Second,
		MaxEjection:         time.Minute,
		MaxEjected:          0.5,
	}}
}

// fail sends n requests with the outcome o to a peer.
func (f *fixture) fail(peer, n int, o balancer.Outcome) {
	f.t.Helper()
	for range n {
		verify.That(f.t, f.request(peer, o), "peer %d gets no requests", peer)
	}
	synctest.Wait()
}

// hold begins n requests to peer 0.
func (f *fixture) hold(n int) (held []balancer.Token) {
	for range n {
		token, _ := f.pick(0)
		held = append(held, token)
	}
	return held
}

func TestConsecutiveFailuresEject(t *testing.T) {
	only := func(change func(*Passive)) Settings {
		s := passiveSettings()
		s.Passive.ConsecutiveFailures = 0
		change(&s.Passive)
		return s
	}
	failures := only(func(p *Passive) { p.ConsecutiveFailures = 5 })
	connect := only(func(p *Passive) { p.ConsecutiveConnectFailures = 3 })
	errors := only(func(p *Passive) { p.Consecutive5xx = 4 })
	harmless := []balancer.Outcome{
		{Class: balancer.OutcomeClientGone}, {Class: balancer.OutcomeLocal}, {Class: balancer.OutcomeStale},
	}
	for _, test := range []struct {
		name     string
		settings Settings
		outcomes []balancer.Outcome
		why      string // "": it is not ejected
		cause    Cause
	}{
		{"connect failures", failures, []balancer.Outcome{refused, refused, refused, refused, refused},
			"ejected: 5 failures in a row, the last: connect failure; for 10s until 2000-01-01T00:00:10Z", CauseFailures},
		{"all kinds", failures, []balancer.Outcome{refused, reset, timeout, gateway, gateway},
			"ejected: 5 failures in a row, the last: status 503; for 10s until 2000-01-01T00:00:10Z", CauseFailures},
		{"too few", failures, []balancer.Outcome{refused, refused, refused, refused}, "", 0},
		{"a success between", failures, []balancer.Outcome{reset, reset, reset, fine, reset, reset, reset, reset}, "", 0},
		{"an answer between", failures, []balancer.Outcome{reset, reset, reset, internal, reset, reset, reset, reset}, "", 0},
		{"errors of the application", failures, slices.Repeat([]balancer.Outcome{internal}, 20), "", 0},
		{"what does not count", failures, slices.Repeat(append(harmless, balancer.Outcome{Class: balancer.OutcomeOK, Status: 404}), 20), "", 0},
		{"what does not count between", failures, slices.Concat([]balancer.Outcome{reset, reset}, harmless, []balancer.Outcome{reset, reset, reset}),
			"ejected: 5 failures in a row, the last: reset; for 10s until 2000-01-01T00:00:10Z", CauseFailures},
		{"connect failures only", connect, []balancer.Outcome{refused, refused, refused},
			"ejected: 3 failures in a row, the last: connect failure; for 10s until 2000-01-01T00:00:10Z", CauseConnectFailures},
		{"not connect failures", connect, []balancer.Outcome{reset, reset, refused, refused, timeout, gateway}, "", 0},
		{"5xx", errors, []balancer.Outcome{internal, gateway, reset, internal},
			"ejected: 4 failures in a row, the last: status 500; for 10s until 2000-01-01T00:00:10Z", Cause5xx},
		{"nothing", Settings{}, slices.Repeat([]balancer.Outcome{refused}, 20), "", 0},
		{"no peer may be ejected", only(func(p *Passive) { p.ConsecutiveFailures, p.MaxEjected = 1, 0 }),
			slices.Repeat([]balancer.Outcome{refused}, 20), "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, test.settings, 3, func(t *testing.T, f *fixture) {
				for _, o := range test.outcomes {
					f.request(0, o)
				}
				synctest.Wait()
				p := f.peer(0)
				ejected := p.State() == balancer.StateEjected
				verify.Require(t, ejected == (test.why != ""),
					"state %v, reasons %q", p.State(), p.Reasons())
				verify.Equal(t, strings.Join(p.Reasons(), ""), test.why, "reason")
				var want Stats
				if ejected {
					want.Ejections[test.cause] = 1
				}
				verify.Equal(t, f.checker.Stats(), want, "stats")
			})
		})
	}
}

// A checker goes on with the ejections that last in another process: for the rest of their time, as
// far as there is room, and the next one is longer.
func TestInheritedEjections(t *testing.T) {
	bubble(t, passiveSettings(), 4, func(t *testing.T, f *fixture) {
		f.fail(0, 5, refused)
		f.fail(1, 5, refused)
		pass(10 * time.Second)
		f.fail(0, 1, refused)
		pass(5 * time.Second)
		ejections := append(f.checker.Ejections(), Ejection{Key: instance(9).Key(), Times: 1, Until: time.Now().Add(time.Hour)})
		verify.Equal(t, len(ejections), 2, "ejections")
		restore := func(n int) *fixture {
			next := newFixture(t, passiveSettings(), Options{})
			next.checker.Restore(ejections)
			next.Apply(instances(n))
			ready := false
			next.checker.AfterFirstChecks(func() { ready = true; verify.Equal(t, next.eligible(), 3, "peers get requests at the begin") })
			synctest.Wait()
			verify.That(t, ready, "not ready")
			return next
		}
		next := restore(4)
		defer next.close()
		want := "ejected: 5 failures in a row, the last: connect failure; for 15s until 2000-01-01T00:00:30Z, 2nd time"
		verify.Equal(t, strings.Join(next.peer(0).Reasons(), ""), want, "reason")
		verify.Equal(t, next.checker.Stats(), Stats{}, "stats")
		pass(15*time.Second - time.Millisecond)
		verify.Equal(t, next.eligible(), 3, "peers before the end")
		pass(time.Millisecond)
		verify.Equal(t, next.eligible(), 4, "peers after the end")
		next.fail(0, 1, refused)
		verify.That(t, strings.HasSuffix(next.peer(0).Reasons()[0], ", 3rd time"), "reasons %q", next.peer(0).Reasons())
		late := restore(3)
		defer late.close()
	})
}

// The end of an ejection that comes late, as a busy machine lets it wait for its turn, does not end
// the next one of the peer.
func TestALateEndOfAnEjection(t *testing.T) {
	bubble(t, passiveSettings(), 3, func(t *testing.T, f *fixture) {
		f.fail(0, 5, refused)
		again := func() {
			f.checker.mu.Lock()
			defer f.checker.mu.Unlock()
			time.Sleep(10 * time.Second) // the end waits for the mutex
			r := f.checker.records[f.peer(0)]
			f.checker.readmitLocked(r)
			f.checker.beginLocked(r, 20*time.Second, "again")
		}
		again()
		pass(20*time.Second - time.Millisecond)
		verify.Equal(t, f.peer(0).State(), balancer.StateEjected, "state before the end of the second ejection")
		pass(time.Millisecond)
		verify.Equal(t, f.eligible(), 3, "peers after the end")
	})
}

// Whatever else keeps a peer from requests at the begin of a process, such as its first check, ends
// no ejection.
func TestInheritedEjectionsOfPeersThatGetNoRequestsYet(t *testing.T) {
	for name, must := range map[string]func(*Active){
		"every peer must pass first": func(a *Active) { a.MustPassFirst = true },
		"checks decide":              func(a *Active) { a.OverridesRegistry = true },
		"a peer is critical":         nil,
	} {
		t.Run(name, func(t *testing.T) {
			settings, probe, set := passiveSettings(), newScript(), instances(3)
			if must == nil {
				set[0].Status, set[0].Weight = discovery.StatusCritical, 0
			} else {
				probe.takes = 100 * time.Millisecond
				settings.Active = activeSettings(probe).Active
				must(settings.Active)
			}
			bubble(t, settings, 0, func(t *testing.T, f *fixture) {
				f.checker.Restore([]Ejection{{Key: set[0].Key(), Times: 2, Until: time.Now().Add(10 * time.Second), Why: "5 failures in a row"}})
				f.Apply(set)
				ready := false
				f.checker.AfterFirstChecks(func() { ready = true; verify.Equal(t, f.eligible(), 2, "peers get requests at the begin") })
				pass(time.Second)
				verify.That(t, ready, "not ready")
				f.Apply(instances(3))
				synctest.Wait()
				verify.Equal(t, f.peer(0).State(), balancer.StateEjected, "state")
				pass(10 * time.Second)
				verify.Equal(t, f.eligible(), 3, "peers after the end")
			})
		})
	}
}

// Each ejection is longer, up to a limit. Without ejections the time decreases.
func TestEjectionTimeGrowsAndDecays(t *testing.T) {
	bubble(t, passiveSettings(), 3, func(t *testing.T, f *fixture) {
		lasts := func(want time.Duration, why string) {
			t.Helper()
			verify.That(t, strings.HasSuffix(f.peer(0).Reasons()[0], why),
				"reason %q, want one that ends with %q", f.peer(0).Reasons(), why)
			pass(want - time.Millisecond)
			verify.Equal(t, f.eligible(), 2, "the peer is back before %v", want)
			pass(time.Millisecond)
			verify.Equal(t, f.eligible(), 3, "the peer is not back after %v", want)
		}
		f.fail(0, 5, refused)
		lasts(10*time.Second, "Z")
		// During the trial, one failure ejects.
		f.fail(0, 1, refused)
		lasts(20*time.Second, ", 2nd time")
		f.fail(0, 1, refused)
		lasts(30*time.Second, ", 3rd time")
		for times := 4; times < 8; times++ {
			f.fail(0, 1, refused)
			pass(min(time.Duration(times)*10*time.Second, time.Minute))
		}
		f.fail(0, 1, refused)
		lasts(time.Minute, ", 8th time")
		// A success ends the trial.
		f.fail(0, 1, fine)
		f.fail(0, 4, refused)
		verify.Equal(t, f.eligible(), 3, "the peer is still on trial after a success")
		// 60 s without an ejection reduce the count of 8 by 6.
		f.fail(0, 1, fine)
		time.Sleep(time.Minute)
		f.fail(0, 5, refused)
		lasts(30*time.Second, ", 3rd time")
		f.fail(0, 1, fine)
		time.Sleep(time.Hour)
		f.fail(0, 5, refused)
		lasts(10*time.Second, "Z")
	})
}

// The outcomes of requests that began before an ejection do not count after it.
func TestEarlierRequestsDoNotCount(t *testing.T) {
	bubble(t, passiveSettings(), 3, func(t *testing.T, f *fixture) {
		held := f.hold(8)
		f.fail(0, 5, timeout)
		pass(20 * time.Second)
		for _, token := range held {
			token.Done(timeout)
		}
		synctest.Wait()
		verify.Equal(t, f.eligible(), 3, "the peer was ejected by requests that began before its ejection")
	})
}

func TestMaxEjected(t *testing.T) {
	for _, test := range []struct {
		peers, want int
		share       float64
	}{
		{1, 0, 1}, {2, 1, 0.5}, {2, 1, 1}, {3, 1, 0.5}, {4, 2, 0.5}, {10, 5, 0.5}, {10, 1, 0.1}, {10, 1, 0.01}, {10, 9, 1}, {10, 2, 0.29},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			s := passiveSettings()
			s.Passive.MaxEjected, s.Passive.Ejection = units.Ratio(test.share), time.Hour
			bubble(t, s, test.peers, func(t *testing.T, f *fixture) {
				for n := range test.peers {
					f.fail(n, 5, refused)
					time.Sleep(time.Second) // longer than a refused ejection counts
				}
				verify.Equal(t, test.peers-f.eligible(), test.want, "ejected")
				verify.Equal(t, f.checker.Stats().Refused, uint64(test.peers-test.want),
					"refused ejections")
			})
		})
	}
}

// A refused ejection counts for a second of the monotonic clock: the other one may be set back by
// hours.
func TestARefusedEjectionAndTheClock(t *testing.T) {
	bubble(t, passiveSettings(), 1, func(t *testing.T, f *fixture) {
		f.fail(0, 5, refused)
		verify.Equal(t, f.checker.Stats().Refused, 1, "refused ejections")
		verify.Equal(t, f.checker.fullUntil.Load(), balancer.Now()+int64(fullFor), "its end")
	})
}

// The last requests of a drained peer do not eject it.
func TestAPeerWithoutNewRequestsIsNotEjected(t *testing.T) {
	bubble(t, passiveSettings(), 4, func(t *testing.T, f *fixture) {
		held := f.hold(5)
		balancertest.Drain(f.Pool, "", instance(0).Key())
		for _, token := range held {
			token.Done(refused)
		}
		synctest.Wait()
		verify.That(t, !f.peer(0).Has(balancer.ReasonEjected), "reasons %q", f.peer(0).Reasons())
	})
}

// Without another eligible peer, an ejected one is used.
func TestEjectedPeersReturnIfNoOtherIsLeft(t *testing.T) {
	bubble(t, passiveSettings(), 2, func(t *testing.T, f *fixture) {
		f.fail(0, 5, refused)
		balancertest.Drain(f.Pool, "", instance(1).Key())
		synctest.Wait()
		verify.That(t, f.eligible() == 1, "%d eligible, want the one that was ejected", f.eligible())
		f.fail(0, 20, refused)
		verify.Equal(t, f.eligible(), 1, "the last peer was ejected")
	})
}

func TestAnEjectionEndsWhileThePeerIsAbsent(t *testing.T) {
	bubble(t, passiveSettings(), 3, func(t *testing.T, f *fixture) {
		token, _ := f.pick(0)
		f.fail(0, 5, refused)
		f.Apply(instances(3)[1:]) // it is removed, and drains
		pass(20 * time.Second)
		f.Apply(instances(3)) // it returns
		verify.That(t, f.peer(0) == token.Peer && f.eligible() == 3,
			"reasons %q", f.peer(0).Reasons())
		token.Done(fine)
		// An ejection does not outlive the peer.
		f.fail(1, 5, refused)
		f.Apply(slices.Delete(instances(3), 1, 2))
		synctest.Wait()
		f.Apply(instances(3))
		verify.That(t, f.eligible() == 3, "reasons %q", f.peer(1).Reasons())
		synctest.Wait()
		f.checker.mu.Lock()
		defer f.checker.mu.Unlock()
		verify.Equal(t, len(f.checker.records), 1, "records, with that of peer 0")
	})
}

func TestReconfiguringPassive(t *testing.T) {
	bubble(t, passiveSettings(), 3, func(t *testing.T, f *fixture) {
		f.fail(0, 5, refused)
		s := passiveSettings()
		s.Passive.ConsecutiveFailures = 2
		f.reconfigure(s)
		synctest.Wait()
		verify.Equal(t, f.eligible(), 2, "a new setting ended an ejection")
		pass(10 * time.Second)
		f.fail(1, 2, refused)
		verify.Equal(t, f.eligible(), 2, "the new setting has no effect")
		f.reconfigure(Settings{})
		synctest.Wait()
		verify.Equal(t, f.eligible(), 3, "a peer is ejected without a rule")
		f.fail(1, 20, refused)
		verify.Equal(t, f.eligible(), 3, "a peer was ejected without a rule")
	})
}

func TestEjectionLengths(t *testing.T) {
	f := func(base, limit time.Duration, times int, want time.Duration) {
		t.Helper()
		p := Passive{Ejection: base, MaxEjection: limit}
		verify.Equal(t, p.ejection(times), want, "%v, at most %v, number %d", base, limit, times)
	}
	f(10*time.Second, time.Minute, 1, 10*time.Second)
	f(10*time.Second, time.Minute, 5, 50*time.Second)
	f(10*time.Second, time.Minute, 6, time.Minute)
	f(10*time.Second, time.Minute, 1<<62, time.Minute)
	f(10*time.Second, time.Second, 1, 10*time.Second)
	f(40*time.Second, time.Minute, 2, time.Minute)
}
