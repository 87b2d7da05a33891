//go:build linux

package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"sluice/bench/quality/scenario"
)

// clockNoise is how far apart two percentiles are, in ms, without a difference between proxies:
// timers of the peers and of the load are late by as much.
const clockNoise = 1.0

// mark is what the default has reached in a scenario; scenario.Limit has what it should.
type mark struct {
	scenario string
	columns  []string // p99, p99.9: sluice's, the better rival's, their ratio and its limit
	share    string   // of its due that a sound peer got in five seconds, with little load
	reached  bool
	worst    []string // percentiles at which it is the worst of all
}

// marks judges the scenarios in which sluice and nginx or HAProxy have taken part.
func (r *report) marks() []mark {
	var all []mark
	for _, s := range plays(r.Seed, scenario.Short) {
		rows := r.rows(s.name)
		own := slices.IndexFunc(rows, func(r row) bool { return r.proxy == "sluice" })
		var rivals []row
		for _, row := range rows {
			if strings.HasPrefix(row.proxy, "nginx") || strings.HasPrefix(row.proxy, "haproxy") {
				rivals = append(rivals, row)
			}
		}
		if own >= 0 && len(rivals) > 0 {
			all = append(all, judge(s, rows, rows[own], rivals))
		}
	}
	return all
}

func judge(s *play, rows []row, own row, rivals []row) mark {
	m := mark{scenario: s.name, reached: true, share: "–"}
	for i, percentile := range []string{"p99", "p99.9"} {
		best := slices.MinFunc(rivals, func(a, b row) int { return cmp.Compare(a.latency.all()[i+1], b.latency.all()[i+1]) })
		mine, its, limit := own.latency.all()[i+1], best.latency.all()[i+1], s.Limit(percentile)
		m.columns = append(m.columns, text(mine), text(its)+" "+best.proxy, fmt.Sprintf("%.2f of %.2f", mine/its, limit))
		m.reached = m.reached && mine <= limit*its+clockNoise
	}
	if s.LowLoad {
		m.share = fmt.Sprintf("%.2f … %.2f", own.share[0], own.share[1])
		m.reached = m.reached && own.share[0] >= scenario.LeastShare && own.share[1] <= scenario.MostShare
	}
	for i, percentile := range []string{"p50", "p99", "p99.9"} {
		mine, others := own.latency.all()[i], math.Inf(-1)
		for _, r := range rows {
			if r.proxy != own.proxy {
				others = max(others, r.latency.all()[i])
			}
		}
		if mine > others+clockNoise {
			m.worst = append(m.worst, percentile)
		}
	}
	if slices.MaxFunc(rows, func(a, b row) int { return a.wrong - b.wrong }).proxy == own.proxy && own.wrong > 0 {
		m.worst = append(m.worst, "wrong")
	}
	return m
}

func marksTable(marks []mark) [][]string {
	table := [][]string{{"", "p99: sluice", "better of nginx and HAProxy", "ratio", "p99.9: sluice", "better of nginx and HAProxy", "ratio", "share", "reached", "never the worst"}}
	for _, m := range marks {
		never := "yes"
		if len(m.worst) > 0 {
			never = "no: " + strings.Join(m.worst, ", ")
		}
		table = append(table, slices.Concat([]string{m.scenario}, m.columns, []string{m.share, map[bool]string{true: "yes", false: "no"}[m.reached], never}))
	}
	return table
}
