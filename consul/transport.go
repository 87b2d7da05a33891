package consul

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"sluice/discovery/locality"
)

// dialFunc opens a connection like net.Dialer.DialContext.
type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// dialer returns the function that opens connections to an agent: dial, or else one for
// the network that detects a dead host.
func dialer(address string, dial dialFunc) (dialFunc, error) {
	if dial == nil {
		d := locality.NewDialer(locality.ByOperator, dialTimeout)
		// A dead host is detected after 15 s + 3 × 5 s.
		d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}
		dial = d.DialContext
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

// newTransport returns a transport that keeps a connection per watch, and uses HTTP/2
// with TLS. proxied is the TLS configuration through a proxy; the transport changes it. limit is
// for net/http, which may dial more connections than it has requests.
func newTransport(dial, dialTLS dialFunc, proxied *tls.Config, connections, limit int) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dial,
		DialTLSContext:      dialTLS,
		TLSClientConfig:     proxied,
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: connections,
		MaxConnsPerHost:     limit,
		DisableCompression:  true, // agents are near: compression costs them more than sending
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
}

// forQueries returns the number of connections for queries. Probes need the others.
func forQueries(connections int) int { return max(1, connections-2) }

// unrepeated returns r, which has no body, as a request that net/http sends once. Otherwise
// net/http sends a GET again, without an error, when a used connection is cut. An agent that has
// lost its state may not reach the index of a blocking query for long. After an error, the loop
// asks without the index.
func unrepeated(r *http.Request) *http.Request {
	once := *r
	// On the wire it is no body. But net/http cannot send it again, as it does nil and http.NoBody.
	once.Body, once.GetBody = io.NopCloser(strings.NewReader("")), nil
	return &once
}
