//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"sluice/test/testcert"
	"sluice/test/verify"
)

// Each attack does what it says to servers of other implementations.
func TestAttacks(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
		}
		_, _ = w.Write([]byte("ok"))
	})
	byTCP := httptest.NewUnstartedServer(handler)
	byTCP.EnableHTTP2 = true
	byTCP.StartTLS()
	t.Cleanup(byTCP.Close)
	cert, key := testcert.PEM("localhost")
	pair := verify.Result(tls.X509KeyPair(cert, key)).Must(t)
	socket := verify.Result(net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})).Must(t)
	byUDP := &http3.Server{TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}), Handler: handler}
	served := make(chan error, 1)
	go func() { served <- byUDP.Serve(socket) }()
	t.Cleanup(func() {
		_ = byUDP.Close()
		_ = socket.Close()
		<-served
	})
	for _, a := range attacks {
		for _, do := range []struct {
			attackFunc
			address string
		}{{a.byTCP, byTCP.Listener.Addr().String()}, {a.byUDP, socket.LocalAddr().String()}} {
			if do.attackFunc == nil {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			done, release, err := do.attackFunc(ctx, do.address, 2*streams)
			release()
			cancel()
			verify.That(t, err == nil && done > 0, "%s at %s: %d units, %v", a.name, do.address, done, err)
		}
	}
}
