//go:build linux

package main

import (
	"math"
	"strings"
	"testing"
	"time"
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
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

// A slow machine in one round slows both proxies in it, which must not show.
func TestRatioIsTakenWithinARound(t *testing.T) {
	baseline := rounds(10*time.Microsecond, 20*time.Microsecond, 40*time.Microsecond)
	other := rounds(9*time.Microsecond, 18*time.Microsecond, 36*time.Microsecond)
	if got := ratio(other, baseline, cpuMicros); math.Abs(got-0.9) > 1e-9 {
		t.Errorf("ratio = %v, want 0.9", got)
	}
	if got := spread(baseline, cpuMicros); got != 1 {
		t.Errorf("spread = %v, want 1: the farthest round is twice the median", got)
	}
}

func TestReportHasRatiosToThoseWhoTookPart(t *testing.T) {
	r := result{Workload: "small", About: "small requests", baselines: baselines, Series: []series{
		{Proxy: "nginx", Rounds: rounds(10 * time.Microsecond)},
		{Proxy: "sluice", Rounds: rounds(9 * time.Microsecond)},
	}}
	var b strings.Builder
	if err := r.write(&b); err != nil {
		t.Fatal(err)
	}
	want := `### small: small requests

| proxy  | CPU µs/req | user | system |   ± | CPU × nginx | req/s | p50 ms | p99 ms | MiB |
|--------|-----------:|-----:|-------:|----:|------------:|------:|-------:|-------:|----:|
| nginx  |      10.00 | 2.50 |   7.50 | 0 % |       1.000 |  1000 |      – |      – | 0.0 |
| sluice |       9.00 | 2.25 |   6.75 | 0 % |       0.900 |  1000 |      – |      – | 0.0 |

`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The machine is half as fast in the second round, for one core and for two.
func TestScalingIsTakenWithinARound(t *testing.T) {
	r := result{Workload: "twocores", work: workload{kind: kindWide}, Series: []series{
		{Proxy: "sluice-one", Rounds: rounds(9*time.Microsecond, 18*time.Microsecond)},
		{Proxy: "sluice", Rounds: rounds(10*time.Microsecond, 20*time.Microsecond)},
	}}
	rows := r.rows()
	if len(rows) != 2 || rows[1][0] != "sluice" || rows[1][5] != "1.80" {
		t.Errorf("rows = %q, want 1.80", rows)
	}
}

func TestFailedRequestsAreReported(t *testing.T) {
	clean := result{Workload: "small", Series: []series{{Proxy: "sluice", Rounds: rounds(1)}}}
	if lines := clean.failures(); len(lines) != 0 {
		t.Errorf("clean rounds reported: %v", lines)
	}
	clean.Series[0].Rounds[0].Load.Status = 1
	if lines := clean.failures(); len(lines) != 1 || !strings.Contains(lines[0], "sluice") {
		t.Errorf("failures = %v, want one that names the proxy", lines)
	}
}
