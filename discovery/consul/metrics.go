package consul

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	queriesTotal      = descriptions.New("consul_queries_total", "Requests to Consul, including probes of its agents.")
	errorsTotal       = descriptions.New("consul_errors_total", "Requests to Consul without an answer or with an error.")
	limitedTotal      = descriptions.New("consul_rate_limited_total", "Requests to Consul with the answer 429: the agent limits the requests of a client address.")
	receivedBytes     = descriptions.New("consul_received_bytes_total", "Octets received from Consul, with headers and TLS.")
	sentBytes         = descriptions.New("consul_sent_bytes_total", "Octets sent to Consul, with headers and TLS.")
	connectionsOpen   = descriptions.New("consul_connections", "Open connections to Consul.")
	connectionsOpened = descriptions.New("consul_connections_opened_total", "Connections opened to Consul.")
	queryLimit        = descriptions.New("consul_query_limit", "Limit of concurrent queries to Consul; lower after an answer 429.")
	watchesOf         = descriptions.New("consul_watches", "Watched services, by how a change is seen.", "by")
)

// Metrics returns the collector of what read returns: see [Sources.Stats].
func Metrics(read func() Stats) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		stats := read()
		s.Counter(queriesTotal, stats.Queries)
		s.Counter(errorsTotal, stats.Errors)
		s.Counter(limitedTotal, stats.Refused)
		s.Counter(receivedBytes, stats.BytesReceived)
		s.Counter(sentBytes, stats.BytesSent)
		s.Gauge(connectionsOpen, float64(stats.Connections))
		s.Counter(connectionsOpened, stats.Opened)
		s.Gauge(queryLimit, float64(stats.Limit))
		s.Gauge(watchesOf, float64(stats.Watches-stats.OnOverview+stats.Direct), "query")
		s.Gauge(watchesOf, float64(stats.OnOverview-stats.Direct), "overview")
	})
}
