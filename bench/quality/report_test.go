//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"sluice/bench/quality/scenario"
	"sluice/test/verify"
)

// ofOne is a report of one scenario with the p50, p99 and p99.9 of some proxies, and 100 ms as the best possible.
func ofOne(s *play, latencies map[string]figures) *report {
	r := &report{}
	for _, p := range proxies {
		if l, ok := latencies[p.name]; ok {
			r.Proxies = append(r.Proxies, p.name)
			r.Outcomes = append(r.Outcomes, outcome{Scenario: s.name, Proxy: p.name, Latency: l, Best: figures{100, 100, 100}, Less: -1, Again: -1})
		}
	}
	return r
}

func TestMarks(t *testing.T) {
	t.Parallel()
	var alike, differs *play
	for _, s := range plays(0, scenario.Short) {
		if s.Differ {
			differs = s
		} else {
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
		{differs, figures{100, 150, 300}, true, ""},
		{differs, figures{100, 160, 300}, false, ""},
		{differs, figures{100, 150, 310}, false, ""},
		{differs, figures{130, 150, 950}, false, "p50 p99.9"},
		{alike, figures{100, 209, 524}, true, ""},
		{alike, figures{100, 250, 524}, false, ""},
	} {
		marks := ofOne(c.play, rivals(c.sluice)).marks()
		verify.Require(t, len(marks) == 1, "%d marks", len(marks))
		m := marks[0]
		verify.That(t, m.reached == c.reached && strings.Join(m.worst, " ") == c.worst,
			"%s with %v: reached %t, the worst at %v", c.play.name, c.sluice, m.reached, m.worst)
	}
	verify.Equal(t, len(ofOne(differs, map[string]figures{"sluice": {1, 1, 1}}).marks()), 0, "marks without a rival")
}

func TestFailedRequestsAreTheSlowest(t *testing.T) {
	t.Parallel()
	verify.Equal(t, text(millis(patience)), "failed", "the text")
	r := ofOne(plays(0, scenario.Short)[0], map[string]figures{"sluice": {1, 2, millis(patience)}})
	verify.That(t, strings.Contains(r.markdown(), "failed"), "the table does not say so:\n%s", r.markdown())
}

func TestChartsAreXML(t *testing.T) {
	t.Parallel()
	r := ofOne(plays(0, scenario.Short)[0], map[string]figures{"sluice": {1, 2, 3}, "nginx": {0, 0, 0}, "caddy-random2": {1, 20_000, 20_000}})
	decoder := xml.NewDecoder(strings.NewReader(chart(plays(0, scenario.Short)[0], r.rows(plays(0, scenario.Short)[0].name))))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		verify.NoError(t, err)
	}
}
