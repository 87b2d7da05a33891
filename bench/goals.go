//go:build linux

package main

import (
	"fmt"
	"math"
	"strings"
)

// goal is what sluice is to reach in a workload, in every run: at most limit, or at least.
type goal struct {
	what, workload string
	atLeast        bool
	limit          float64
	figure         func(result, series) float64 // 0: there is none
}

// goals are in the order of the table. results.md has those that other commands measure.
var goals = []goal{
	{what: "CPU, × a bare relay", workload: "small", limit: 1.05, figure: ratioTo("relay")},
	{what: "CPU, × nginx", workload: "small", limit: 1, figure: ratioTo("nginx")},
	{what: "CPU, × nginx", workload: "newconn", limit: 1, figure: ratioTo("nginx")},
	{what: "CPU, × HAProxy", workload: "h2", limit: 1, figure: ratioTo("haproxy")},
	{what: "CPU, × HAProxy", workload: "h2c", limit: 1, figure: ratioTo("haproxy")},
	{what: "CPU, × HAProxy", workload: "grpc", limit: 1, figure: ratioTo("haproxy")},
	{what: "CPU, × HAProxy", workload: "grpcapart", limit: 1, figure: ratioTo("haproxy")},
	{what: "MiB of the process at rest", workload: "idle10k", limit: 20, figure: func(_ result, s series) float64 { return mebibytes(s.Idle.Before) }},
	{what: "KiB of each connection", workload: "idle10k", limit: 1, figure: func(_ result, s series) float64 { return s.Idle.perConnection() }},
	{what: "CPU, × nginx", workload: "half", limit: 1.05, figure: ratioTo("nginx")},
	{what: "CPU, × HAProxy", workload: "half", limit: 1, figure: ratioTo("haproxy")},
	{what: "CPU, × nginx", workload: "half1000", limit: 1.05, figure: ratioTo("nginx")},
	{what: "CPU, × HAProxy", workload: "half1000", limit: 1, figure: ratioTo("haproxy")},
	{what: "p99, × nginx", workload: "half", limit: 1, figure: p99To("nginx")},
	{what: "p99, × HAProxy", workload: "half", limit: 1, figure: p99To("haproxy")},
	{what: "p99, × nginx", workload: "half1000", limit: 1, figure: p99To("nginx")},
	{what: "p99, × HAProxy", workload: "half1000", limit: 1, figure: p99To("haproxy")},
	{what: "p99, × nginx", workload: "small1000", limit: 1, figure: p99To("nginx")},
	{what: "p99, × HAProxy", workload: "small1000", limit: 1, figure: p99To("haproxy")},
	{what: "work of two cores, × one's", workload: "twocores", limit: 1.95, atLeast: true, figure: scalingOf},
}

// goals has a row for each goal that was measured, its head first.
func (d document) goals() [][]string {
	rows := [][]string{{"work", "what", "goal", "runs", "reached"}}
	for _, g := range goals {
		var figures []string
		limit, reached := fmt.Sprintf("≤ %.2f", g.limit), "yes"
		if g.atLeast {
			limit = fmt.Sprintf("≥ %.2f", g.limit)
		}
		for _, run := range d.runs {
			for _, r := range run {
				s := r.series("sluice")
				if r.Workload != g.workload || s == nil {
					continue
				}
				figure := g.figure(r, *s)
				if figure == 0 {
					continue
				}
				figures = append(figures, fmt.Sprintf("%.2f", figure))
				if rounded := math.Round(100*figure) / 100; rounded > g.limit && !g.atLeast || rounded < g.limit && g.atLeast {
					reached = "no"
				}
			}
		}
		if figures != nil {
			rows = append(rows, []string{g.workload, g.what, limit, strings.Join(figures, ", "), reached})
		}
	}
	return rows
}
