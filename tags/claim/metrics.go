package claim

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var tagProblems = descriptions.New("tag_problems", "Tags of instances that are not used as they are, by why, and by whether the route exists nevertheless.", "kind", "harmless")

// Metrics returns the collector of what read returns.
func Metrics(read func() []Problem) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		type effect struct {
			kind     Kind
			harmless bool
		}
		count := make(map[effect]int)
		for _, p := range read() {
			count[effect{p.Kind, p.Harmless}]++
		}
		for _, kind := range Kinds() {
			for _, harmless := range []bool{false, true} {
				s.Gauge(tagProblems, float64(count[effect{kind, harmless}]), string(kind), strconv.FormatBool(harmless))
			}
		}
	})
}
