package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"

	"sluice/test/verify"
)

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
