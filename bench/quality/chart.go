//go:build linux

package main

import (
	"fmt"
	"math"
	"strings"
)

// chartStyle has colours that can be read on a light page and on a dark one.
const chartStyle = `<style>
text { font: 13px sans-serif; fill: #57606a } .p99 { fill: #4493f8 } .p999 { fill: #e5534b }
line { stroke: #8b949e; stroke-width: 1 } .best { stroke: #57ab5a; stroke-width: 2 }
</style>
`

// chart shows p99 and p99.9 of all proxies in a scenario as bars on a logarithmic scale, and the best possible
// p99.9 as a line.
func chart(s *play, rows []row) string {
	const left, width, line, top = 140, 480, 40, 46
	least, most := math.Inf(1), 0.0
	for _, r := range rows {
		least, most = min(least, r.best.P50), max(most, r.latency.P999)
	}
	least = math.Pow(10, math.Floor(math.Log10(max(least, 0.1))))
	most = max(math.Pow(10, math.Ceil(math.Log10(max(most, 1)))), 10*least)
	x := func(ms float64) float64 { return width * math.Log(max(ms, least)/least) / math.Log(most/least) }
	height := top + line*len(rows) + 10
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">`+"\n%s", left+width+80, height, left+width+80, height, chartStyle)
	fmt.Fprintf(&b, `<text x="10" y="18">%s: p99 (blue), p99.9 (red), best possible p99.9 (green)</text>`+"\n", s.name)
	for ms := least; ms < most*1.01; ms *= 10 {
		fmt.Fprintf(&b, `<line x1="%.0f" x2="%.0f" y1="%d" y2="%d" opacity="0.4"/><text x="%.0f" y="%d">%s</text>`+"\n",
			left+x(ms), left+x(ms), top-14, height-10, left+x(ms)+4, top-6, strings.TrimSuffix(fmt.Sprintf("%.1f", ms), ".0")+" ms")
	}
	for i, r := range rows {
		y := top + line*i + 4
		fmt.Fprintf(&b, `<text x="10" y="%d">%s</text>`+"\n", y+18, r.proxy)
		for n, ms := range []float64{r.latency.P99, r.latency.P999} {
			fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%.0f" height="12"/><text x="%.0f" y="%d">%s</text>`+"\n",
				[]string{"p99", "p999"}[n], left, y+14*n, x(ms), left+x(ms)+5, y+14*n+11, text(ms))
		}
	}
	if len(rows) > 0 {
		fmt.Fprintf(&b, `<line class="best" x1="%.0f" x2="%.0f" y1="%d" y2="%d"/>`+"\n", left+x(rows[0].best.P999), left+x(rows[0].best.P999), top, height-10)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
