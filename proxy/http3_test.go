package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"
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

// Many clients may connect at once, although quic-go keeps only 32 connections whose handshake has
// ended for whoever accepts them.
func TestHTTP3ManyClientsAtOnce(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, tellAddress).address())
	to := verify.Result(net.ResolveUDPAddr("udp", p.serveHTTP3(ListenerOptions{Name: "h3"}))).Must(t)
	const clients = 150
	var dials sync.WaitGroup
	failed := make(chan error, clients)
	release := make(chan struct{})
	for range clients {
		dials.Go(func() {
			<-release
			socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				failed <- err
				return
			}
			defer socket.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			transport := &quic.Transport{Conn: socket}
			defer transport.Close()
			c, err := transport.Dial(ctx, to, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, &quic.Config{HandshakeIdleTimeout: patience})
			if err != nil {
				failed <- err
				return
			}
			if _, err := c.AcceptUniStream(ctx); err != nil { // sluice's settings
				failed <- err
			}
			c.CloseWithError(0, "")
		})
	}
	close(release)
	dials.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	verify.That(t, len(errs) == 0, "%d of %d clients failed: %v", len(errs), clients, errors.Join(errs...))
	eventually(t, "the connections have ended", func() bool { return p.Connections() == 0 })
}
