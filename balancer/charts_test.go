package balancer

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The charts are SVG, in colours for light and dark pages.
const chartStyle = `<style>
text { font: 13px sans-serif; fill: #57606a } .normal { fill: #4493f8 } .slow { fill: #e5534b }
line { stroke: #8b949e; stroke-width: 1 } path { fill: none; stroke-width: 2 }
</style>
`

// bar is the p99 of a policy with normal peers and with one slow peer.
type bar struct {
	name         string
	normal, slow time.Duration
}

// slowPeerChart shows bars on a logarithmic scale.
func slowPeerChart(bars []bar) string {
	const left, width, row, top = 110, 520, 46, 40
	least, most := 10*ms, 100*time.Second
	x := func(d time.Duration) float64 {
		return width * math.Log(float64(min(max(d, least), most))/float64(least)) / math.Log(float64(most)/float64(least))
	}
	height := top + row*len(bars) + 10
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">`+"\n", left+width+90, height, left+width+90, height)
	b.WriteString(chartStyle)
	b.WriteString(`<text x="10" y="18">99th percentile of the latency: all peers alike (blue), one of ten 50 × slower (red)</text>` + "\n")
	for d := least; d < most; d *= 10 {
		fmt.Fprintf(&b, `<line x1="%.0f" x2="%.0f" y1="%d" y2="%d" opacity="0.4"/><text x="%.0f" y="%d">%s</text>`+"\n",
			left+x(d), left+x(d), top-4, height-10, left+x(d)+4, top+4, millis(d))
	}
	for i, bar := range bars {
		y := top + row*i + 12
		fmt.Fprintf(&b, `<text x="10" y="%d">%s</text>`+"\n", y+18, bar.name)
		fmt.Fprintf(&b, `<rect class="normal" x="%d" y="%d" width="%.0f" height="12"/><text x="%.0f" y="%d">%s</text>`+"\n",
			left, y, x(bar.normal), left+x(bar.normal)+5, y+11, millis(bar.normal))
		fmt.Fprintf(&b, `<rect class="slow" x="%d" y="%d" width="%.0f" height="12"/><text x="%.0f" y="%d">%s</text>`+"\n",
			left, y+15, x(bar.slow), left+x(bar.slow)+5, y+26, millis(bar.slow))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// slowStartChart shows how a share grows.
func slowStartChart() string {
	const left, top, width, height = 60, 20, 480, 220
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">`+"\n", left+width+110, top+height+50, left+width+110, top+height+50)
	b.WriteString(chartStyle)
	for i := range 3 {
		y := top + height*i/2
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%d" y2="%d" opacity="0.4"/><text x="10" y="%d">%d %%</text>`+"\n", left, left+width, y, y, y+4, 100-50*i)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d">eligible</text><text x="%d" y="%d">slow_start later</text>`+"\n", left, top+height+20, left+width-50, top+height+20)
	for i, line := range []struct {
		aggression float64
		colour     string
	}{{2, "#e5534b"}, {1, "#4493f8"}, {.5, "#57ab5a"}} {
		s := SlowStart{Window: 100, Aggression: line.aggression, MinWeight: .1}
		var path strings.Builder
		for age := range 101 {
			fmt.Fprintf(&path, "%c%.1f,%.1f", "ML"[min(age, 1)], left+width*float64(age)/100, top+height*(1-s.factor(time.Duration(age))))
		}
		fmt.Fprintf(&b, `<path stroke="%s" d="%s"/><text x="%d" y="%d" style="fill:%s">aggression %v</text>`+"\n",
			line.colour, path.String(), left+width+8, top+10+20*i, line.colour, line.aggression)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
