package auth

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	keyCount    = descriptions.New("token_keys", "Public keys of an issuer of tokens that are in use.", "source")
	keyAge      = descriptions.New("token_keys_age_seconds", "Time since the keys of an issuer of tokens were read; absent before.", "source")
	keyFailures = descriptions.New("token_keys_failures_total", "Attempts to read the keys of an issuer of tokens that failed.", "source")
)

// Metrics returns the collector of what read returns. No two of them have the same source.
func Metrics(read func() []KeySetStatus) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		for _, k := range read() {
			s.Gauge(keyCount, float64(len(k.Keys)), k.Source)
			if !k.Read.IsZero() {
				s.Gauge(keyAge, time.Since(k.Read).Seconds(), k.Source)
			}
			s.Counter(keyFailures, k.Failures, k.Source)
		}
	})
}
