package operator

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	ordersInForce = descriptions.New("orders", "Orders of operators that are in force, by what they order.", "kind")
	writeFailed   = descriptions.New("orders_write_failed", "1 if the last write of an order to Consul failed: other replicas may not know it; else 0.")
)

// Metrics returns the collector of what read returns.
func Metrics(read func() Stats) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		stats := read()
		for kind, n := range stats.InForce {
			s.Gauge(ordersInForce, float64(n), string(kind))
		}
		if stats.Shared {
			s.Flag(writeFailed, stats.WriteFailed)
		}
	})
}
