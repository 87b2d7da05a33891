package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"sluice/test/consultest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// freeAddressForHTTP3 returns an address that nobody uses, by TCP or UDP.
func freeAddressForHTTP3(t *testing.T) string {
	t.Helper()
	l := verify.Result(listenForHTTP3()).Must(t)
	defer l.Close()
	return l.Addr().String()
}

// listenForHTTP3 listens at a port where UDP is free too. The system assigns it to nobody, so UDP
// stays free: the sockets of clients have the ports that it assigns.
func listenForHTTP3() (net.Listener, error) {
	for {
		l, err := consultest.Listen()
		if err != nil {
			return nil, err
		}
		if udp, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			udp.Close()
			return l, nil
		}
		l.Close()
	}
}

// clientOfHTTP3 returns a client that trusts a certificate, with connections of its own.
func clientOfHTTP3(t *testing.T, files testcert.Files, name string) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(verify.Result(os.ReadFile(files.Cert)).Must(t))
	transport := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}}
	t.Cleanup(func() { transport.Close() })
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// HTTP/3 follows reloads: clients are told of it while it is served, and to forget it after that.
// Connections stay while only routes change. What is switched off is on again at once.
func TestHTTP3AcrossReloads(t *testing.T) {
	t.Parallel()
	answering := func(name string) string {
		return serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Alt-Svc", `h2=":1"`)
			io.WriteString(w, name+" "+r.Header.Get("X-Forwarded-Proto"))
		})
	}
	one, two := answering("one"), answering("two")
	files := testcert.Write(t, t.TempDir(), "a.example")
	address := freeAddressForHTTP3(t)
	text := func(on bool, peer string) string {
		return fmt.Sprintf("listeners:\n  - { name: web, address: %q, http3: %t, tls: { certificates: [{ cert: %q, key: %q }] } }\n", address, on, files.Cert, files.Key) +
			static("star", peer)
	}
	r := start(t, text(true, one))
	r.trust(files.Cert, "a.example")
	_, port, _ := net.SplitHostPort(address)
	told := fmt.Sprintf(`h3=":%s"; ma=3600`, port)
	byTCP := func(want, altSvc string) {
		t.Helper()
		got := r.do(r.request("GET", r.secureURL("web"), nil))
		verify.Equal(t, got.body, want, "the answer by TCP")
		verify.Equal(t, got.Header.Get("Alt-Svc"), altSvc, "Alt-Svc by TCP")
	}
	client := clientOfHTTP3(t, files, "a.example")
	byUDP := func(client *http.Client, want, altSvc string) {
		t.Helper()
		got := verify.Result(client.Get("https://" + address)).Must(t)
		defer got.Body.Close()
		verify.Equal(t, string(verify.Result(io.ReadAll(got.Body)).Must(t)), want, "the answer by UDP")
		verify.Equal(t, got.Header.Get("Alt-Svc"), altSvc, "Alt-Svc by UDP")
		verify.Equal(t, got.Proto, "HTTP/3.0", "the protocol")
	}
	byUDP(client, "one https", told)
	byTCP("one https", told)
	verify.Equal(t, r.proxy.Stats().Handshakes.Full >= 2, true, "handshakes are counted")

	opened := r.proxy.Stats().Handshakes
	r.replace(text(true, two))
	byUDP(client, "two https", told)
	verify.Equal(t, r.proxy.Stats().Handshakes, opened, "the connection stays")

	r.replace(text(false, two))
	byTCP("two https", "clear")
	short := clientOfHTTP3(t, files, "a.example")
	short.Timeout = time.Second / 2
	if answer, err := short.Get("https://" + address); err == nil {
		answer.Body.Close()
		t.Error("a new connection is served after HTTP/3 was switched off")
	}
	r.replace(text(true, one))
	byTCP("one https", told)
	byUDP(clientOfHTTP3(t, files, "a.example"), "one https", told)
	byUDP(client, "one https", told) // on another connection: the first one was told to go away
}
