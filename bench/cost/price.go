//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/bench/machine"
	"sluice/bench/markdown"
)

// priceRounds is how often each feature is measured; the least of each count is in the table.
const priceRounds = 2

// A feature is what a configuration has besides the defaults: texts for its places in
// conf/sluice.yaml.
type feature struct {
	name      string
	compared  string // name of the feature whose counts are subtracted; "" for the defaults
	peers     int    // 0 is one
	refuse    bool   // the last peer refuses connections
	AccessLog string // instead of a JSON log in a file
	Client    string
	Service   string
	Route     string
	More      string
}

// tenPeers is what policies are compared with: ewma is the default.
const tenPeers = "10 peers, policy `ewma` (the default)"

// twoPeers is what a retry is compared with.
const twoPeers = "2 peers, `round_robin`"

// features in the order of the table. collector is the URL of a collector of spans.
func features(collector string) []feature {
	all := []feature{
		{name: "access log off", AccessLog: "path: off"},
		{name: "access log `combined`", AccessLog: `path: "{{.Dir}}/access.log", format: combined`},
		{name: "access log, a template of 5 variables", AccessLog: `path: "{{.Dir}}/access.log", format: "$client $request_id $trace_id $http_x_a $tries"`},
		{name: "access log, `sample: 1%`", AccessLog: `path: "{{.Dir}}/access.log", sample: 1%`},
		{name: "`client.request_id`", Client: "request_id: true"},
		{name: "tracing, the request is not sampled", More: fmt.Sprintf("tracing: { otlp: %q, sample: 0 }", collector)},
		{name: "tracing, the request is sampled", More: fmt.Sprintf("tracing: { otlp: %q, sample: 1 }", collector)},
		{name: "`limits.adaptive`", Service: "limits: { adaptive: true }"},
		{name: "`limits.requests` and `connections_per_peer`", Service: "limits: { requests: 1000, connections_per_peer: 100 }"},
		{name: "`rate_limit` by address", Route: "rate_limit: { rate: 1000000 }"},
		{name: "a header set, one removed", Route: "request_headers: { set: { X-A: \"$host\" }, remove: [Cookie] }"},
		{name: "`compress`, the answer is too short", Route: "compress: { min_length: 1KiB }"},
		{name: "`allow` and `deny`", Route: `allow: ["127.0.0.0/8"], deny: ["127.9.0.0/16"]`},
		{name: tenPeers, peers: 10},
	}
	for _, policy := range []string{"round_robin", "random", "least_conn", "hash", "sticky"} {
		all = append(all, feature{name: fmt.Sprintf("10 peers, `%s`", policy), compared: tenPeers, peers: 10, Service: "balance: { policy: " + policy + " }"})
	}
	const retried = "balance: { policy: round_robin }, retry: { budget: 10 }, health: { passive: { consecutive_failures: 0 } }"
	return append(all,
		feature{name: twoPeers, peers: 2, Service: retried},
		feature{name: "every second request is tried at two peers: the first refuses the connection", compared: twoPeers, peers: 2, refuse: true, Service: retried},
	)
}

// price counts what each feature costs, and returns the table.
func (b *bench) price(ctx context.Context, command string) (string, error) {
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer collector.Close()
	all := append([]feature{{name: ""}}, features(collector.URL)...)
	timed, err := timings(ctx)
	if err != nil {
		return "", err
	}
	w := works[0]
	counted := make(map[string]counts)
	for round := range priceRounds {
		for _, f := range all {
			f.AccessLog = strings.ReplaceAll(f.AccessLog, "{{.Dir}}", b.dir)
			c, err := b.measure(ctx, w, f)
			if err != nil {
				return "", fmt.Errorf("%s: %w", f.name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, priceRounds, f.name)
			if counted[f.name] == nil {
				counted[f.name] = c
			}
			counted[f.name].lower(c)
		}
	}
	base := counted[""]
	text := fmt.Sprintf("\n<!-- illustration: takes minutes -->\n```sh\n%s\n```\n\nOn %s; %s. The request without any of these, with an access log in JSON: %.2f system calls, %.2f allocations.\n\n",
		strings.TrimSpace(command), time.Now().UTC().Format(time.DateOnly), machine.Describe(machine.Commit(ctx)), base.calls(), base[countObjects])
	rows := [][]string{{"what a request costs more with", "system calls", "allocations", "bytes"}}
	for _, f := range all[1:] {
		c, without := counted[f.name], counted[f.compared]
		rows = append(rows, []string{f.name, difference("%+.1f", c.calls(), without.calls()), difference("%+.1f", c[countObjects], without[countObjects]),
			difference("%+.0f", c[countBytes], without[countBytes])})
	}
	return text + markdown.Table(rows) + "\n" + markdown.Table(timed) + "\n", nil
}

// rounding is, by format, below which difference nothing is written: a request's share of what
// happens each second.
var rounding = map[string]float64{"%+.1f": 0.05, "%+.0f": 20}

// difference writes what a feature adds; what rounds to nothing is 0.
func difference(format string, with, without float64) string {
	text := fmt.Sprintf(format, with-without)
	if strings.Trim(text, "+-0.") == "" || math.Abs(with-without) < rounding[format] {
		return "0"
	}
	return text
}

// lower lowers each count to that of other.
func (c counts) lower(other counts) {
	for name := range c {
		c[name] = min(c[name], other[name])
	}
}

// scheduling are the system calls of Go's scheduler, whose number depends on the machine.
var scheduling = []string{"epoll_pwait", "futex", "nanosleep", "sched_yield", "madvise", "rt_sigreturn", "tgkill", "getpid", "restart_syscall"}

// calls is the number of system calls, without those of the scheduler.
func (c counts) calls() (sum float64) {
	for name, count := range c {
		name = strings.TrimSuffix(name, again)
		switch name {
		case countObjects, countBytes, countInstructed, countLive, countNanoseconds:
		default:
			if !slices.Contains(scheduling, name) {
				sum += count
			}
		}
	}
	return sum
}
