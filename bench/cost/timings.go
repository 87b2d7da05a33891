//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// timed are the benchmarks of parts of a request, or of what happens beside them.
var timed = []struct{ pkg, pattern, about string }{
	{"observe/metrics", "Observe$", "counting a request"},
	{"proxy/accesslog", "Log$", "a line of the access log"},
	{"balancer", "Pick/^(ewma|round_robin|least_conn|hash)$/^1$/^10$", "picking one of 10 peers, and its end"},
	{"admin/series", "Sample", "a sample of the series of 1,000 services with 10 peers each"},
}

// timings runs the benchmarks and returns their results as a table.
func timings(ctx context.Context) ([][]string, error) {
	rows := [][]string{{"part", "ns (noisy; least of five)", "bytes", "allocations"}}
	for _, t := range timed {
		out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", t.pattern, "-benchmem", "-benchtime", "100ms", "-count", "5", "sluice/"+t.pkg).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("benchmarks of %s: %w\n%s", t.pkg, err, out)
		}
		results := parseTimings(string(out))
		if len(results) == 0 {
			return nil, fmt.Errorf("%s has no benchmark %s:\n%s", t.pkg, t.pattern, out)
		}
		for _, r := range results {
			rows = append(rows, append([]string{fmt.Sprintf("%s (`%s`)", t.about, r[0])}, r[1:]...))
		}
	}
	return rows, nil
}

// parseTimings returns name, ns, bytes and allocations of each benchmark of go test -bench
// -benchmem -count: of several lines, the one with the least time.
func parseTimings(output string) (results [][]string) {
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		if len(fields) < 8 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 { // the number of processors
			name = name[:i]
		}
		values := map[string]string{}
		for i := 2; i+1 < len(fields); i += 2 {
			values[fields[i+1]] = fields[i]
		}
		next := []string{name, values["ns/op"], values["B/op"], values["allocs/op"]}
		i := slices.IndexFunc(results, func(r []string) bool { return r[0] == name })
		if i < 0 {
			results = append(results, next)
		} else if nanoseconds(next) < nanoseconds(results[i]) {
			results[i] = next
		}
	}
	return results
}

func nanoseconds(result []string) float64 {
	ns, err := strconv.ParseFloat(result[1], 64)
	if err != nil {
		return math.Inf(1)
	}
	return ns
}
