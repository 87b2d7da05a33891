package gateway

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/release"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// sharers start replicas that share what their judges and operators decide.
type sharers struct {
	t      *testing.T
	agent  *consultest.Agent
	own    string // what the keys in Consul begin with
	token  string // for Consul
	peers  string // the file with the instances
	canary *canaryRun
}

func newSharers(t *testing.T) *sharers {
	t.Helper()
	s := &sharers{t: t, peers: filepath.Join(t.TempDir(), "peers"), canary: &canaryRun{}}
	s.agent, s.own = shared.Agent(t)
	var instances []string
	addresses := []string{origin(t, "old"), origin(t, "old"), serveOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		if s.canary.failing.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		io.WriteString(w, "canary")
	})}
	for i, address := range addresses {
		instances = append(instances, fmt.Sprintf(`{"host":"127.0.0.1","port":%d,"tags":["v%d"]}`, port(t, address), i/2+1))
	}
	verify.NoError(t, os.WriteFile(s.peers, []byte("["+strings.Join(instances, ",")+"]"), 0o600))
	return s
}

// inConsul returns a condition: whether Consul has the share is known, and it is there or not.
func (s *sharers) inConsul(there bool) func() bool {
	return func() bool {
		pair, _, err := s.agent.Client().KV().Get(s.own+"/canary/shares/star", nil)
		return err == nil && (pair != nil) == there
	}
}

// text is a configuration.
func (s *sharers) text(consul, share, judge string) string {
	return preamble + fmt.Sprintf(`
consul: { addresses: [%q], token: %q, shares: %s/canary }
services:
  star:
    file: %s
    health: { passive: { consecutive_failures: 0, consecutive_5xx: 0 } }
    groups: { canary: { tags: [v2] } }
    split: { canary: %s, key: header X-User }
    judge: { %s }
routes: [{ service: star }]
`, consul, s.token, s.own, s.peers, share, judge)
}

// replica starts one.
func (s *sharers) replica(consul, judge string) *canaryRun {
	s.t.Helper()
	c := &canaryRun{running: newRunning(s.t, s.text(consul, "50%", judge))}
	c.run(Options{}, patience, func(g *Gateway) { g.judge.Interval = time.Millisecond })
	return c
}

// fail makes a replica's judge find that the canary fails.
func (s *sharers) fail(c *canaryRun) {
	s.t.Helper()
	s.canary.failing.Store(true)
	c.failUntilVerdict()
}

// awaitShare waits until a replica uses a share that was given by by.
func (c *canaryRun) awaitShare(share float64, by string) {
	c.t.Helper()
	c.await(fmt.Sprintf("share %v by %q", share, by), func() bool {
		s := c.split()
		return s.Share == share && (by == "" && s.Override == nil || s.Override != nil && s.Override.By == by)
	})
}

// awaitJudges waits until a replica knows the number of judges.
func (c *canaryRun) awaitJudges(n int) {
	c.t.Helper()
	c.await(fmt.Sprintf("%d judges", n), func() bool {
		shared := c.split().Shared
		return shared.Judges == n && shared.Error == ""
	})
}

// The permissions in the documentation are enough to share shares. Without those for sessions a
// replica moves no share on, and says so.
func TestDocumentedPolicyOfShares(t *testing.T) {
	t.Parallel()
	s := newSharers(t)
	var name string
	s.agent, name = sharedWithACLs.Agent(t)
	s.own = "edge" // as in the documentation
	rules := verify.Result(consultest.DocumentedPolicy("../docs/groups.md", "### Several replicas")).Must(t)
	for _, sessions := range []bool{true, false} {
		if !sessions {
			rules, _, _ = strings.Cut(rules, "session_prefix")
		}
		_, token, err := s.agent.NewToken(fmt.Sprint(name, "-", sessions), rules)
		verify.NoError(t, err)
		s.token = token.SecretID
		a := s.replica(s.agent.URL(), "step: 10m")
		if sessions {
			a.await("it leads", func() bool { return a.split().Shared.Leads })
		} else {
			a.await("the log says what is missing", func() bool {
				return strings.Contains(a.log.String(), "cannot register as a judge") && strings.Contains(a.log.String(), "session:write")
			})
		}
		a.order("star?share=0.2", http.StatusOK)
		a.await("Consul has the share", func() bool {
			s := a.split()
			return s.Share == 0.2 && !s.Shared.Pending && s.Shared.Error == ""
		})
		a.order("star/release", http.StatusOK)
		a.await("Consul has no share", func() bool { return !a.split().Shared.Pending })
	}
}

