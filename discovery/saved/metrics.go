package saved

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	snapshotWritten = descriptions.New("snapshot_last_write_timestamp_seconds", "When the snapshot was last written, as Unix time.")
	snapshotErrors  = descriptions.New("snapshot_errors_total", "Failed attempts to write the snapshot.")
)

// Metrics returns the collector of what read returns.
func Metrics(read func() Status) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		status := read()
		s.Timestamp(snapshotWritten, status.Written)
		s.Counter(snapshotErrors, status.Errors)
	})
}
