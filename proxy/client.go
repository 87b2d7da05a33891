package proxy

import (
	"cmp"
	"crypto/tls"
	"net/netip"
	"strings"
	"sync/atomic"

	"sluice/proxy/accesslog"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
	"sluice/proxy/upstream"
)

// A client is the client of an exchange or a stream, for every protocol.
type client struct {
	upstream.Client
	downstream downstream
	server     *Server
	listener   *listener

	remote      netip.Addr
	address     string             // remote as text
	options     *Options           // of the current request, see takeOptions
	certificate *clientCertificate // nil: none
	session     *tlsSession        // nil: without TLS

	shed    atomic.Bool // the stream had no memory left for what it waits to forward
	proxied bool        // remote is one of TrustedProxies, for request.decide only
	version httpVersion
	// mayPreface: nothing has been received on a connection without TLS, so that the
	// client may use HTTP/2.
	mayPreface bool
}

// An httpVersion is the version of HTTP that a client speaks.
type httpVersion uint8

const (
	version1 httpVersion = iota // 1.0 or 1.1, as each head says
	version2
	version3
)

// hasStreams reports whether each request has a stream of its own on the connection.
func (v httpVersion) hasStreams() bool { return v != version1 }

// A tlsSession is what the handshake with a client has agreed on. It does not change.
type tlsSession struct {
	version    string // such as "TLSv1.3"
	cipher     string // by its IANA name
	serverName string // that the client has sent; "": none
}

func newTLSSession(state tls.ConnectionState) *tlsSession {
	version, _ := strings.CutPrefix(tls.VersionName(state.Version), "TLS ")
	return &tlsSession{version: "TLSv" + version, cipher: tls.CipherSuiteName(state.CipherSuite), serverName: state.ServerName}
}

// describe sets the fields of e that s has. s may be nil: there is no TLS.
func (s *tlsSession) describe(e *accesslog.Entry) {
	if s != nil {
		e.TLSVersion, e.TLSCipher, e.TLSServerName = s.version, s.cipher, s.serverName
	}
}

// protocol returns the version of HTTP of the request, as in access logs.
func (x *request) protocol() string {
	switch {
	case x.client.version == version2:
		return "HTTP/2.0"
	case x.client.version == version3:
		return "HTTP/3.0"
	case x.head.HTTP10:
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

// takeOptions takes the server's options for the next request.
func (c *client) takeOptions() {
	if current := c.server.options.Load(); current != c.options {
		c.options, c.proxied = current, contains(current.TrustedProxies, c.remote)
	}
}

// draining reports whether the connection drains.
func (c *client) draining() bool { return c.idleUntil() != 0 }

// cutBy returns why sluice ends what is left: the time for it is over, the client's certificate is
// revoked, or it has used up its memory. nil: it does not.
func (c *client) cutBy() *refusal.Refusal {
	switch {
	case c.shed.Load():
		return refusal.TooManyConnections
	case c.isRevoked():
		return refusal.Revoked
	}
	return c.listener.cutBy()
}

// idleUntil returns the coarse time when a draining connection ends if it is idle;
// 0: it does not drain.
func (c *client) idleUntil() int64 {
	return cmp.Or(c.server.idleUntil.Load(), c.listener.idleUntil.Load())
}

// A downstream is the client's side of an exchange: it provides the body of the request
// and sends the response. Each client protocol has one downstream type. Heads are
// HTTP/1.1 text with the spans of [http1]'s scanners. No other part of the package
// knows the wire protocol of the client.
type downstream interface {
	transfer.Source // of the request's body; socket.SweepEntry.interrupt ends ReadBody
	transfer.Sink   // for the response's body

	// begin marks the start of a request.
	begin()
	// keepsOpen reports whether the connection may stay open after the request.
	keepsOpen() bool
	// closeAfterAnswer marks the current request as the last one; an unread part of
	// its body is discarded.
	closeAfterAnswer()

	// appendHead appends a response head in wire format, and selects the framing of
	// the body. text is the head from the peer; the exchange's response has its spans.
	appendHead(out, text []byte) []byte
	// writeAnswer sends a complete response that sluice generated, as HTTP/1.1 text: the head with
	// a body, or else with the body beside it.
	writeAnswer(text, body []byte) error
	// waited reports whether a part of the response had to wait for the client.
	waited() bool
	// isWhole reports whether the response ends, as its head says, after the bytes of the body that
	// have been sent, and nothing can follow them.
	isWhole(sent int64) bool
	// cut marks the response as incomplete, unless it isWhole; -1: not all that was to be sent has
	// been.
	cut(sent int64)

	// tunnel returns the end of t for the bytes after a protocol switch, and those that were read
	// with the request.
	tunnel(t *socket.Tunnel) (end socket.TunnelEnd, early []byte)
	upstream.Presence
}
