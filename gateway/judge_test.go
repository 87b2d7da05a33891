package gateway

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/admin"
	"sluice/balancer"
	"sluice/observe/events"
	"sluice/release/judge"
	"sluice/test/discoverytest"
)

// canaryRun is a gateway with a service of two instances with the tag v1 and one with v2, whose group
// canary has a split with a judge.
type canaryRun struct {
	*running
	text    func(share, judge string) string
	failing atomic.Bool // the answers of the canary have status 500
	clients int
}

func startCanary(t *testing.T, judge string) *canaryRun {
	t.Helper()
	c := newCanary(t, judge)
	c.run(Options{}, patience, func(g *Gateway) { g.waits.judge, g.waits.judgeWarmUp = time.Millisecond, 0 })
	return c
}

// newCanary returns one that does not run yet.
func newCanary(t *testing.T, judge string) *canaryRun {
	t.Helper()
	consul := discoverytest.Start(t)
	c := &canaryRun{}
	canary := serveOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		if c.failing.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		io.WriteString(w, "canary")
	})
	versions(t, consul, []string{origin(t, "old"), origin(t, "old"), canary}, "v1 v1 v2")
	c.text = func(share, judge string) string {
		return preamble + fmt.Sprintf(`
consul: { addresses: [%q] }
services:
  star:
    consul: {}
    health: { passive: { consecutive_failures: 0, consecutive_5xx: 0 } }
    groups: { canary: { tags: [v2] } }
    split: { canary: %s, key: header X-User }
    judge: { %s }
routes: [{ service: star }]
`, consul.URL(), share, judge)
	}
	c.running = newRunning(t, c.text("50%", judge))
	return c
}

