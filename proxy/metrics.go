package proxy

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
	"sluice/proxy/http3"
	"sluice/proxy/packets"
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

	http3ResetsTotal  = descriptions.New("http3_resets_total", "HTTP/3 streams of clients that were reset.", "by")
	http3RefusedTotal = descriptions.New("http3_refused_streams_total", "HTTP/3 streams of clients that were refused by a limit.", "limit")
	http3EndedTotal   = descriptions.New("http3_ended_connections_total", "HTTP/3 connections of clients that sluice ended, by cause.", "cause")
	http3RetriesTotal = descriptions.New("http3_retries_total", "HTTP/3 clients that had to prove their address before the handshake.")
	http3PacketsTotal = descriptions.New("http3_packets_total", "UDP packets that were passed to the process before this one, or lost on the way.", "listener", "fate")
	http3BufferBytes  = descriptions.New("http3_receive_buffer_bytes", "Size of the kernel's buffer of received UDP packets.", "listener")

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
	HTTP2, HTTP3      StreamStats
	HTTP3Retries      uint64                    // clients that had to prove their address
	Packets           map[string]packets.Counts // by the name of a listener with HTTP/3
	Connections       int                       // open ones of clients
	ConnectionLimit   int                       // of Connections
	Ended             EndedConnections
	Refused           uint64 // connections of clients that exceeded a limit
}

// Stats returns the counters since the start.
func (s *Server) Stats() Stats {
	return Stats{
		Unrouted: s.requests.Snapshot(), UnroutedResponses: s.requests.Responses(), Handshakes: s.handshakes.Stats(),
		HTTP2: s.http2.stats(), HTTP3: s.http3.stats(), HTTP3Retries: s.http3Retries.Load(), Packets: s.packets(),
		Connections: s.Connections(), ConnectionLimit: s.options.Load().Limits.Connections,
		Ended:   EndedConnections{MaxRequests: s.ended.maxRequests.Load(), MaxAge: s.ended.maxAge.Load()},
		Refused: s.refused.Load(),
	}
}

// packets returns the counts of the sockets of HTTP/3.
func (s *Server) packets() map[string]packets.Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]packets.Counts)
	for l := range s.listeners {
		if e, ok := l.Listener.(*http3.Endpoint); ok {
			all[l.Name] = e.Counts()
		}
	}
	return all
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
		s.Counter(http3ResetsTotal, stats.HTTP3.ResetsReceived, "client")
		s.Counter(http3ResetsTotal, stats.HTTP3.ResetsSent, "sluice")
		s.Counter(http3RefusedTotal, stats.HTTP3.RefusedConnections, "connections")
		s.Counter(http3EndedTotal, stats.HTTP3.GoAways, "drain")
		s.Counter(http3EndedTotal, stats.HTTP3.Errors, "error")
		s.Counter(http3RetriesTotal, stats.HTTP3Retries)
		for listener, counts := range stats.Packets {
			s.Counter(http3PacketsTotal, counts.Passed, listener, "passed")
			s.Counter(http3PacketsTotal, counts.NotPassed, listener, "not_passed")
			s.Counter(http3PacketsTotal, counts.NotReceived, listener, "not_received")
			s.Gauge(http3BufferBytes, float64(counts.ReceiveBytes), listener)
		}
		s.Gauge(connectionsOpen, float64(stats.Connections))
		s.Counter(connectionsEnded, stats.Ended.MaxRequests, "max_requests")
		s.Counter(connectionsEnded, stats.Ended.MaxAge, "max_age")
		s.Gauge(connectionsLimit, float64(stats.ConnectionLimit))
		s.Counter(connectionsRefused, stats.Refused)
	})
}

// StreamStats are what ended streams and connections of a server's clients early, with one protocol.
type StreamStats struct {
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

func (c *streamCounters) stats() StreamStats {
	return StreamStats{
		ResetsReceived: c.resetsReceived.Load(), ResetsSent: c.resetsSent.Load(),
		RefusedStreams: c.refusedStreams.Load(), RefusedConnections: c.refusedConnections.Load(),
		GoAways: c.goAways.Load(), Errors: c.errors.Load(),
	}
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
