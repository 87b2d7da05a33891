package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/release"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// sharers start replicas that share what their judges and operators decide.
type sharers struct {
	*canaries
	agent *consultest.Agent
	own   string // what the keys in Consul begin with
	token string // for Consul
}

func newSharers(t *testing.T) *sharers {
	t.Helper()
	s := &sharers{canaries: newCanaries(t)}
	s.agent, s.own = shared.Agent(t)
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
	return s.canaries.text(fmt.Sprintf("consul: { addresses: [%q], token: %q, shares: %s/canary }", consul, s.token, s.own), share, judge)
}

// replica starts one.
func (s *sharers) replica(consul, judge string) *canaryRun {
	s.t.Helper()
	return s.run(s.text(consul, "50%", judge))
}

// awaitJudges waits until a replica knows the number of judges.
func (c *canaryRun) awaitJudges(n int) {
	c.t.Helper()
	c.await(fmt.Sprintf("%d judges", n), func() bool {
		shared := c.split().Shared
		return shared.Judges == n && shared.Error == ""
	})
}

// awaitWritten waits until Consul has what a replica knows.
func (c *canaryRun) awaitWritten() {
	c.t.Helper()
	c.await("nothing is left to write", func() bool { s := c.split().Shared; return !s.Pending && s.Error == "" })
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
				return strings.Contains(a.log.String(), "no judge lock") && strings.Contains(a.log.String(), "session:write")
			})
		}
		a.order("star?share=0.2")
		a.awaitShare(0.2, release.ByOperator)
		a.awaitWritten()
		a.order("star/release")
		a.await("Consul has no share", func() bool { return !a.split().Shared.Pending })
	}
}

// What a judge or an operator decides at one replica is in use at all, also at later ones and after
// an upgrade, after which the new process judges in place of the old one.
func TestReplicasShareShares(t *testing.T) {
	t.Parallel()
	s := newSharers(t)
	a := s.replica(s.agent.URL(), "step: 10m")
	a.await("it leads", func() bool { return a.split().Shared.Leads })
	a.order("star?share=0.7&why=more")
	a.awaitWritten()
	a = s.in(a.upgrade(s.text(s.agent.URL(), "50%", "step: 10m"), nil))
	a.await("the new process leads", func() bool { return a.split().Shared.Leads && a.split().Shared.Error == "" })
	a.awaitShare(0.7, release.ByOperator)
	b := s.replica(s.agent.URL(), "step: 10m")
	a.awaitJudges(2)
	b.awaitJudges(2)
	b.awaitShare(0.7, release.ByOperator)
	given := b.split().Override
	verify.That(t, given.Why == "more" && given.Configured == 0.5, "at the other: %+v", given)
	b.order("star/resume")
	a.awaitShare(0.7, release.ByJudge)
	b.order("star/release")
	a.awaitShare(0.5, "")
	b.awaitShare(0.5, "")

	a.failUntilVerdict()
	a.awaitShare(0, release.ByJudge)
	b.awaitShare(0, release.ByJudge)
	why, verdict := b.split().Override.Why, a.split().Judge.Verdict
	verify.That(t, why == verdict && verdict != "", "at the other: %q, want %q", why, verdict)
	b.await("its history says so", func() bool {
		return strings.HasPrefix(b.history.Current().Reason, "judge of "+a.replica.name()+": services.star.split.canary: 50% -> 0%: ")
	})
	// The route table follows the API.
	a.await("20 requests in turn reach the old version", func() bool {
		return !slices.ContainsFunc(make([]int, 20), func(int) bool { return a.request() != "old" })
	})

	// A configuration that is refused changes nothing. Who changes it has the last word, for
	// all.
	a.write(s.text(s.agent.URL(), "40%", "step: 20m }\n    upstream: { tls: { ca: "+filepath.Join(t.TempDir(), "missing")+" }"))
	a.await("the configuration is refused", func() bool { return a.history.Reloads().Refused > 0 })
	verify.Equal(t, a.split().Share, 0, "after a refused reload the share")
	a.write(s.text(s.agent.URL(), "40%", "step: 10m"))
	a.awaitShare(0.4, "")
	b.awaitShare(0.5, "")
	a.await("Consul has no share", s.inConsul(false))
}

// Who sets a share while a reload waits for the first peers of a new service sets it in place of
// the share that the reload brings: it does not end with the reload.
func TestShareGivenDuringAReload(t *testing.T) {
	t.Parallel()
	address, asked, answer := gatedConsul(t, discoverytest.New())
	canaries := newCanaries(t)
	head := "consul: { addresses: [" + address + "] }"
	c := canaries.run(canaries.text(head, "50%", "act: report"))
	next := canaries.text(head, "40%", "act: report")
	for before, after := range map[string]string{"services:\n": "services:\n  moon: { consul: {} }\n", "routes: [": "routes: [{ host: moon, service: moon }, "} {
		next = strings.Replace(next, before, after, 1)
	}
	c.write(next)
	<-asked
	c.order("star?share=0.2")
	answer()
	c.awaitRevision(2)
	s := c.split()
	verify.Require(t, s.Override != nil && s.Override.Share == 0.2 && s.Configured == 0.4, "after the reload: %+v, %+v", s, s.Override)
	c.awaitShare(0.2, release.ByOperator)
}

// With a file, a given share survives a restart, until the configuration has another split.
func TestSharesSurviveARestart(t *testing.T) {
	t.Parallel()
	s := newCanaries(t)
	file := filepath.Join(t.TempDir(), "shares.json")
	text := func(share string) string {
		return strings.Replace(s.text("", share, "act: report"), "admin: {", fmt.Sprintf("admin: { shares: %q,", file), 1)
	}
	c := s.run(text("50%"))
	c.order("star?share=0.2&why=small")
	c = s.in(c.restart())
	got := c.split()
	verify.That(t, got.Share == 0.2 && got.Override != nil && got.Override.Why == "small" && !c.history.Current().OnlyShares, "after a restart: %+v, %+v", got, c.history.Current())
	c.replace(text("40%"))
	c = s.in(c.restart())
	c.awaitShare(0.4, "")
	c.await("the file has no share", func() bool {
		saved, err := os.ReadFile(file)
		return err == nil && !strings.Contains(string(saved), "canary")
	})
}
