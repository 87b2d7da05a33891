//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/bench/machine"
	"sluice/bench/markdown"
	"sluice/bench/quality/scenario"
)

// mostLate is by how many ms a request may be sent late without a word about it: the machine was
// busy, or stood still.
const mostLate = 20.0

// section marks the tables of the last measurement in a document.
var section = markdown.WrittenBy("bench/quality")

// report contains the results of a measurement.
type report struct {
	Command  string          `json:"command"`
	Time     time.Time       `json:"time"`
	Machine  machine.Machine `json:"machine"` // with the versions of all programs
	Rounds   int             `json:"rounds"`
	Seed     uint64          `json:"seed"`
	Beside   int             `json:"beside"` // proxies side by side
	Proxies  []string        `json:"proxies"`
	LeftOut  []leftOut       `json:"left_out,omitempty"`
	Ended    string          `json:"ended,omitempty"` // why the measurement ended early
	Outcomes []outcome       `json:"outcomes"`
}

// leftOut is a proxy that is not available.
type leftOut struct {
	Proxy string `json:"proxy"`
	Why   string `json:"why"`
}

func (r *report) writeJSON(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// writeDocument replaces the tables in a document.
func (r *report) writeDocument(path string) error { return section.Replace(path, r.summary()) }

// row is a proxy in a scenario: medians of the rounds.
type row struct {
	proxy          string
	rounds         []outcome // in which it has run
	latency, best  figures
	spread         [2]float64 // least and most p99 of a round
	share          [2]float64 // the least and the most of its due that a sound peer got
	failed, wrong  int        // of all rounds
	requests, most int
	goodput        float64
	needless       float64
	less, again    float64
}

// rows returns the rows of a scenario, in the order of the proxies.
func (r *report) rows(scenario string) []row {
	var rows []row
	for _, name := range r.Proxies {
		line := row{proxy: name}
		for _, o := range r.Outcomes {
			if o.Scenario == scenario && o.Proxy == name && o.counts() {
				line.rounds = append(line.rounds, o)
				line.failed, line.wrong, line.requests = line.failed+o.Failed, line.wrong+o.Wrong, line.requests+o.Requests
				line.most = max(line.most, o.Most)
			}
		}
		if len(line.rounds) == 0 {
			continue
		}
		line.latency, line.best = line.figures(func(o outcome) figures { return o.Latency }), line.figures(func(o outcome) figures { return o.Best })
		p99 := line.values(func(o outcome) float64 { return o.Latency.P99 })
		line.spread = [2]float64{slices.Min(p99), slices.Max(p99)}
		line.share[0] = slices.Min(line.values(func(o outcome) float64 { return o.Shares[0] }))
		line.share[1] = slices.Max(line.values(func(o outcome) float64 { return o.Shares[1] }))
		line.goodput = median(line.values(func(o outcome) float64 { return o.Goodput }))
		line.needless = median(line.values(func(o outcome) float64 { return o.Needless }))
		line.less = median(line.values(func(o outcome) float64 { return o.Less }))
		line.again = median(line.values(func(o outcome) float64 { return o.Again }))
		rows = append(rows, line)
	}
	return rows
}

func (r row) values(f func(outcome) float64) []float64 {
	var values []float64
	for _, o := range r.rounds {
		values = append(values, f(o))
	}
	return values
}

func (r row) figures(f func(outcome) figures) figures {
	one := func(part func(figures) float64) float64 {
		return middle(r.values(func(o outcome) float64 { return part(f(o)) }))
	}
	return figures{
		one(func(f figures) float64 { return f.P50 }),
		one(func(f figures) float64 { return f.P99 }),
		one(func(f figures) float64 { return f.P999 }),
	}
}

// middle is the median, the mean of two.
func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// summary has the command, the marks of all scenarios, and a table of all proxies.
func (r *report) summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n<!-- illustration: takes an hour -->\n```sh\n%s\n```\n\nOn %s; %s. %s\n", r.Command, r.Time.Format(time.DateOnly), r.Machine, r.circumstances())
	for _, l := range r.LeftOut {
		reason, _, _ := strings.Cut(l.Why, "\n")
		fmt.Fprintf(&b, "\n**Left out: %s.** %s\n", l.Proxy, reason)
	}
	if r.Ended != "" {
		fmt.Fprintf(&b, "\n**Not all was measured:** %s.\n", r.Ended)
	}
	if marks := r.marks(); len(marks) > 0 {
		b.WriteString("\n### Marks\n\n" + markdown.Table(marksTable(marks)))
	}
	table := [][]string{slices.Concat([]string{"p50 / p99 / p99.9 in ms", "best possible"}, r.Proxies)}
	for _, s := range plays(r.Seed, scenario.Short) {
		rows := r.rows(s.name)
		if len(rows) == 0 {
			continue
		}
		line := []string{s.name, rows[0].best.String()}
		for _, name := range r.Proxies {
			cell := "–"
			if i := slices.IndexFunc(rows, func(r row) bool { return r.proxy == name }); i >= 0 {
				cell = rows[i].String()
			}
			line = append(line, cell)
		}
		table = append(table, line)
	}
	return b.String() + "\n### All\n\n" + markdown.Table(table) + "\n"
}

