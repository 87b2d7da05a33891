// Package proxy forwards requests: it accepts client connections, matches each
// request to a route, picks a peer from the pool of the route and forwards the
// request and the response.
//
//	accept → clientConn → route.Table → attempt.Run → balancer.Pool.Pick
//	                                       │
//	                                       └→ httpExchange.Try → upstreamConn → Token.Done
//
// An httpExchange uses a downstream (the client's side) and an upstream (the peer's
// side). Only these two know the wire protocol.
//
// One goroutine serves all requests of a client connection in sequence; an idle
// connection has no goroutine (see [socket.IdleSet]). [Server] owns the client connections;
// a [Transport] owns the connections to one peer. Timeouts are coarse (see
// [socket.Sweeper]): a request sets no timer.
//
// The data plane uses the socket instead of net.Conn: see package [socket].
package proxy
