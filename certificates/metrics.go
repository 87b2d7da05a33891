package certificates

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	expiry    = descriptions.New("certificate_expiry_timestamp_seconds", "When a certificate expires, as Unix time: the first of its chain, or the last of trusted ones, or the first of lists of revoked ones.", "used_by", "file")
	fileError = descriptions.New("certificate_file_error", "1 if the present file cannot be used, so that an earlier version is in use; else 0.", "used_by", "file")
)

// Usage is the state of a certificate, and its use.
type Usage struct {
	UsedBy string // for people: `listener "web"`
	Status
}

// Metrics returns the collector of what read returns.
func Metrics(read func() []Usage) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		expires, faults := make(map[[2]string]time.Time), make(map[[2]string]bool)
		for _, u := range read() { // two services may have the same file
			key := [2]string{u.UsedBy, u.File}
			if faults[key] = u.Fault != nil; u.Kind != KindTicketKeys {
				expires[key] = u.Expires
			}
		}
		for key, at := range expires {
			s.Timestamp(expiry, at, key[0], key[1])
		}
		for key, fault := range faults {
			s.Flag(fileError, fault, key[0], key[1])
		}
	})
}
