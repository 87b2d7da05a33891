//go:build linux

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sluice/bench/markdown"
)

// baselines are the proxies that ratios are taken to, when they take part.
var baselines = []string{"nginx", "haproxy", "haproxy-nolog", "haproxy-splice", "relay", "caddy"}

// median returns the middle of values, the mean of the middle two for an even
// number, and 0 for none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// medianOf returns the median of f over the rounds.
func medianOf(rounds []round, f func(round) float64) float64 {
	var values []float64
	for _, r := range rounds {
		values = append(values, f(r))
	}
	return median(values)
}

// ratio returns the median of the ratios of f within each round.
func ratio(rounds, baseline []round, f func(round) float64) float64 {
	var values []float64
	for i := range min(len(rounds), len(baseline)) {
		if b := f(baseline[i]); b > 0 {
			values = append(values, f(rounds[i])/b)
		}
	}
	return median(values)
}

// spread is the distance from the median to the farthest round, as a share.
func spread(rounds []round, f func(round) float64) float64 {
	m := medianOf(rounds, f)
	if m == 0 {
		return 0
	}
	farthest := 0.0
	for _, r := range rounds {
		farthest = max(farthest, f(r)-m, m-f(r))
	}
	return farthest / m
}

// Figures of a round, as numbers.
func cpuMicros(r round) float64    { return micros(r.cpuPerRequest()) }
func userMicros(r round) float64   { return cpuMicros(r) * r.UserShare }
func systemMicros(r round) float64 { return cpuMicros(r) * (1 - r.UserShare) }
func perSecond(r round) float64    { return r.Load.perSecond() }
func p50Millis(r round) float64    { return millis(r.Load.P50) }
func p99Millis(r round) float64    { return millis(r.Load.P99) }
func resident(r round) float64     { return mebibytes(r.Resident) }
func others(r round) float64       { return 100 * r.Others }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func mebibytes(n int64) float64      { return float64(n) / (1 << 20) }

// series returns the named proxy's series, or nil.
func (r result) series(proxy string) *series {
	for i := range r.Series {
		if r.Series[i].Proxy == proxy {
			return &r.Series[i]
		}
	}
	return nil
}

// write prints r as a Markdown table that can also be read as it is.
func (r result) write(out io.Writer) error {
	_, err := fmt.Fprintf(out, "### %s: %s\n\n%s%s\n", r.Workload, r.About, markdown.Table(r.rows()), r.noise())
	return err
}

// rows is the table of r, its head first.
func (r result) rows() [][]string {
	switch r.work.kind {
	case kindIdle:
		return r.idleRows()
	case kindWide:
		return r.scalingRows()
	default:
		return r.loadRows()
	}
}

// noise is a sentence about other work on the proxy's core, empty if there was
// next to none.
func (r result) noise() string {
	worst := 0.0
	for _, s := range r.Series {
		worst = max(worst, medianOf(s.Rounds, others))
	}
	if worst < 5 {
		return ""
	}
	return fmt.Sprintf("\nNoisy: other work used up to %.0f %% of the proxy's core.\n", worst)
}

func (r result) loadRows() [][]string {
	head := []string{"proxy", "CPU µs/req", "user", "system", "±"}
	var present []string
	for _, b := range r.baselines {
		if r.series(b) != nil {
			present = append(present, b)
			head = append(head, "CPU × "+b)
		}
	}
	rows := [][]string{append(head, "req/s", "p50 ms", "p99 ms", "MiB")}
	for _, s := range r.Series {
		row := []string{
			s.Proxy,
			fmt.Sprintf("%.2f", medianOf(s.Rounds, cpuMicros)),
			fmt.Sprintf("%.2f", medianOf(s.Rounds, userMicros)),
			fmt.Sprintf("%.2f", medianOf(s.Rounds, systemMicros)),
			fmt.Sprintf("%.0f %%", 100*spread(s.Rounds, cpuMicros)),
		}
		for _, b := range present {
			row = append(row, fmt.Sprintf("%.3f", ratio(s.Rounds, r.series(b).Rounds, cpuMicros)))
		}
		rows = append(rows, append(row,
			fmt.Sprintf("%.0f", medianOf(s.Rounds, perSecond)),
			orDash(medianOf(s.Rounds, p50Millis)),
			orDash(medianOf(s.Rounds, p99Millis)),
			fmt.Sprintf("%.1f", medianOf(s.Rounds, resident))))
	}
	return rows
}

// orDash returns a figure, of which 0 means that there is none.
func orDash(figure float64) string {
	return cmp.Or(strings.TrimPrefix(fmt.Sprintf("%.2f", figure), "0.00"), "–")
}

func (r result) idleRows() [][]string {
	rows := [][]string{{"proxy", "connections", "MiB before", "MiB during", "KiB per connection", "of Go's heap", "of stacks"}}
	for _, s := range r.Series {
		rows = append(rows, []string{
			s.Proxy,
			fmt.Sprint(s.Idle.Connections),
			fmt.Sprintf("%.1f", mebibytes(s.Idle.Before)),
			fmt.Sprintf("%.1f", mebibytes(s.Idle.During)),
			fmt.Sprintf("%.2f", s.Idle.perConnection()),
			orDash(s.Idle.heapPerConnection()),
			orDash(s.Idle.stacksPerConnection()),
		})
	}
	return rows
}
