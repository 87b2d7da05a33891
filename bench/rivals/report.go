//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"sluice/bench/machine"
	"sluice/bench/markdown"
)

// section marks the tables of the last measurement in a document.
var section = markdown.WrittenBy("bench/rivals")

// report contains the results of a measurement.
type report struct {
	Command  string          `json:"command"`
	Time     time.Time       `json:"time"`
	Machine  machine.Machine `json:"machine"` // with the versions of all rivals
	LeftOut  []leftOut       `json:"left_out,omitempty"`
	Outcomes []outcome       `json:"outcomes"`
}

// leftOut is a rival that is not available.
type leftOut struct {
	Rival string `json:"rival"`
	Why   string `json:"why"`
}

func (r report) writeJSON(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// markdown has a table for each scenario.
func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n<!-- illustration: takes ten minutes -->\n```sh\n%s\n```\n\nOn %s; %s. %s\n", r.Command, r.Time.Format(time.DateOnly), r.Machine, r.punctual())
	for _, l := range r.LeftOut {
		fmt.Fprintf(&b, "\n**Left out: %s.** %s\n", l.Rival, firstLine(l.Why))
	}
	for _, s := range scenarios {
		outcomes := r.of(s.name)
		if len(outcomes) == 0 {
			continue
		}
		rows := lossRows(outcomes)
		if s.counted {
			rows = joinRows(outcomes)
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s", s.title, markdown.Table(rows))
		for _, o := range outcomes {
			if o.Error != "" {
				fmt.Fprintf(&b, "\n%s came to no end: %s\n", o.Rival, firstLine(o.Error))
			}
		}
	}
	return b.String() + "\n"
}

// punctual describes how constant the rate of the load was.
func (r report) punctual() string {
	var late time.Duration
	for _, o := range r.Outcomes {
		late = max(late, o.Late)
	}
	return fmt.Sprintf("%d GETs a second; the latest of all was sent %s ms after its time.", perSecond, millis(late))
}

// of returns the outcomes of a scenario.
func (r report) of(scenario string) []outcome {
	var outcomes []outcome
	for _, o := range r.Outcomes {
		if o.Scenario == scenario {
			outcomes = append(outcomes, o)
		}
	}
	return outcomes
}

func lossRows(outcomes []outcome) [][]string {
	rows := [][]string{{"", "requests", "failed", "as", "failing for, s", "p99 ms", "slowest ms"}}
	for _, o := range outcomes {
		if o.Requests == 0 {
			continue
		}
		rows = append(rows, []string{o.Rival, strconv.Itoa(o.Requests), strconv.Itoa(o.failed()), orDash(o.reasons()), o.failing(), millis(o.P99), millis(o.Slowest)})
	}
	return rows
}

func joinRows(outcomes []outcome) [][]string {
	rows := [][]string{{"", "first answer, ms: median", "max", "queries to Consul", "requests", "failed", "as", "p99 ms"}}
	for _, o := range outcomes {
		if o.Requests == 0 {
			continue
		}
		rows = append(rows, []string{
			o.Rival, millis(quantile(o.Joins, 0.5)), millis(quantile(o.Joins, 1)), strconv.FormatInt(o.Queries, 10),
			strconv.Itoa(o.Requests), strconv.Itoa(o.failed()), orDash(o.reasons()), millis(o.P99),
		})
	}
	return rows
}

// failing describes for how long requests failed after an event.
func (o outcome) failing() string {
	switch {
	case o.failed() == 0:
		return "–"
	case !o.Recovered:
		return "to the end"
	default:
		return fmt.Sprintf("%.1f", o.Failing.Seconds())
	}
}

func orDash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}

func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms >= 100 {
		return fmt.Sprintf("%.0f", ms)
	}
	return fmt.Sprintf("%.1f", ms)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
