//go:build linux

package main

import "slices"

// table is a part of the document: a row for each proxy in each of some workloads.
type table struct {
	title   string
	work    func(workload) bool
	leftOut func(proxy string) bool // has no row: others are compared with it
	columns []column
}

// column is a figure of what one proxy did in one workload.
type column struct {
	head, format string
	figure       func(result, series) float64 // 0: there is none
}

var tables = []table{
	{
		title:   "CPU per request, and how many times as much as another proxy needs",
		work:    func(w workload) bool { return w.kind == kindLoad && !w.http3() },
		leftOut: func(proxy string) bool { return slices.Contains(baselines, proxy) },
		columns: []column{
			{"µs", "%.1f", middle(cpuMicros)},
			{"× nginx", "%.2f", ratioTo("nginx")},
			{"× HAProxy", "%.2f", ratioTo("haproxy")},
			{"× relay", "%.2f", ratioTo("relay")},
		},
	},
	{
		title:   "HTTP/3: CPU per request",
		work:    func(w workload) bool { return w.kind == kindLoad && w.http3() },
		leftOut: never,
		columns: []column{
			{"µs", "%.1f", middle(cpuMicros)},
			{"× Caddy", "%.2f", ratioTo("caddy")},
		},
	},
	{
		title: "Latency",
		work: func(w workload) bool {
			return w.kind == kindLoad && w.path == "/small" && w.method == "" && !w.close && w.load != loadH2
		},
		leftOut: never,
		columns: []column{
			{"requests/s", "%.0f", middle(perSecond)},
			{"p50 ms", "%.2f", middle(p50Millis)},
			{"p99 ms", "%.2f", middle(p99Millis)},
		},
	},
	{
		title:   "Memory",
		work:    func(w workload) bool { return w.kind == kindIdle },
		leftOut: never,
		columns: []column{
			{"MiB before", "%.1f", func(_ result, s series) float64 { return mebibytes(s.Idle.Before) }},
			{"MiB with the connections", "%.1f", func(_ result, s series) float64 { return mebibytes(s.Idle.During) }},
			{"KiB for each", "%.2f", func(_ result, s series) float64 { return s.Idle.perConnection() }},
			{"of Go's heap", "%.2f", func(_ result, s series) float64 { return s.Idle.heapPerConnection() }},
			{"of stacks", "%.2f", func(_ result, s series) float64 { return s.Idle.stacksPerConnection() }},
		},
	},
	{
		title:   "From one core to two",
		work:    func(w workload) bool { return w.kind == kindWide },
		leftOut: isOneCore,
		columns: []column{
			{"µs/req", "%.1f", middle(cpuMicros)},
			{"work × one core's", "%.2f", scalingOf},
		},
	},
	{
		title:   "Many pools",
		work:    func(w workload) bool { return w.kind == kindPools },
		leftOut: never,
		columns: []column{
			{"µs/req", "%.1f", middle(cpuMicros)},
			{"× with one pool", "%.2f", func(r result, s series) float64 {
				return ratio(s.Rounds, r.series(r.baselines[0]).Rounds, cpuMicros)
			}},
			{"MiB", "%.0f", middle(resident)},
		},
	},
}

func never(string) bool { return false }

// middle is the median of the rounds.
func middle(f func(round) float64) func(result, series) float64 {
	return func(_ result, s series) float64 { return medianOf(s.Rounds, f) }
}

// ratioTo is how many times as much CPU time as a baseline a request needs, and p99To how many
// times as long a p99 is.
func ratioTo(baseline string) func(result, series) float64 { return ratioOf(baseline, cpuMicros) }

func p99To(baseline string) func(result, series) float64 { return ratioOf(baseline, p99Millis) }

func ratioOf(baseline string, f func(round) float64) func(result, series) float64 {
	return func(r result, s series) float64 {
		b := r.series(baseline)
		if b == nil {
			return 0
		}
		return ratio(s.Rounds, b.Rounds, f)
	}
}

func scalingOf(r result, s series) float64 { return scaling(r.oneCore(s).Rounds, s.Rounds) }
