package journal

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/test/balancertest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// told returns the kinds and texts of what is in a feed.
func told(f *events.Feed) (lines []string) {
	kept, _ := f.Read(events.Filter{}, events.ID{})
	for _, e := range kept {
		lines = append(lines, fmt.Sprintf("%s %s: %s", e.Level, e.Kind, e.Text))
	}
	return lines
}

func TestFeedTellsWhatHappensToPeers(t *testing.T) {
	feed := events.New()
	j := New(feed, zerolog.Nop())
	defer j.Close()
	pool := balancer.NewPool("star", balancertest.Complete(balancer.Options{Notify: j.Note, PanicThreshold: .6}))
	defer pool.Close()
	a := discovery.Instance{Service: "star", ID: "a", Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1}
	b := discovery.Instance{Service: "star", ID: "b", Node: "n", Address: "10.0.0.2", Port: 80, Weight: 1}
	last := 0
	expect := func(what string, want ...string) {
		t.Helper()
		lines := told(feed)
		got := lines[last:]
		verify.That(t, slices.Equal(got, want), "%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
		last = len(lines)
	}
	apply := func(set ...discovery.Instance) { pool.Apply(slices.Clone(set)) }
	eject := func(down bool, why string) {
		pool.SetReasons(balancer.ReasonEjected, balancer.Verdict{Peer: pool.Snapshot().All[1], Down: down, Why: why})
	}

	apply(a, b)
	expect("registration", "info peer.joined: a joined", "info peer.joined: b joined")
	e, _ := feed.Read(events.Filter{}, events.ID{})
	verify.That(t, e[0].Service == "star" && e[0].Peer == "a" && e[0].Address == "10.0.0.1:80" && e[0].Node == "n", "got %+v", e[0])
	a.Weight = 5
	apply(a, b)
	expect("weight", "info peer.weight: a changed: weight 1 → 5")
	a.Tags = []string{"v2"}
	apply(a, b)
	expect("tags", "info peer.changed: a changed: tags")
	a.Status, a.Detail = discovery.StatusWarning, "slow"
	apply(a, b)
	expect("a warning", "info peer.changed: a changed: passing → warning")
	a.Status, a.Detail = discovery.StatusCritical, "connection refused"
	apply(a, b)
	expect("a failed check of Consul",
		"warning peer.unhealthy: a is unhealthy, it was up: consul: critical: connection refused")
	a.Status, a.Detail = discovery.StatusPassing, ""
	apply(a, b)
	expect("recovery", "info peer.recovered: a is up, it was unhealthy")
	heal := func(by float64, why string) {
		pool.SetFactors(balancer.Adjustment{Peer: pool.Snapshot().All[1], By: by, Why: why})
	}
	heal(.5, "30 of 100 requests failed")
	expect("loss of weight", "warning peer.weight: b is warming, it was up: weight: 30 of 100 requests failed")
	heal(1, "")
	expect("weight again", "info peer.warm: b is up, it was warming")
	eject(true, "5 failures in a row")
	expect("ejection", "warning peer.ejected: b is ejected, it was up: ejected: 5 failures in a row",
		"warning service.panic: Panic, failing peers get requests too: 1 of 2 peers are healthy")
	eject(false, "")
	expect("return", "info peer.recovered: b is up, it was ejected", "info service.panic_over: The panic is over: 2 of 2 peers are healthy")
	balancertest.Drain(pool, "deploy", b.Key())
	expect("drain", "info peer.draining: b is draining, it was up: drain: deploy",
		"info peer.drained: b has drained: no request is in flight")
	balancertest.Drain(pool, "")
	expect("the end of the drain", "info peer.enabled: b is up, it was draining")
	lost := a
	lost.Probation = time.Unix(1000, 0)
	apply(lost, b)
	expect("probation", "warning peer.probation: a changed: lost by the registry, on probation")
	apply(a, b)
	expect("listed again", "info peer.listed: a changed: listed again")
	apply(a)
	expect("removal", "info peer.left: b left: the set of its source has it no more", "info peer.drained: b has drained: no request is in flight")
}

// Whoever reads that a peer was cut learns whether its drain took too long, or whether it must not
// go on.
func TestWhyAPeerIsCut(t *testing.T) {
	set := []discovery.Instance{{Service: "db", ID: "a", Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1}}
	for _, test := range []struct {
		demoted bool
		why     string
	}{
		{true, "it no longer leads, 1 in flight"},
		{false, "its drain took too long, 1 in flight after 10s"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log subprocess.Output
			feed := events.New()
			j := New(feed, zerolog.New(&log))
			options := balancer.Options{Notify: j.Note, OneLeader: true, CutRemoved: test.demoted, DrainTimeout: 10 * time.Second}
			pool := balancer.NewPool("db", balancertest.Complete(options))
			pool.Apply(set)
			session := verify.Result(pool.Pick(&balancer.Query{})).Must(t)
			pool.Apply(nil)
			time.Sleep(time.Minute)
			session.Done(balancer.Outcome{Class: balancer.OutcomeReset})
			pool.Close()
			j.Close()
			lines := told(feed)
			verify.Equal(t, lines[len(lines)-1], "warning peer.cut: a was cut: "+test.why, "what the feed tells at the end")
			verify.Contains(t, log.String(), `"detail":"`+test.why+`"`, "the log does not say why")
		})
	}
}
