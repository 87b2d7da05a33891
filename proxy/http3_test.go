package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"github.com/quic-go/quic-go/http3"

	own "sluice/proxy/http3"
	"sluice/proxy/packets"
	"sluice/test/http3test"
	"sluice/test/verify"
)

// serveHTTP3 serves HTTP/3 on a socket of its own, and returns its address.
func (p *testProxy) serveHTTP3(o ListenerOptions) string {
	p.t.Helper()
	return p.serveEndpoint(o).Addr().String()
}

// serveEndpoint is serveHTTP3 for one who needs the endpoint.
func (p *testProxy) serveEndpoint(o ListenerOptions) *own.Endpoint {
	p.t.Helper()
	conn := verify.Result(net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})).Must(p.t)
	socket := verify.Result(packets.New(conn)).Must(p.t)
	e := own.NewEndpoint(socket, func() { socket.Close() })
	if o.TLS == nil {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{certificate()}}
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, e, o) }()
	p.t.Cleanup(func() {
		cancel()
		<-served
		e.Close()
	})
	return e
}

// http3Client returns a client of another implementation.
func http3Client(t testing.TB) *http.Client {
	client := &http3test.Client{Transport: http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	t.Cleanup(func() { client.Close() })
	return &http.Client{Transport: client, Timeout: patience}
}
