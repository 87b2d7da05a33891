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
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// New settings of TLS end no request: connections with others are used no more, and that may be
// while they are opened.
func TestNewTLSSettingsWhileHTTP2PeersConnect(t *testing.T) {
	t.Parallel()
	another, err := certificates.NewClient(certificates.ClientOptions{InsecureSkipVerify: true})
	verify.NoError(t, err)
	var uses atomic.Int64
	options := someTransport
	options.TLS = func() *certificates.Client {
		if uses.Add(1)%2 == 0 {
			return another
		}
		return anyCertificate()
	}
	p := startProxy(t, Options{})
	err = p.pool.Reconfigure(balancertest.Complete(balancer.Options{Policy: balancer.PolicyRoundRobin, NewTransport: p.NewHTTP2Transport(options)}))
	verify.NoError(t, err)
	p.setService(*p.service)
	p.setPeers(startFramePeerWith(t, framePeerOptions{
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
