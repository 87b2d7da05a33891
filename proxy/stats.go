package proxy

import (
	"sync/atomic"

	"sluice/proxy/socket"
)

// HTTP2Stats are what ended HTTP/2 streams and connections of a server's clients early.
type HTTP2Stats struct {
	ResetsReceived     uint64 // streams that clients reset
	ResetsSent         uint64 // streams that sluice reset, without the refused ones
	RefusedStreams     uint64 // beyond the streams of a connection
	RefusedConnections uint64 // streams beyond the limits of connections
	GoAways            uint64 // connections that ended by a timeout, a drain or a shutdown
	Errors             uint64 // connections that ended by a fault of the client
}

// http2Counters count HTTP2Stats. It is safe for concurrent use.
type http2Counters struct {
	resetsReceived, resetsSent         atomic.Uint64
	refusedStreams, refusedConnections atomic.Uint64
	goAways, errors                    atomic.Uint64
}

// HTTP2 returns what ended HTTP/2 streams and connections of clients early so far.
func (s *Server) HTTP2() HTTP2Stats {
	c := &s.http2
	return HTTP2Stats{
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

// EndedConnections returns the connections that ConnectionLimits have ended so far.
func (s *Server) EndedConnections() EndedConnections {
	return EndedConnections{MaxRequests: s.ended.maxRequests.Load(), MaxAge: s.ended.maxAge.Load()}
}