// What a judge or an operator decides at one replica is in use at all, also at later ones.
func TestReplicasShareShares(t *testing.T) {
	t.Parallel()
	s := newSharers(t)
	a, b := s.replica(s.agent.URL(), "step: 10m"), s.replica(s.agent.URL(), "step: 10m")
	a.awaitJudges(2)
	b.awaitJudges(2)
	a.await("one of them leads", func() bool { return a.split().Shared.Leads != b.split().Shared.Leads })

	a.order("star?share=0.6&why=more", http.StatusOK)
	b.awaitShare(0.6, release.ByOperator)
	given := b.split().Override
	verify.That(t, given.Why == "more" && given.Replica == a.replica.name() && given.Configured == 0.5, "at the other: %+v", given)
	b.order("star/resume", http.StatusOK)
	a.awaitShare(0.6, release.ByJudge)
	b.order("star/release", http.StatusOK)
	a.awaitShare(0.5, "")
	b.awaitShare(0.5, "")

	s.fail(a)
	a.awaitShare(0, release.ByJudge)
	b.awaitShare(0, release.ByJudge)
	why, verdict := b.split().Override.Why, a.split().Judge.Verdict
	verify.That(t, why == verdict && verdict != "", "at the other: %q, want %q", why, verdict)
	b.await("its history says so", func() bool {
		return strings.HasPrefix(b.history.Current().Reason, "judge of "+a.replica.name()+": services.star.split.canary: 50% -> 0%: ")
	})
	later := s.replica(s.agent.URL(), "step: 10m")
	later.awaitShare(0, release.ByJudge)

	// Who changes the configuration has the last word, for all.
	a.write(s.text(s.agent.URL(), "40%", "step: 10m"))
	a.awaitShare(0.4, "")
	b.awaitShare(0.5, "")
	a.await("Consul has no share", s.inConsul(false))
}

// A rollback takes effect without Consul, and reaches the others later. An operator who has overruled
// all judges meanwhile stays.
func TestRollbacksWithoutConsul(t *testing.T) {
	t.Parallel()
	for _, overruled := range []bool{false, true} {
		t.Run(fmt.Sprint(overruled), func(t *testing.T) {
			t.Parallel()
			s := newSharers(t)
			relay := consultest.StartRelay(t, s.agent.HTTPAddress())
			a, b := s.replica(relay.URL(), "step: 10m"), s.replica(s.agent.URL(), "step: 10m")
			a.awaitJudges(2)
			relay.Cut()
			s.fail(a)
			a.awaitShare(0, release.ByJudge)
			got := a.split()
			verify.That(t, got.Shared.Pending, "without Consul: %+v", got.Shared)
			got = b.split()
			verify.That(t, got.Override == nil, "the other has %+v", got.Override)
			if overruled {
				b.order("star?share=0.3", http.StatusOK)
				b.await("Consul has it", func() bool { return !b.split().Shared.Pending })
			}
			relay.Heal()
			share, by := 0.0, release.ByJudge
			if overruled {
				share, by = 0.3, release.ByOperator
			}
			a.awaitShare(share, by)
			b.awaitShare(share, by)
			a.await("nothing is left to do", func() bool { return !a.split().Shared.Pending })
		})
	}
}

// An upgrade keeps what is shared, and the new process judges in place of the old one.
func TestAnUpgradeKeepsSharedShares(t *testing.T) {
	t.Parallel()
	s := newSharers(t)
	a := s.replica(s.agent.URL(), "step: 10m")
	a.await("the old process leads", func() bool { return a.split().Shared.Leads })
	a.order("star?share=0.2&why=small", http.StatusOK)
	a.await("Consul has it", func() bool { return a.split().Share == 0.2 && !a.split().Shared.Pending })
	next := a.upgrade(s.text(s.agent.URL(), "50%", "step: 10m"), nil)
	b := &canaryRun{running: next}
	got := b.split()
	verify.That(t, got.Share == 0.2 && got.Override != nil && got.Override.Why == "small", "after the upgrade: %+v", got)
	b.await("the new process leads", func() bool { return b.split().Shared.Leads && b.split().Shared.Error == "" })
	b.order("star/release", http.StatusOK)
	b.awaitShare(0.5, "")
}

// An upgrade while Consul is away keeps what it does not have yet.
func TestAnUpgradeKeepsPendingShares(t *testing.T) {
	t.Parallel()
	for order, want := range map[string]float64{"star?share=0.3": 0.3, "star/release": 0.5} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			s := newSharers(t)
			relay := consultest.StartRelay(t, s.agent.HTTPAddress())
			a, b := s.replica(relay.URL(), "act: report"), s.replica(s.agent.URL(), "act: report")
			a.order("star?share=0.2", http.StatusOK)
			b.awaitShare(0.2, release.ByOperator)
			a.await("Consul has it", func() bool { return !a.split().Shared.Pending })
			relay.Cut()
			a.order(order, http.StatusOK)
			next := a.upgrade(s.text(relay.URL(), "50%", "act: report"), nil)
			relay.Heal()
			for _, c := range []*canaryRun{{running: next}, b} {
				c.await(fmt.Sprint("the share is ", want), func() bool { return c.split().Share == want && !c.split().Shared.Pending })
			}
		})
	}
}

