//go:build linux

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/bench/machine"
	"sluice/bench/markdown"
)

// section marks the tables of the last measurement in a document.
var section = markdown.WrittenBy("bench")

// document contains the results of a measurement: one or several runs of the same workloads.
type document struct {
	command string // that was run
	time    time.Time
	machine machine.Machine
	runs    [][]result
}

// writeJSON writes every round of every run.
func (d document) writeJSON(path string) error {
	b, err := json.MarshalIndent(struct {
		Command string          `json:"command"`
		Time    time.Time       `json:"time"`
		Machine machine.Machine `json:"machine"`
		Runs    [][]result      `json:"runs"`
	}{d.command, d.time, d.machine, d.runs}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// complete reports whether each run has measured everything, though perhaps with failed requests.
func (d document) complete(b *bench) bool {
	return len(d.runs) == b.runCount && !slices.ContainsFunc(d.runs, func(run []result) bool { return len(run) < len(b.workloads) })
}

// tables has what each workload is, and then a figure of each run in each cell.
func (d document) tables() string {
	text := fmt.Sprintf("\n<!-- illustration: takes minutes -->\n```sh\n%s\n```\n\nOn %s; %s. %s\n", d.command, d.time.Format(time.DateOnly), d.machine, d.requests())
	works := [][]string{{"work", "what it is"}}
	for _, r := range d.runs[0] {
		works = append(works, []string{r.Workload, r.About})
	}
	text += "\n" + markdown.Table(works)
	if rows := d.goals(); len(rows) > 1 {
		text += "\n### Goals\n\n" + markdown.Table(rows)
	}
	for _, t := range tables {
		if rows := d.rows(t); len(rows) > 1 {
			text += "\n### " + t.title + "\n\n" + markdown.Table(rows)
		}
	}
	return text + "\n"
}

// requests returns the numbers of requests and of failed requests as a sentence, and in which
// rounds requests have failed.
func (d document) requests() string {
	var all, failed int64
	where := ""
	for n, run := range d.runs {
		for _, r := range run {
			for _, line := range r.failures() {
				where += fmt.Sprintf("\n- Run %d, %s", n+1, line)
			}
			for _, s := range r.Series {
				for _, round := range s.Rounds {
					all += round.Load.Requests
					failed += round.Load.errors()
				}
			}
		}
	}
	if where != "" {
		where = "\n" + where
	}
	return fmt.Sprintf("%d requests, %d failed.%s", all, failed, where)
}

// rows is t, its head first.
func (d document) rows(t table) [][]string {
	head := []string{"work", "proxy"}
	for _, c := range t.columns {
		head = append(head, c.head)
	}
	rows := [][]string{head}
	for _, r := range d.runs[0] {
		if !t.work(r.work) {
			continue
		}
		for _, s := range r.Series {
			if t.leftOut(s.Proxy) {
				continue
			}
			row := []string{r.Workload, s.Proxy}
			for _, c := range t.columns {
				row = append(row, d.cell(c, r.Workload, s.Proxy))
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// cell has the figure of each run.
func (d document) cell(c column, workload, proxy string) string {
	var figures []string
	for _, run := range d.runs {
		for _, r := range run {
			if s := r.series(proxy); r.Workload == workload && s != nil {
				if figure := c.figure(r, *s); figure > 0 {
					figures = append(figures, fmt.Sprintf(c.format, figure))
				}
			}
		}
	}
	return cmp.Or(strings.Join(figures, ", "), "–")
}