func (f figures) String() string { return text(f.P50) + " / " + text(f.P99) + " / " + text(f.P999) }

// String has the figures, and how many requests failed or got a wrong answer.
func (r row) String() string {
	s := r.latency.String()
	if r.failed > 0 {
		s += fmt.Sprintf(", %d failed", r.failed)
	}
	if r.wrong > 0 {
		s += fmt.Sprintf(", %d wrong", r.wrong)
	}
	return s
}

// details has a table for each scenario, and what went wrong.
func (r *report) details() string {
	var b strings.Builder
	for _, s := range plays(r.Seed, scenario.Short) {
		rows := r.rows(s.name)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s: %s.\n\n%s", s.name, s.about, markdown.Table(tableOf(rows)))
		for _, o := range r.Outcomes {
			if o.Scenario != s.name {
				continue
			}
			if o.disturbed() {
				fmt.Fprintf(&b, "\n%s, round %d: no figures, a request was sent %.0f ms late: the machine was busy\n", o.Proxy, o.Round+1, o.Late)
				continue
			}
			if o.Error != "" {
				fmt.Fprintf(&b, "\n%s, round %d: %s\n", o.Proxy, o.Round+1, o.Error)
			}
			for _, why := range slices.Sorted(maps.Keys(o.Reasons)) {
				fmt.Fprintf(&b, "\n%s, round %d: %d × %s\n", o.Proxy, o.Round+1, o.Reasons[why], why)
			}
		}
	}
	return b.String()
}

// circumstances are what says how far the figures can be trusted.
func (r *report) circumstances() string {
	late, busy, disturbed := 0.0, 0.0, 0
	for _, o := range r.Outcomes {
		late, busy = max(late, o.Late), max(busy, o.Busy)
		if o.Late > mostLate {
			disturbed++
		}
	}
	return fmt.Sprintf("Seed %d, %d rounds, up to %d proxies side by side. The processor was busy for at most %.0f %% of the time of a group; the latest request was sent %.0f ms after its time, and in %d of %d runs one was more than %.0f ms late.",
		r.Seed, r.Rounds, r.Beside, 100*busy, late, disturbed, len(r.Outcomes), mostLate)
}

func tableOf(rows []row) [][]string {
	table := [][]string{{"", "p50 ms", "p99 ms", "rounds", "p99.9 ms", "failed", "wrong", "right/s", "most in flight", "needless waits", "less after s", "again after s", "share"}}
	best := []string{"best possible", text(rows[0].best.P50), text(rows[0].best.P99), "", text(rows[0].best.P999), "", "", "", "", "", "", "", ""}
	for _, r := range rows {
		table = append(table, []string{
			r.proxy, text(r.latency.P50), text(r.latency.P99), text(r.spread[0]) + " … " + text(r.spread[1]), text(r.latency.P999),
			fmt.Sprint(r.failed), fmt.Sprint(r.wrong), fmt.Sprintf("%.0f", r.goodput), fmt.Sprint(r.most), fmt.Sprintf("%.1f %%", 100*r.needless), seconds(r.less), seconds(r.again), fmt.Sprintf("%.2f … %.2f", r.share[0], r.share[1]),
		})
	}
	return append(table, best)
}

// text is a latency in milliseconds as a table shows it: a failed request is as late as can be.
func text(ms float64) string {
	switch {
	case ms >= millis(patience):
		return "failed"
	case math.Abs(ms) >= 100:
		return fmt.Sprintf("%.0f", ms)
	}
	return fmt.Sprintf("%.1f", ms)
}

func seconds(s float64) string {
	if s < 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f", s)
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
