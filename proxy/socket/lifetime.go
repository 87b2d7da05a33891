package socket

import (
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
	MaxRequests int           `key:"max_requests" default:"0" min:"0" max:"1000000000"` // 0: no limit
	MaxAge      time.Duration `key:"max_age" default:"0s" min:"0s" max:"720h"`          // 0: no limit
}

// A ReachedLimit is what a connection has reached.
type ReachedLimit uint8

const (
	LimitNone ReachedLimit = iota
	LimitRequests
	LimitAge
)

// A Lifetime is what ConnectionLimits bound of a connection.
type Lifetime struct {
	opened   int64  // coarse time
	number   uint32 // of the connection, for the difference to others
	requests int    // that have begun
	Over     bool   // the last request has begun
}

func NewLifetime(s *Sweeper, number uint32) Lifetime {
	return Lifetime{opened: s.Now(), number: number}
}

// Begin counts a request, and returns the limit that it reaches: then it is the last one.
func (l *Lifetime) Begin(s *Sweeper, limits *ConnectionLimits) ReachedLimit {
	l.requests++
	switch {
	case l.Over:
		return LimitNone
	case limits.MaxRequests > 0 && int64(l.requests) >= l.earlier(int64(limits.MaxRequests)):
		l.Over = true
		return LimitRequests
	case limits.MaxAge > 0 && s.Now()-l.opened >= l.earlier(int64(limits.MaxAge)):
		l.Over = true
		return LimitAge
	}
	return LimitNone
}

// earlier returns the limit of the connection, which is up to a tenth lower. The multiples of
// the golden ratio spread successive connections evenly.
func (l *Lifetime) earlier(limit int64) int64 {
	const goldenRatio = 0x9e3779b9 // of 2³²
	return limit - int64(float64(limit)/10*float64(l.number*goldenRatio)/(1<<32))
}
