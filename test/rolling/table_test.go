//go:build unix

package rolling

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// latencies are the sorted latencies of the answered requests of a phase.
type latencies []time.Duration

// quantile returns a quantile in milliseconds, as text.
func (l latencies) quantile(q float64) string {
	if len(l) == 0 {
		return "-"
	}
	return milliseconds(l[min(int(q*float64(len(l))), len(l)-1)])
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond))
}

// table formats the results by mode and kind.
func table(outcomes []outcome) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "mode\trequests\tsent\tfailed\tof these lost\tcalm p50\tp99\tmax\troll p50\tp99\tmax ms\t")
	for _, o := range outcomes {
		for _, k := range o.mix.kinds() {
			fmt.Fprintln(w, o.row(k.String(), o.results, func(other kind) bool { return other == k }))
		}
		fmt.Fprintln(w, o.row("all", o.results, func(kind) bool { return true }))
		fmt.Fprintln(w, o.row("other service, meanwhile", o.control, func(kind) bool { return true }))
	}
	w.Flush()
	return b.String()
}

// row formats the results of some kinds of requests.
func (o outcome) row(name string, results []result, of func(kind) bool) string {
	var before, roll latencies
	sent, failed, lost := 0, 0, 0
	for _, r := range results {
		if !of(r.kind) {
			continue
		}
		switch {
		case r.err != nil:
			failed++
			if o.lost(r.id) {
				lost++
			}
		case r.due.Before(o.before):
		case r.due.Before(o.rolled):
			before = append(before, r.latency)
		case r.due.Before(o.over):
			roll = append(roll, r.latency)
		}
		if !r.due.Before(o.rolled) && r.due.Before(o.over) {
			sent++
		}
	}
	slices.Sort(before)
	slices.Sort(roll)
	return fmt.Sprintf("%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t", o.name, name, sent, failed, lost,
		before.quantile(0.5), before.quantile(0.99), before.quantile(1), roll.quantile(0.5), roll.quantile(0.99), roll.quantile(1))
}

// use is the time from the first answer of Consul with a new instance until its first request.
type use struct {
	mode          string
	inPool, first latencies
	gap           time.Duration // average time between two requests of an instance
}

// useOf returns the use of instances from the times of their first answers and of their
// addition to the pool.
func useOf(o outcome, registered, inPool map[string]time.Time) use {
	u := use{mode: o.name, gap: time.Duration(o.mode.instances) * time.Second / time.Duration(o.perSecond)}
	for _, id := range o.replacements {
		at := registered[id]
		if at.IsZero() || inPool[id].IsZero() || o.used(id).IsZero() {
			continue
		}
		u.inPool = append(u.inPool, inPool[id].Sub(at))
		u.first = append(u.first, o.used(id).Sub(at))
	}
	slices.Sort(u.inPool)
	slices.Sort(u.first)
	return u
}

// useTable formats when new instances got requests.
func useTable(uses []use) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "mode\tnew instances\tin the pool: median\tmax\tfirst request: median\tmax\tms after Consul's answer; one in\t")
	for _, u := range uses {
		if len(u.first) > 0 {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t\n", u.mode, len(u.first),
				u.inPool.quantile(0.5), u.inPool.quantile(1), u.first.quantile(0.5), u.first.quantile(1), milliseconds(u.gap))
		}
	}
	w.Flush()
	return b.String()
}
