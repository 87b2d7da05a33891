package metrics

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/test/verify"
)

// Names of others may have any bytes: none of them ends a scrape.
func TestLabelsAreMadeValid(t *testing.T) {
	var d Descriptions
	value, latencies := d.New("value", "A value.", "service"), d.New("latencies", "Latencies.", "service")
	registry := prometheus.NewRegistry()
	registry.MustRegister(d.Collector(func(s Series) {
		s.Gauge(value, 1, "a\xff")
		s.Histogram(latencies, new(RequestsSnapshot), "a\xff")
	}))
	families, err := registry.Gather()
	verify.NoError(t, err)
	verify.Equal(t, len(families), 2, "metrics")
	for _, f := range families {
		verify.Equal(t, f.GetMetric()[0].GetLabel()[0].GetValue(), "a\ufffd", "the label of %s", f.GetName())
	}
}
