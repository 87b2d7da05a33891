package proxy

import (
	"crypto/tls"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

// New settings of TLS end no request: connections with others are used no more, and that may be
// while they are opened.
func TestNewTLSSettingsWhileHTTP2PeersConnect(t *testing.T) {
	t.Parallel()
	another := verify.Result(certificates.NewClient(certificates.ClientOptions{InsecureSkipVerify: true})).Must(t)
	var uses atomic.Int64
	options := someTransport
	options.TLS = func() *certificates.Client {
		if uses.Add(1)%2 == 0 {
			return another
		}
		return anyCertificate()
	}
	p := startProxy(t, Options{})
	p.usePeers(true, options, balancer.Options{Policy: balancer.PolicyRoundRobin}, startFramePeerWith(t, framePeerOptions{
		tls:    &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{socket.ALPNHTTP2}},
		answer: func(p *framePeer, stream uint32) { p.headers(stream, true, ":status", "204") },
	}))
	var work sync.WaitGroup
	for range 10 {
		work.Go(func() {
			for range 20 {
				got := p.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				verify.That(t, strings.HasPrefix(got, "HTTP/1.1 204"), "got %q", got)
			}
		})
	}
	work.Wait()
	p.expectNothingCounted()
}
