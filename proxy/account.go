package proxy

import (
	"time"

	"sluice/proxy/accesslog"
	"sluice/proxy/grpc"
	"sluice/proxy/http1"
)

// account records the finished exchange in the metrics, its spans and the access log.
func (x *httpExchange) account() {
	x.serving = false
	c := x.client
	duration := time.Since(x.startTime)
	x.observe(duration)
	if !x.counted {
		x.record(duration)
	}
	log := c.server.options.Load().AccessLog
	if !log.Enabled() {
		return
	}
	b := x.in[x.start:x.end]
	// A literal would be built in a copy, which makes the stack of each new connection grow.
	var entry accesslog.Entry
	entry.Time, entry.Duration, entry.Waited, entry.Connect = x.startTime, duration, x.waited(duration), x.connectTime
	entry.Client, entry.User, entry.RequestID, entry.Proto = x.clientAddress(), x.user, x.requestID, c.protocol()
	entry.Status, entry.UpstreamStatus, entry.GRPCStatus = x.status, x.upstreamStatus, x.grpcCode.String()
	entry.BytesIn, entry.BytesOut, entry.Attempts = x.bytesIn, x.bytesOut, x.tries
	entry.Reason, entry.Failed = x.refused, x.statusForMetrics() >= 500
	if x.upstreamTime > 0 {
		entry.Upstream = x.upstreamTime - x.picked.Sub(x.startTime)
	}
	var trace [2 * len(x.span.Trace)]byte
	if !x.span.Trace.IsZero() {
		entry.TraceID = x.span.Trace.Append(trace[:0])
	}
	if x.interrupted != "" {
		entry.Reason = x.interrupted
	}
	if x.head.HTTP10 {
		entry.Proto = "HTTP/1.0"
	}
	if s := c.session; s != nil {
		entry.TLSVersion, entry.TLSCipher, entry.TLSServerName = s.version, s.cipher, s.serverName
	}
	if x.headLength > 0 {
		entry.Method, entry.Target, entry.Host = x.head.MethodName(b), x.head.Target(b), x.head.Authority(b)
		entry.UserAgent = x.head.Find(b, http1.NameUserAgent)
		entry.Referer = x.head.Find(b, http1.NameReferer)
		entry.Head = b[:x.headLength]
		if x.standing.trusted {
			entry.Proxy = c.address
		}
	}
	if x.service != nil {
		entry.Service = x.service.Name
	}
	if x.token.Peer != nil {
		entry.Peer = x.token.Peer.Address()
		if g := x.token.Peer.Group(); g != nil {
			entry.Group = g.Name()
		}
	}
	if x.tried.count > 1 {
		x.logTries(log, &entry, duration)
		return
	}
	log.Log(c.shard, &entry)
}

// logTries logs an exchange of several tries. It is a function of its own because the memory
// of the tries would be cleared for each request, and would make the stack of each new
// connection grow.
func (x *httpExchange) logTries(log *accesslog.Logger, single *accesslog.Entry, duration time.Duration) {
	var tries [maxTried]accesslog.Try
	entry := *single
	entry.Tries = x.tried.appendTries(tries[:0], duration)
	log.Log(x.client.shard, &entry)
}

// waited returns how long the client has waited in an exchange that took that long: a
// tunnel is open as long as its two ends like.
func (x *httpExchange) waited(duration time.Duration) time.Duration {
	if x.counted {
		return x.upstreamTime
	}
	return duration
}

// observe records the exchange, which took that long, in the metrics.
func (x *httpExchange) observe(duration time.Duration) {
	c := x.client
	requests := c.server.requests
	if x.service != nil {
		requests = x.service.Pool.Requests()
	}
	in, out := x.bytesIn, x.bytesOut
	if x.counted {
		in, out = 0, 0
	}
	requests.Observe(c.shard, x.statusForMetrics(), duration, in, out)
	if x.grpcCode != grpc.Unset {
		requests.ObserveGRPC(c.shard, int(x.grpcCode))
	}
}
