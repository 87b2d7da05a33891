package compression

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	compressed       = descriptions.New("compressed_responses_total", "Responses that sluice has compressed.", "encoding")
	inputBytes       = descriptions.New("compression_input_bytes_total", "Octets of content before sluice compressed it.", "encoding")
	outputBytes      = descriptions.New("compression_output_bytes_total", "Octets of content after sluice compressed it.", "encoding")
	memoryBytes      = descriptions.New("compression_memory_bytes", "Estimated memory of the responses that sluice compresses now.")
	skippedResponses = descriptions.New("compression_skipped_total", "Responses that sluice did not compress because of client.limits.compression.")
)

// Metrics returns the collector of what read returns.
func Metrics(read func() Stats) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		stats := read()
		for _, e := range stats.Encodings {
			s.Counter(compressed, e.Responses, e.Encoding.String())
			s.Counter(inputBytes, e.BytesIn, e.Encoding.String())
			s.Counter(outputBytes, e.BytesOut, e.Encoding.String())
		}
		s.Gauge(memoryBytes, float64(stats.InUseBytes))
		s.Counter(skippedResponses, stats.Skipped)
	})
}
