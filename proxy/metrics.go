package proxy

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
	"sluice/proxy/socket"
)

var descriptions metrics.Descriptions

var (
	unroutedTotal     = descriptions.New("unrouted_requests_total", "Requests without a service: no route matched, or they were malformed.", "class")
	unroutedResponses = descriptions.New("unrouted_responses_total", "Answers to requests without a service, by status and reason.", "status", "reason")

	handshakesTotal   = descriptions.New("tls_handshakes_total", "TLS handshakes of clients by result.", "result")
	handshakesOpen    = descriptions.New("tls_handshakes_in_progress", "TLS handshakes whose ClientHello has arrived.")
	handshakesWaiting = descriptions.New("tls_handshakes_waiting", "TLS handshakes that wait because too many are in progress, or for a processor.")

	http2ResetsTotal  = descriptions.New("http2_resets_total", "HTTP/2 streams of clients that were reset.", "by")
	http2RefusedTotal = descriptions.New("http2_refused_streams_total", "HTTP/2 streams of clients that were refused by a limit.", "limit")
	http2EndedTotal   = descriptions.New("http2_ended_connections_total", "HTTP/2 connections of clients that sluice ended, by cause.", "cause")

	connectionsOpen    = descriptions.New("client_connections", "Open client connections.")
	connectionsEnded   = descriptions.New("client_connections_ended_total", "Client connections that reached a limit of client.connections.", "reason")
	connectionsLimit   = descriptions.New("client_connections_limit", "Limit of open client connections.")
	connectionsRefused = descriptions.New("client_connections_refused_total", "Client connections that a limit of connections refused.")
)

// Stats are the counters of a [Server] that belong to no service.
type Stats struct {
	Unrouted          metrics.RequestsSnapshot // requests that match no route or are malformed
	UnroutedResponses []metrics.Response       // of these
	Handshakes        socket.HandshakeStats
	HTTP2             HTTP2Stats
	Connections       int // open ones of clients
	ConnectionLimit   int // of Connections
	Ended             EndedConnections
	Refused           uint64 // connections of clients that exceeded a limit
}

// Stats returns the counters since the start.
func (s *Server) Stats() Stats {
	h := &s.http2
	return Stats{
		Unrouted: s.requests.Snapshot(), UnroutedResponses: s.requests.Responses(), Handshakes: s.handshakes.Stats(),
		HTTP2: HTTP2Stats{
			ResetsReceived: h.resetsReceived.Load(), ResetsSent: h.resetsSent.Load(),
			RefusedStreams: h.refusedStreams.Load(), RefusedConnections: h.refusedConnections.Load(),
			GoAways: h.goAways.Load(), Errors: h.errors.Load(),
		},
		Connections: s.Connections(), ConnectionLimit: s.options.Load().Limits.Connections,
		Ended:   EndedConnections{MaxRequests: s.ended.maxRequests.Load(), MaxAge: s.ended.maxAge.Load()},
		Refused: s.refused.Load(),
	}
}

// Metrics returns the collector of what read returns.
func Metrics(read func() Stats) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		stats := read()
		for class := range metrics.Class(metrics.NumClasses) {
			s.Counter(unroutedTotal, stats.Unrouted.Class(class), class.String())
		}
		for _, r := range stats.UnroutedResponses {
			s.Counter(unroutedResponses, r.Count, r.Status, r.Reason)
		}
		s.Counter(handshakesTotal, stats.Handshakes.Full, "full")
		s.Counter(handshakesTotal, stats.Handshakes.Resumed, "resumed")
		s.Counter(handshakesTotal, stats.Handshakes.Failed, "failed")
		s.Gauge(handshakesOpen, float64(stats.Handshakes.InProgress))
		s.Gauge(handshakesWaiting, float64(stats.Handshakes.Waiting))
		s.Counter(http2ResetsTotal, stats.HTTP2.ResetsReceived, "client")
		s.Counter(http2ResetsTotal, stats.HTTP2.ResetsSent, "sluice")
		s.Counter(http2RefusedTotal, stats.HTTP2.RefusedStreams, "streams")
		s.Counter(http2RefusedTotal, stats.HTTP2.RefusedConnections, "connections")
		s.Counter(http2EndedTotal, stats.HTTP2.GoAways, "drain")
		s.Counter(http2EndedTotal, stats.HTTP2.Errors, "error")
		s.Gauge(connectionsOpen, float64(stats.Connections))
		s.Counter(connectionsEnded, stats.Ended.MaxRequests, "max_requests")
		s.Counter(connectionsEnded, stats.Ended.MaxAge, "max_age")
		s.Gauge(connectionsLimit, float64(stats.ConnectionLimit))
		s.Counter(connectionsRefused, stats.Refused)
	})
}

// HTTP2Stats are what ended HTTP/2 streams and connections of a server's clients early.
type HTTP2Stats struct {
	ResetsReceived     uint64 // streams that clients reset
	ResetsSent         uint64 // streams that sluice reset, without the refused ones
	RefusedStreams     uint64 // beyond the streams of a connection
	RefusedConnections uint64 // streams beyond the limits of connections
	GoAways            uint64 // connections that ended by a timeout, a drain or a shutdown
	Errors             uint64 // connections that ended by a fault of the client
}

// streamCounters count StreamStats. They are safe for concurrent use.
type streamCounters struct {
	resetsReceived, resetsSent         atomic.Uint64
	refusedStreams, refusedConnections atomic.Uint64
	goAways, errors                    atomic.Uint64
}

// EndedConnections counts the connections of clients that ConnectionLimits have ended.
type EndedConnections struct{ MaxRequests, MaxAge uint64 }

type endedCounters struct{ maxRequests, maxAge atomic.Uint64 }

// count counts a connection of a client that reached a limit.
func (c *endedCounters) count(reached socket.ReachedLimit) {
	switch reached {
	case socket.LimitRequests:
		c.maxRequests.Add(1)
	case socket.LimitAge:
		c.maxAge.Add(1)
	}
}