// request is a request of a new client. It returns which version has answered.
func (c *canaryRun) request() string {
	c.t.Helper()
	c.clients++
	r, err := http.NewRequest(http.MethodGet, "http://"+c.Address("web").String(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("X-User", fmt.Sprint(c.clients))
	_, body := c.do(r)
	return body
}

func (c *canaryRun) split() admin.SplitState {
	c.t.Helper()
	var states []admin.SplitState
	c.api("/api/shares", &states)
	if len(states) != 1 {
		c.t.Fatalf("%d splits", len(states))
	}
	return states[0]
}

// order is an order of an operator about the split.
func (c *canaryRun) order(path string, want int) {
	c.t.Helper()
	r, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://%s/api/shares/%s", c.Address("admin"), path), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if status, body := c.do(r); status != want {
		c.t.Errorf("%s: %d %s, want %d", path, status, body, want)
	}
}

// judging reports whether there is a release.
func judging(s admin.SplitState) bool { return s.Judge != nil && !s.Judge.Since.IsZero() }

// failUntilVerdict sends requests until the judge has a verdict.
func (c *canaryRun) failUntilVerdict() {
	c.t.Helper()
	c.failing.Store(true)
	c.await("the judge has seen the release", func() bool { return judging(c.split()) })
	c.await("the judge has a verdict", func() bool {
		c.request()
		s := c.split()
		return s.Judge != nil && s.Judge.Verdict != ""
	})
}

// A canary that fails loses its share, and gets it back from nobody but the configuration or an
// operator.
func TestJudgeRollsBack(t *testing.T) {
	t.Parallel()
	c := startCanary(t, "step: 10m")
	c.failUntilVerdict()
	c.await("the canary has no share", func() bool { return c.split().Share == 0 })
	s := c.split()
	if s.Configured != 0.5 || s.Given == nil || s.Given.By != "judge" || !strings.Contains(s.Given.Why, "of the baseline") || s.Given.Why != s.Judge.Verdict {
		t.Errorf("after the rollback: %+v, %+v, %+v", s, s.Given, s.Judge)
	}
	c.await("the feed has the verdict and the share", func() bool { // it follows the API
		var told []string
		feed, _ := c.events.Read(events.Filter{Kinds: []string{"split"}}, events.ID{})
		for _, e := range feed {
			told = append(told, string(e.Kind)+" "+string(e.Level))
			if !strings.Contains(e.Text, s.Judge.Verdict) {
				t.Errorf("event %+v, want the verdict %q", e, s.Judge.Verdict)
			}
		}
		return slices.Equal(told, []string{"split.verdict warning", "split.given info"})
	})
	c.await("20 requests in turn reach the old version", func() bool { // the route table follows the API
		for range 20 {
			if c.request() != "old" {
				return false
			}
		}
		return true
	})

	// A configuration that is refused, and one that does not change the share, change nothing.
	c.write(c.text("40%", "step: 20m }\n    upstream: { tls: { ca: "+filepath.Join(t.TempDir(), "missing")+" }"))
	c.await("the configuration is refused", func() bool { return c.history.Reloads().Refused == 1 })
	if s := c.split(); s.Share != 0 {
		t.Errorf("after a refused reload the share is %v", s.Share)
	}
	c.await("the history says why", func() bool {
		r := c.history.Current()
		return r.Given && r.Number == 2 && r.Reason == "judge: services.star.split.canary: 50% -> 0%: "+s.Judge.Verdict && len(r.Diff) == 1
	})
	c.write(c.text("50%", "step: 20m"))
	c.awaitRevision(3)
	if s := c.split(); s.Share != 0 {
		t.Errorf("after a reload the share is %v", s.Share)
	}
	c.failing.Store(false)
	c.write(c.text("40%", "step: 20m"))
	c.await("the share is that of the configuration", func() bool { s := c.split(); return s.Share == 0.4 && s.Given == nil })
}

// An operator's share holds until it is released, whatever the judge finds. Then the judge acts on that.
func TestOperatorOverrulesTheJudge(t *testing.T) {
	t.Parallel()
	c := startCanary(t, "step: 10m")
	c.order("star?share=0.6&why=known+failures", http.StatusOK)
	c.await("the share is in use", func() bool { return c.split().Share == 0.6 })
	c.failUntilVerdict()
	if s := c.split(); s.Share != 0.6 || s.Given.By != "operator" || s.Given.Why != "known failures" {
		t.Errorf("%+v, %+v", s, s.Given)
	}
	c.failing.Store(false)
	c.order("star/release", http.StatusOK)
	c.await("the judge acts on what it has found", func() bool { s := c.split(); return s.Share == 0 && s.Given.By == "judge" })
	c.order("star/release", http.StatusOK)
	if s := c.split(); s.Configured != 0.5 {
		t.Errorf("after a release %v is configured", s.Configured) // although 0 may be in use still
	}
	c.await("the share is that of the configuration", func() bool { s := c.split(); return s.Share == 0.5 && s.Given == nil })

	c.order("star/release", http.StatusNotFound)
	c.order("star/resume", http.StatusConflict)
	c.order("star?share=0.1&group=moon", http.StatusNotFound)
	c.order("moon?share=0.1", http.StatusNotFound)
	for _, bad := range []string{"star", "star?share=", "star?share=1.1", "star?share=-1", "star?share=NaN", "star?share=5%25", "star?share=0.1&why=%0a"} {
		c.order(bad, http.StatusBadRequest)
	}
}

// A paused judge changes nothing until it is resumed. Then it acts on what it has found.
func TestOperatorPausesTheJudge(t *testing.T) {
	t.Parallel()
	c := startCanary(t, "step: 10m")
	c.order("star/pause?why=we+look+at+it", http.StatusOK)
	c.failUntilVerdict()
	if s := c.split(); s.Share != 0.5 || !s.Judge.Paused || s.Given.Why != "we look at it" {
		t.Errorf("%+v, %+v, %+v", s, s.Judge, s.Given)
	}
	c.order("star/resume", http.StatusOK)
	c.await("the canary has no share", func() bool { return c.split().Share == 0 })
	if s := c.split(); s.Judge.Paused || s.Given.By != "judge" {
		t.Errorf("%+v, %+v", s.Judge, s.Given)
	}
	c.order("star/pause", http.StatusOK)
	if s := c.split(); s.Given.Share != 0 || !s.Judge.Paused {
		t.Errorf("after a rollback: %+v", s.Given)
	}
}

// latencies passes attempts of n new clients, which take so long, to the judge.
func (c *canaryRun) latencies(n int, canary bool, latency time.Duration) {
	trial := c.trialsInUse()[0]
	a := &trial.rest
	if canary {
		a = &trial.canary
	}
	for range n {
		c.clients++
		trial.done(a, uint64(c.clients), balancer.Outcome{Class: balancer.OutcomeOK, Status: http.StatusOK, Latency: latency})
	}
}

// A canary that is slower than allowed loses its share.
func TestJudgeFindsSlowCanaries(t *testing.T) {
	t.Parallel()
	c := startCanary(t, "slower: 30%")
	c.await("the judge has seen the release", func() bool { return judging(c.split()) })
	trial := c.trialsInUse()[0]
	c.latencies(200, false, 100*time.Millisecond)
	c.await("the judge knows what is slow", func() bool { return trial.rest.limit.Load() == int64(100*time.Millisecond) })
	c.latencies(200, true, 120*time.Millisecond)
	if s := c.split(); s.Judge.SlowEvidence != 1 || s.Judge.P90MS != 120 || s.Judge.RestP90MS != 100 {
		t.Errorf("as slow as allowed: %+v", s.Judge)
	}
	c.latencies(200, true, 140*time.Millisecond)
	c.await("the canary has no share", func() bool { return c.split().Share == 0 })
	if why := c.split().Given.Why; !strings.Contains(why, "90 % of the requests take up to 140ms, 100ms with the baseline") {
		t.Errorf("why: %s", why)
	}
}

// Nothing is slow while an instance of the canary is new, or if latency is not judged.
func TestLatencyThatDoesNotCount(t *testing.T) {
	t.Parallel()
	c := startCanary(t, "slower: 0")
	c.await("the judge has seen the release", func() bool { return judging(c.split()) })
	cold := &trial{settings: judge.Settings{Slower: 0.5}, warmUp: time.Minute, warmFrom: time.Unix(1000, 0)}
	for at, want := range map[int64]int64{1059: math.MaxInt64, 1060: 100} {
		o := judge.Observation{Time: time.Unix(at, 0), CanaryP90: 300, BaselineP90: 100}
		if cold.updateLimits(&o); cold.rest.limit.Load() != want || (o.CanaryP90 == 0) != (want != 100) {
			t.Errorf("after %d s: limit %d, %v", at-1000, cold.rest.limit.Load(), o.CanaryP90)
		}
	}
	c.latencies(200, false, 100*time.Millisecond)
	c.latencies(200, true, time.Second)
	c.look(c.trialsInUse()[0], time.Now())
	c.latencies(200, true, time.Second)
	c.look(c.trialsInUse()[0], time.Now())
	if s := c.split(); s.Judge.SlowEvidence != 1 || s.Given != nil {
		t.Errorf("%+v", s.Judge)
	}
}

// A judge that only reports changes nothing.
func TestJudgeReports(t *testing.T) {
	t.Parallel()
	c := startCanary(t, "act: report")
	c.failUntilVerdict()
	c.await("the log has the verdict", func() bool { return strings.Contains(c.log.String(), `"verdict":"rollback"`) })
	if s := c.split(); s.Share != 0.5 || s.Given != nil {
		t.Errorf("%+v", s)
	}
}

// A release that does not fail goes through the steps. An upgrade keeps the share.
func TestJudgeAdvances(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	c := startCanary(t, "steps: [50%, 75%, 100%], step: 10m")
	c.await("the judge has seen the release", func() bool { return judging(c.split()) })
	for range 1200 { // more than 500 of which reach the canary
		c.request()
	}
	trial := c.trialsInUse()[0]
	c.look(trial, begin.Add(10*time.Minute))
	if s := c.split(); s.Given != nil {
		t.Errorf("before the step is over: %+v", s.Given)
	}
	c.look(trial, time.Now().Add(11*time.Minute))
	c.await("the next share is in use", func() bool { return c.split().Share == 0.75 })

	next := c.succeed(c.text("50%", "steps: [50%, 75%, 100%], step: 10m"), nil, patience)
	if err := <-next.outcome; err != nil {
		t.Fatal(err)
	}
	after := &canaryRun{running: next.running}
	if s := after.split(); s.Share != 0.75 || s.Given == nil || s.Given.By != "judge" {
		t.Errorf("after an upgrade: %+v", s)
	}
}

// A release that the judge has rolled back is over, also if nobody has looked while the canary had no
// share.
func TestARolledBackReleaseIsOver(t *testing.T) {
	t.Parallel()
	c := newCanary(t, "step: 10m")
	c.run(Options{}, patience, func(g *Gateway) { g.waits.judge = time.Hour })
	c.updateTrials()
	trial := c.trialsInUse()[0]
	c.look(trial, time.Now())
	c.failing.Store(true)
	for range 60 {
		c.request()
	}
	c.look(trial, time.Now())
	c.await("the canary has no share", func() bool { return c.split().Share == 0 })
	c.order("star/release", http.StatusOK)
	c.await("the share is that of the configuration", func() bool { return c.split().Share == 0.5 })
	c.look(trial, time.Now())
	if s := c.split(); s.Given != nil || s.Judge.Evidence != 1 {
		t.Errorf("%+v, %+v", s.Given, s.Judge)
	}
}
