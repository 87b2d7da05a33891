package chain

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var problems = descriptions.New("discovery_chain_problems", "Parts of the service's discovery chain in Consul that are not carried out.", "service")

// Metrics returns the collector of what read returns: the number of problems by service.
func Metrics(read func() map[string]int) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		s, numbers := s.PerService(), read()
		for _, service := range slices.Sorted(maps.Keys(numbers)) {
			s.Gauge(problems, float64(numbers[service]), service)
		}
	})
}
