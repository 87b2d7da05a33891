package proxy

import (
	"sluice/proxy/socket"
	"sync/atomic"
	"time"
)

// ConnectionLimits bound how long a connection is used, so that the next one may reach
// another replica. The request that reaches a limit is the last one: HTTP/1 clients get
// Connection: close, HTTP/2 clients GOAWAY, and requests in flight are finished. The limits
// have no effect on tunnels and streams of TCP.
//
// The limits of a connection are up to a tenth lower, so that connections that began
// together do not end together.
type ConnectionLimits struct {
	MaxRequests int           // 0: no limit
	MaxAge      time.Duration // 0: no limit
}

// EndedConnections counts the connections of clients that ConnectionLimits have ended.
type EndedConnections struct{ MaxRequests, MaxAge uint64 }

type endedCounters struct{ maxRequests, maxAge atomic.Uint64 }

// count counts a connection of a client that reached a limit.
func (c *endedCounters) count(reached connectionLimit) {
	switch reached {
	case limitRequests:
		c.maxRequests.Add(1)
	case limitAge:
		c.maxAge.Add(1)
	}
}

// EndedConnections returns the connections that ConnectionLimits have ended so far.
func (s *Server) EndedConnections() EndedConnections {
	return EndedConnections{MaxRequests: s.ended.maxRequests.Load(), MaxAge: s.ended.maxAge.Load()}
}

// A connectionLimit is what a connection has reached.
type connectionLimit uint8

const (
	limitNone connectionLimit = iota
	limitRequests
	limitAge
)

// A lifetime is what ConnectionLimits bound of a connection.
type lifetime struct {
	opened   int64  // coarse time
	number   uint32 // of the connection, for the difference to others
	requests int    // that have begun
	over     bool   // the last request has begun
}

func newLifetime(s *socket.Sweeper, number uint32) lifetime {
	return lifetime{opened: s.Now(), number: number}
}

// begin counts a request, and returns the limit that it reaches: then it is the last one.
func (l *lifetime) begin(s *socket.Sweeper, limits *ConnectionLimits) connectionLimit {
	l.requests++
	switch {
	case l.over:
		return limitNone
	case limits.MaxRequests > 0 && int64(l.requests) >= l.earlier(int64(limits.MaxRequests)):
		l.over = true
		return limitRequests
	case limits.MaxAge > 0 && s.Now()-l.opened >= l.earlier(int64(limits.MaxAge)):
		l.over = true
		return limitAge
	}
	return limitNone
}

// earlier returns the limit of the connection, which is up to a tenth lower. The multiples of
// the golden ratio spread successive connections evenly.
func (l *lifetime) earlier(limit int64) int64 {
	const goldenRatio = 0x9e3779b9 // of 2³²
	return limit - int64(float64(limit)/10*float64(l.number*goldenRatio)/(1<<32))
}
