//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"sluice/bench/quality/scenario"
)

// What sluice's default has to reach.
const (
	// mostExcess is the largest part of the excess of the better of nginx and HAProxy, at p99 and p99.9, where
	// peers differ. The excess is what a percentile has above the best possible one.
	mostExcess = 0.5
	// mostEqual is the largest multiple of the percentile of the better of them, where peers are alike.
	mostEqual = 1.05
	// clockNoise is how far apart two percentiles are, in ms, without a difference between proxies: timers
	// of the peers and of the load are late by as much.
	clockNoise = 1.0
)

// mark is what the default has reached in a scenario.
type mark struct {
	scenario, rule string
	columns        []string // p99, p99.9: sluice's, the rival's
	ratios         [2]float64
	reached        bool
	worst          []string // percentiles at which it is the worst of all
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
	m := mark{scenario: s.name, rule: fmt.Sprintf("excess ≤ %.1f ×", mostExcess), reached: true}
	of, limit := func(r row) []float64 { return r.excess.all() }, mostExcess
	if !s.Differ {
		m.rule, of, limit = fmt.Sprintf("percentile ≤ %.2f ×", mostEqual), func(r row) []float64 { return r.latency.all() }, mostEqual
	}
	for i := range 2 { // p99, p99.9
		best := slices.MinFunc(rivals, func(a, b row) int { return compare(of(a)[i+1], of(b)[i+1]) })
		mine, its := of(own)[i+1], of(best)[i+1]
		m.columns = append(m.columns, text(mine), text(its)+" "+best.proxy)
		m.ratios[i] = mine / its
		m.reached = m.reached && mine <= limit*its+clockNoise
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

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func marksTable(marks []mark) [][]string {
	table := [][]string{{"", "rule", "p99: sluice", "better of nginx and HAProxy", "ratio", "p99.9: sluice", "better of nginx and HAProxy", "ratio", "reached", "never the worst"}}
	for _, m := range marks {
		never := "yes"
		if len(m.worst) > 0 {
			never = "no: " + strings.Join(m.worst, ", ")
		}
		table = append(table, []string{
			m.scenario, m.rule, m.columns[0], m.columns[1], fmt.Sprintf("%.2f", m.ratios[0]),
			m.columns[2], m.columns[3], fmt.Sprintf("%.2f", m.ratios[1]), map[bool]string{true: "yes", false: "no"}[m.reached], never,
		})
	}
	return table
}
