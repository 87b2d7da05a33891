//go:build linux

package main

import (
	"os"
	"strings"
	"testing"

	"sluice/bench/quality/scenario"
	"sluice/test/verify"
)

// ofOne is a report of one scenario with the p50, p99 and p99.9 of some proxies, and 100 ms as the
// best possible.
func ofOne(s *play, latencies map[string]figures) *report {
	r := &report{}
	for _, p := range proxies {
		if l, ok := latencies[p.name]; ok {
			r.Proxies = append(r.Proxies, p.name)
			r.Outcomes = append(r.Outcomes, outcome{Scenario: s.name, Proxy: p.name, Latency: l, Best: figures{100, 100, 100}, Requests: 1000, Shares: [2]float64{1, 1}, Less: -1, Again: -1})
		}
	}
	return r
}

func TestMarks(t *testing.T) {
	t.Parallel()
	var alike, differs, few *play
	for _, s := range plays(0, scenario.Short) {
		switch {
		case s.LowLoad:
			few = s
		case s.Differ:
			differs = s
		case s.Measured == 1:
			alike = s
		}
	}
	rivals := func(sluice figures) map[string]figures {
		return map[string]figures{"sluice": sluice, "nginx": {100, 300, 900}, "haproxy-leastconn": {120, 200, 500}, "traefik-p2c": {90, 100, 100}}
	}
	for _, c := range []struct {
		play    *play
		sluice  figures
		reached bool
		worst   string
	}{
		{differs, figures{100, 210, 400}, true, ""},
		{differs, figures{100, 212, 400}, false, ""},
		{differs, figures{100, 210, 402}, false, ""},
		{differs, figures{130, 150, 950}, false, "p50 p99.9"},
		{alike, figures{100, 210, 525}, true, ""},
		{alike, figures{100, 250, 524}, false, ""},
		{few, figures{100, 200, 500}, true, ""},
	} {
		marks := ofOne(c.play, rivals(c.sluice)).marks()
		verify.Require(t, len(marks) == 1, "%d marks", len(marks))
		m := marks[0]
		verify.That(t, m.reached == c.reached && strings.Join(m.worst, " ") == c.worst,
			"%s with %v: reached %t, the worst at %v", c.play.name, c.sluice, m.reached, m.worst)
	}
	starved := ofOne(few, rivals(figures{100, 200, 500}))
	starved.Outcomes[0].Shares[0] = .01
	verify.That(t, !starved.marks()[0].reached, "a mark is reached, though a peer gets nothing")
	verify.Equal(t, len(ofOne(differs, map[string]figures{"sluice": {1, 1, 1}}).marks()), 0, "marks without a rival")
}

func TestFailedRequestsAreTheSlowest(t *testing.T) {
	t.Parallel()
	verify.Equal(t, text(millis(patience)), "failed", "the text")
	r := ofOne(plays(0, scenario.Short)[0], map[string]figures{"sluice": {1, 2, millis(patience)}})
	verify.That(t, strings.Contains(r.details(), "failed"), "the table does not say so:\n%s", r.details())
}

// A proxy that does not start in a round, or is disturbed by the machine, has no figures of it, and
// the report says why. It also says that it ended early.
func TestWhatDidNotRunIsSaid(t *testing.T) {
	t.Parallel()
	s := plays(0, scenario.Short)[0]
	r := ofOne(s, map[string]figures{"sluice": {100, 200, 300}, "nginx": {100, 200, 300}})
	r.Outcomes = append(r.Outcomes, outcome{Round: 1, Scenario: s.name, Proxy: "nginx", Error: "ended: exit status 1"})
	r.Outcomes = append(r.Outcomes, outcome{Round: 1, Scenario: s.name, Proxy: "sluice", Requests: 1000, Late: 2000, Latency: figures{900, 900, 900}})
	r.Ended = "round 2 of 2, interrupted"
	for _, row := range r.rows(s.name) {
		verify.Equal(t, row.latency.P99, 200, "%s: p99 of the round that counts", row.proxy)
	}
	for _, line := range []string{
		"sluice, round 2: no figures, a request was sent 2000 ms late: the machine was busy\n",
		"nginx, round 2: ended: exit status 1\n",
	} {
		verify.That(t, strings.Contains(r.details(), line), "no line %q in:\n%s", line, r.details())
	}
	dir := t.TempDir()
	verify.NoError(t, os.WriteFile(dir+"/quality.md", []byte("<!-- written by bench/quality -->\n<!-- end of what bench/quality wrote -->\n"), 0o644))
	verify.NoError(t, r.writeDocument(dir+"/quality.md"))
	written := string(verify.Result(os.ReadFile(dir + "/quality.md")).Must(t))
	verify.That(t, strings.Contains(written, r.Ended) && strings.Contains(written, "100 / 200 / 300"), "the document is\n%s", written)
}
