//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
)

// runWide compares each contender with itself: on its own core, and on the
// load's core as well. Both take turns, so that a change of the machine's speed
// hits both.
func (b *bench) runWide(ctx context.Context, w workload) (result, error) {
	r := result{Workload: w.name, About: w.about, work: w}
	var all []*running
	defer func() {
		for _, p := range all {
			p.process.stop()
		}
	}()
	narrow := w
	narrow.kind = kindLoad
	for _, c := range b.contenders {
		if w.skips(c) {
			continue
		}
		one := c
		one.name += oneCoreSuffix
		for _, start := range []struct {
			contender
			workload
		}{{one, narrow}, {c, w}} {
			p, err := b.start(ctx, start.contender, start.workload)
			if err != nil {
				return r, err
			}
			all = append(all, p)
			r.Series = append(r.Series, series{Proxy: p.name})
		}
	}
	return r, b.rounds(ctx, w, &r, all, func(p *running) (round, error) { return b.measure(ctx, w, p) })
}

// scalingRows returns the work of two cores in relation to one, calculated from the CPU per
// request, because load and origin also need the second core.
func (r result) scalingRows() [][]string {
	rows := [][]string{{"proxy", "µs/req on one core", "±", "µs/req on two", "±", "work done by two × one"}}
	for _, s := range r.Series {
		if isOneCore(s.Proxy) {
			continue
		}
		one, two := r.oneCore(s).Rounds, s.Rounds
		rows = append(rows, []string{
			s.Proxy,
			fmt.Sprintf("%.2f", medianOf(one, cpuMicros)),
			fmt.Sprintf("%.0f %%", 100*spread(one, cpuMicros)),
			fmt.Sprintf("%.2f", medianOf(two, cpuMicros)),
			fmt.Sprintf("%.0f %%", 100*spread(two, cpuMicros)),
			fmt.Sprintf("%.2f", scaling(one, two)),
		})
	}
	return rows
}

// oneCoreSuffix marks the series of a proxy that had its own core only.
const oneCoreSuffix = "-one"

func isOneCore(proxy string) bool { return strings.HasSuffix(proxy, oneCoreSuffix) }

// oneCore returns the series of the same proxy on one core.
func (r result) oneCore(s series) series { return *r.series(s.Proxy + oneCoreSuffix) }

// scaling is the work that two cores do where one does 1.
func scaling(one, two []round) float64 { return 2 * ratio(one, two, cpuMicros) }
