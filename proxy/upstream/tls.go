package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/discovery"
	"sluice/observe/excerpt"
	"sluice/proxy/socket"
)

// peerTLS is the TLS of the connections to one peer.
type peerTLS struct {
	peer *balancer.Peer
	log  zerolog.Logger

	mu sync.Mutex
	// mu guards the fields below.
	sessions tls.ClientSessionCache // of this peer; nil: none yet
	version  any                    // of the terms with which sessions began
	logged   string                 // the last error that was logged,
	loggedAt time.Time              // and when
	lines    int                    // that were logged
	since    time.Time              // then, at most failureEvery ago
}

// failureEvery is the time between two log lines about the same error of a peer.
const failureEvery = time.Minute

// A peer chooses what is in errors about it, such as the names in its certificate.
const (
	maxLines = 10  // of a peer in failureEvery
	maxError = 400 // bytes of an error in a line
)

// A HandshakeError is an error of a TLS handshake with a peer.
type HandshakeError struct{ error }

func (e HandshakeError) Unwrap() error { return e.error }

// errNoHTTP2 is the error of a handshake with a peer that does not agree to HTTP/2.
var errNoHTTP2 = errors.New("the peer does not agree to HTTP/2 (h2 by ALPN), which upstream.protocol requires")

// An agreement is what a connection is made for: its TLS settings, and who must answer in a mesh. A
// connection with another one is not used again: an instance may become another service's at the
// same address.
type agreement struct {
	secure certificates.Security // nil: no TLS
	with   discovery.Member
}

// agreement returns that of new connections.
func (p *peerTLS) agreement(o *Options) (a agreement) {
	if o.TLS != nil {
		a.with = p.peer.Member()
		a.secure = o.TLS(a.with.Identity != "")
	}
	return a
}

// termsOf returns the TLS of a new connection to the peer for a protocol, an identifier of ALPN or
// "". Sessions are kept for each peer, because peers do not accept each other's tickets, and end
// when the certificates change.
func (p *peerTLS) termsOf(a agreement, protocol string) (certificates.Terms, error) {
	instance := p.peer.Instance()
	instance.ServerName, instance.Identity, instance.Peer = a.with.ServerName, a.with.Identity, a.with.Peer
	terms, err := a.secure.TermsFor(&instance)
	if err != nil {
		return terms, err
	}
	config := terms.Config
	if config.ServerName == "" {
		config.ServerName = discovery.Authority(p.peer.Address())
		if host, _, err := net.SplitHostPort(p.peer.Address()); err == nil {
			config.ServerName = host
		}
	}
	if protocol != "" {
		config.NextProtos = []string{protocol}
	}
	if terms.Version != nil {
		config.ClientSessionCache = p.sessionsOf(terms.Version)
	}
	return terms, nil
}

// sessionsOf returns the sessions that began with these terms.
func (p *peerTLS) sessionsOf(version any) tls.ClientSessionCache {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions == nil || p.version != version {
		p.sessions, p.version = tls.NewLRUClientSessionCache(1), version
	}
	return p.sessions
}

// handshake performs the TLS handshake for a protocol on a new connection. An error was logged,
// except the end of ctx.
func (p *peerTLS) handshake(ctx context.Context, conn socket.Conn, a agreement, protocol string, deadline time.Time) (*socket.TLSConn, error) {
	terms, err := p.termsOf(a, protocol)
	if err != nil {
		p.report(err)
		return nil, HandshakeError{err}
	}
	conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(socket.ALongTimeAgo) })
	c, err := socket.ConnectTLS(conn, terms.Config)
	if !stop() { // the client has left, or the server shuts down
		return nil, HandshakeError{context.Cause(ctx)}
	}
	conn.SetDeadline(time.Time{})
	if protocol == socket.ALPNHTTP2 && (err == nil && !c.UsesHTTP2() && !terms.ByPriorKnowledge || err != nil && strings.Contains(err.Error(), alertNoProtocol)) {
		err = errNoHTTP2
	}
	if err != nil {
		p.report(fmt.Errorf("TLS handshake: %w", err))
		return nil, HandshakeError{err}
	}
	return c, nil
}

// alertNoProtocol is in the error for the alert of a server that supports none of the
// protocols (RFC 7301, section 3.2). crypto/tls does not export its type.
const alertNoProtocol = "no application protocol"

// report logs why no connection could be used, the same error once a minute, and few others.
func (p *peerTLS) report(err error) {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		err = errors.New("TLS handshake: it did not end within timeouts.connect")
	}
	text, now := excerpt.Of(err.Error(), maxError), time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if text == p.logged && now.Sub(p.loggedAt) < failureEvery {
		return
	}
	if now.Sub(p.since) >= failureEvery {
		p.since, p.lines = now, 0
	}
	if p.lines == maxLines {
		return
	}
	p.lines++
	p.logged, p.loggedAt = text, now
	p.log.Warn().Str("service", p.peer.ID.Service).Str("peer", p.peer.ID.ID).Str("address", p.peer.Address()).
		Str(zerolog.ErrorFieldName, text).Msg("no connection to a peer")
}
