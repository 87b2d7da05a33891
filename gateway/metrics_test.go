package gateway

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/test/verify"
)

// A part whose collector is not registered would have no metrics.
func TestGatewayRegistersTheMetricsOfAllParts(t *testing.T) {
	t.Parallel()
	r := start(t, "listeners: [{ address: '127.0.0.1:0' }]\naccess_log: { path: 'off' }\nadmin: { address: '127.0.0.1:0' }\n"+static("star", "127.0.0.1:1"))
	declared := make(chan *prometheus.Desc)
	registry := r.Gateway.metrics()
	go func() {
		defer close(declared)
		registry.Describe(declared)
	}()
	var got, want []string
	for d := range declared {
		if name := regexp.MustCompile(`"(sluice_\w+)"`).FindStringSubmatch(d.String()); name != nil {
			got = append(got, name[1])
		}
	}
	text := verify.Result(os.ReadFile("../docs/metrics.md")).Must(t)
	for _, row := range regexp.MustCompile("(?m)^\\| `(sluice_\\w+)` \\|").FindAllStringSubmatch(string(text), -1) {
		want = append(want, row[1])
	}
	slices.Sort(got)
	slices.Sort(want)
	verify.That(t, slices.Equal(got, want), "the gateway has the metrics\n%q\ndocs/metrics.md has\n%q", got, want)
}
