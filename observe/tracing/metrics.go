package tracing

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var spansTotal = descriptions.New("trace_spans_total", "Spans by result: exported, dropped because too many waited for the collector, or failed because it did not take them.", "result")

// Metrics returns the collector of what read returns: see [Counters.Read].
func Metrics(read func() Counts) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		counts := read()
		s.Counter(spansTotal, counts.Exported, "exported")
		s.Counter(spansTotal, counts.Dropped, "dropped")
		s.Counter(spansTotal, counts.Failed, "failed")
	})
}
