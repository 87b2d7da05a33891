//go:build linux

package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

// rounds makes rounds of 1,000 requests with the given CPU times per request.
func rounds(perRequest ...time.Duration) []round {
	var all []round
	for _, d := range perRequest {
		all = append(all, round{Load: loadResult{Requests: 1000, Took: time.Second}, CPU: 1000 * d, UserShare: 0.25})
	}
	return all
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 2, 100}, 3},
	} {
		verify.Equal(t, median(c.values), c.want, "median(%v)", c.values)
	}
}

// A slow machine in one round slows both proxies in it, which must not show.
func TestRatioIsTakenWithinARound(t *testing.T) {
	baseline := rounds(10*time.Microsecond, 20*time.Microsecond, 40*time.Microsecond)
	other := rounds(9*time.Microsecond, 18*time.Microsecond, 36*time.Microsecond)
	got := ratio(other, baseline, cpuMicros)
	verify.That(t, math.Abs(got-0.9) <= 1e-9, "ratio = %v, want 0.9", got)
	verify.Equal(t, spread(baseline, cpuMicros), 1, "spread")
}

func TestReportHasRatiosToThoseWhoTookPart(t *testing.T) {
	r := result{Workload: "small", About: "small requests", baselines: baselines, Series: []series{
		{Proxy: "nginx", Rounds: rounds(10 * time.Microsecond)},
		{Proxy: "sluice", Rounds: rounds(9 * time.Microsecond)},
	}}
	var b strings.Builder
	verify.NoError(t, r.write(&b))
	want := `### small: small requests

| proxy  | CPU µs/req | user | system |   ± | CPU × nginx | req/s | p50 ms | p99 ms | MiB |
|--------|-----------:|-----:|-------:|----:|------------:|------:|-------:|-------:|----:|
| nginx  |      10.00 | 2.50 |   7.50 | 0 % |       1.000 |  1000 |      – |      – | 0.0 |
| sluice |       9.00 | 2.25 |   6.75 | 0 % |       0.900 |  1000 |      – |      – | 0.0 |

`
	got := b.String()
	verify.That(t, got == want, "got\n%s\nwant\n%s", got, want)
}

// The machine is half as fast in the second round, for one core and for two.
func TestScalingIsTakenWithinARound(t *testing.T) {
	r := result{Workload: "twocores", work: workload{kind: kindWide}, Series: []series{
		{Proxy: "sluice-one", Rounds: rounds(9*time.Microsecond, 18*time.Microsecond)},
		{Proxy: "sluice", Rounds: rounds(10*time.Microsecond, 20*time.Microsecond)},
	}}
	rows := r.rows()
	verify.That(t, len(rows) == 2 && rows[1][0] == "sluice" && rows[1][5] == "1.80", "rows = %q, want 1.80", rows)
}

func TestFailedRequestsAreReported(t *testing.T) {
	clean := result{Workload: "small", Series: []series{{Proxy: "sluice", Rounds: rounds(1)}}}
	lines := clean.failures()
	verify.That(t, len(lines) == 0, "clean rounds reported: %v", lines)
	clean.Series[0].Rounds[0].Load.Status = 1
	lines = clean.failures()
	verify.That(t, len(lines) == 1 && strings.Contains(lines[0], "sluice"), "failures = %v, want one that names the proxy", lines)
}
