package consul

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"
)

// dialFunc opens a connection, as net.Dialer.DialContext.
type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// dialer returns what opens connections to an agent's address: dial, or else the
// network, which notices a host that is gone without a word.
func dialer(address string, dial dialFunc) (dialFunc, error) {
	if dial == nil {
		dial = (&net.Dialer{
			Timeout: dialTimeout,
			// A host that vanished is noticed after 15 s + 3 × 5 s.
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		}).DialContext
	}
	path, ok := strings.CutPrefix(address, "unix://")
	switch {
	case !ok:
		return dial, nil
	case path == "":
		return nil, errors.New("want the path of a socket")
	}
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "unix", path) }, nil
}

// newTransport makes a transport that keeps a connection per watch, and
// multiplexes over HTTP/2 where TLS lets it. Proxied is the configuration of TLS
// through a proxy; the transport changes it.
func newTransport(dial, dialTLS dialFunc, proxied *tls.Config, connections int) *http.Transport {
	most := 0
	if connections > 1 {
		// net/http may dial more than it has requests for.
		most = forQueries(connections)
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dial,
		DialTLSContext:      dialTLS,
		TLSClientConfig:     proxied,
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: connections,
		MaxConnsPerHost:     most,
		DisableCompression:  true, // agents are near: to compress costs them more than to send
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
}

// forQueries returns how many of a client's connections are not for probes.
// Those take two while one of them hangs.
func forQueries(connections int) int { return max(1, connections-2) }
