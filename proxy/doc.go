// Package proxy forwards requests: it accepts client connections, finds the
// route of each request, has the route's pool pick a peer, and passes the
// messages on.
//
//	accept → clientConn → route.Table → attempts → balancer.Pool.Pick
//	                                       │
//	                                       └→ exchange.try → upstreamConn → Token.Done
//
// A client connection has one goroutine, which does all the work of its
// requests one after the other; between requests it has none (see restingSet). [Server] owns the connections and ends them;
// a [Transport] owns the connections to one peer. Timeouts are coarse (see
// sweeper): a request sets no timer.
//
// The data plane is written against the socket, not against net.Conn: see
// socket for why a request takes five system calls and no failed read.
package proxy
