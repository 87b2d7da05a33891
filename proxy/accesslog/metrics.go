package accesslog

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var droppedLines = descriptions.New("access_log_dropped_lines_total", "Access log lines dropped because the output was too slow or failed.")

// Metrics returns the collector of what read returns: see [Logger.Dropped].
func Metrics(read func() uint64) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) { s.Counter(droppedLines, read()) })
}
