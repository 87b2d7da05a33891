package proof

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var violationsTotal = descriptions.New("violations_total", "Rules of balancing that sluice has not kept, by rule; only services with balance.proof are checked.", "kind")

// Metrics returns the collector of p.
func Metrics(p *Proof) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		for k := range Kind(NumKinds) {
			s.Counter(violationsTotal, p.Total(k), k.String())
		}
	})
}