// A share that was given before this replica got its configuration, for another split, has ended: it does
// not count for the next release with the old split.
func TestShareOfAnEarlierRelease(t *testing.T) {
	t.Parallel()
	s := newSharers(t)
	url := s.agent.URL()
	a := s.replica(url, "act: report")
	a.order("star?share=1&why=release+1+is+good", http.StatusOK)
	a.await("Consul has it", func() bool { return a.split().Share == 1 && !a.split().Shared.Pending })
	a.end()
	b := &canaryRun{running: start(t, s.text(url, "40%", "act: report"))}
	b.awaitShare(0.4, "")
	b.await("the key is gone", s.inConsul(false))
	b.replace(s.text(url, "50%", "act: report"))
	b.awaitShare(0.5, "")
}

// What happens to shares in Consul while a process replaces another one is known to the new one: another
// replica ends a share, or Consul loses it.
func TestAnUpgradeKnowsTheSharesInConsul(t *testing.T) {
	t.Parallel()
	for _, wiped := range []bool{false, true} {
		t.Run(fmt.Sprint("wiped ", wiped), func(t *testing.T) {
			t.Parallel()
			s := newSharers(t)
			relay := consultest.StartRelay(t, s.agent.HTTPAddress())
			a := s.replica(relay.URL(), "act: report")
			a.order("star?share=0.2", http.StatusOK)
			a.await("Consul has it", func() bool { return !a.split().Shared.Pending })
			a.await("it is seen", func() bool { return !a.shares.Entry("shares/star").Changing })
			relay.Cut()
			next := a.upgrade(s.text(relay.URL(), "50%", "act: report"), nil)
			a = &canaryRun{running: next}
			if wiped {
				s.agent = consultest.Start(t, consultest.Options{})
				relay.Redirect(s.agent.HTTPAddress())
				a.await("the share is written again", s.inConsul(true))
				a.awaitShare(0.2, release.ByOperator)
				return
			}
			b := s.replica(s.agent.URL(), "act: report")
			b.awaitShare(0.2, release.ByOperator)
			b.order("star/release", http.StatusOK)
			b.await("Consul has no share", func() bool { return !b.split().Shared.Pending })
			relay.Heal()
			a.awaitShare(0.5, "")
		})
	}
}

// With a file, a given share survives a restart, until it is released or the configuration has another
// split.
func TestSharesSurviveARestart(t *testing.T) {
	t.Parallel()
	c := newCanary(t, "act: report")
	file := filepath.Join(t.TempDir(), "shares.json")
	plain := c.text
	text := func(share string) string {
		return strings.Replace(plain(share, "act: report"), "admin: {", fmt.Sprintf("admin: { shares: %q,", file), 1)
	}
	c.write(text("50%"))
	c.run(Options{}, patience, func(*Gateway) {})
	c.order("star?share=0.2&why=small", http.StatusOK)
	c = &canaryRun{running: c.restart()}
	s := c.split()
	verify.That(t, s.Share == 0.2 && s.Override != nil && s.Override.Why == "small", "after a restart: %+v", s)
	r := c.history.Current()
	verify.That(t, !r.OnlyShares, "revision %+v", r)
	c.order("star/release", http.StatusOK)
	c = &canaryRun{running: c.restart()}
	s = c.split()
	verify.That(t, s.Share == 0.5 && s.Override == nil, "after the release: %+v", s)
	c.order("star?share=0.3", http.StatusOK)
	c.replace(text("40%"))
	c = &canaryRun{running: c.restart()}
	c.awaitShare(0.4, "")
	c.await("the file has no share", func() bool {
		saved, err := os.ReadFile(file)
		return err == nil && !strings.Contains(string(saved), "canary")
	})
}

// A new process that does not take over ends no share in Consul, although its configuration has another
// split, and writes no order into the files.
func TestAFailedTakeoverChangesNoOrder(t *testing.T) {
	t.Parallel()
	s := newSharers(t)
	file := filepath.Join(t.TempDir(), "orders.json")
	text := strings.Replace(s.text(s.agent.URL(), "50%", "act: report"), "admin: {", fmt.Sprintf("admin: { orders: %q,", file), 1)
	a := &canaryRun{running: start(t, text)}
	a.order("star?share=0.2", http.StatusOK)
	a.await("the peers are there", func() bool { return len(a.peers()) == 3 })
	for _, peer := range a.peers() {
		verify.Equal(t, a.command("/api/peers/star/"+peer.ID+"/drain?why=disk"), http.StatusOK, "drain")
	}
	a.await("Consul has the share", func() bool { return !a.shares.Entry("shares/star").Changing })
	before := verify.Result(os.ReadFile(file)).Must(t)
	other := strings.NewReplacer("canary: 50%", "canary: 40%", s.peers, s.peers+".missing").Replace(text)
	next := a.succeed(other, func(given io.ReadCloser) io.ReadCloser {
		state, _ := io.ReadAll(given)
		return io.NopCloser(strings.NewReader(strings.ReplaceAll(string(state), `"why":"disk"`, `"why":"else"`)))
	}, time.Second)
	next.fails()
	now, err := os.ReadFile(file)
	verify.That(t, err == nil && string(now) == string(before), "the file is %s, %v", now, err)
	a.await("the old process takes orders", func() bool { return a.command("/api/log/debug") == http.StatusOK })
	verify.That(t, s.inConsul(true)(), "Consul has no share")
	a.awaitShare(0.2, release.ByOperator)
}
