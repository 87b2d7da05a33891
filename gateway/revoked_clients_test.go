package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/observe/wake"
	"sluice/test/subprocess"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// A revokedLink is a connection of a client with a certificate.
type revokedLink struct {
	net.Conn
	kind    string
	got     subprocess.Output // from the peer
	proceed func()            // has the peer send "last"
	end     func()
	ended   chan struct{}
}

// Read notices the end of the connection.
func (l *revokedLink) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if err != nil {
		l.end()
	}
	return n, err
}

func (l *revokedLink) open() bool { return !wake.Closed(l.ended) }

// dialRevoked connects to a listener.
func dialRevoked(r *running, kind, listener string, pair tls.Certificate, protocol ...string) *revokedLink {
	r.t.Helper()
	conn := verify.Result(tls.Dial("tcp", r.Address(listener).String(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}, NextProtos: protocol})).Must(r.t)
	r.t.Cleanup(func() { conn.Close() })
	l := &revokedLink{Conn: conn, kind: kind, ended: make(chan struct{})}
	l.end = sync.OnceFunc(func() { close(l.ended) })
	return l
}

// revokedKinds are what a client may have in progress on a connection. Each returns when the client
// has the first bytes.
func revokedKinds(r *running, release func(), pair tls.Certificate) (all []*revokedLink) {
	const get, socket = "GET %s HTTP/1.1\r\nHost: a.example\r\n%s\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, kind := range []struct{ name, listener, request, first, more string }{
		{"idle", "web", fmt.Sprintf(get, "/", ""), "last", fmt.Sprintf(get, "/next", "")},
		{"an answer", "web", fmt.Sprintf(get, "/answer", ""), "first", ""},
		{"a WebSocket", "web", fmt.Sprintf(get, "/tunnel", socket) + "first\n", "first", "last\n"},
		{"TCP", "db", "", "greeting", "last\n"},
	} {
		l := dialRevoked(r, kind.name, kind.listener, pair, "http/1.1")
		l.proceed = func() { io.WriteString(l.Conn, kind.more); release() }
		io.WriteString(l.Conn, kind.request)
		go io.Copy(&l.got, l)
		r.await("the first bytes of "+kind.name, func() bool { return strings.Contains(l.got.String(), kind.first) })
		all = append(all, l)
	}
	l := dialRevoked(r, "an answer by HTTP/2", "web", pair, "h2")
	l.proceed = release
	//lint:ignore SA1019 it takes a connection
	conn := verify.Result((&xhttp2.Transport{}).NewClientConn(l)).Must(r.t)
	answer := verify.Result(conn.RoundTrip(r.request(http.MethodGet, "https://a.example/answer", nil))).Must(r.t)
	go func() {
		defer answer.Body.Close()
		io.Copy(&l.got, answer.Body)
	}()
	r.await("the first bytes by HTTP/2", func() bool { return strings.Contains(l.got.String(), "first") })
	return append(all, l)
}

// When a client's certificate is revoked, its connections end, whatever is in progress on them,
// also after a reload, and in a process that another one has replaced. Those of others go on.
func TestConnectionsOfRevokedClientsEnd(t *testing.T) {
	t.Parallel()
	for _, circumstance := range []string{"a new list", "a new list after a reload", "a first list by a reload", "a new list after an upgrade"} {
		t.Run(circumstance, func(t *testing.T) {
			t.Parallel()
			dir, released := t.TempDir(), make(chan struct{})
			release := sync.OnceFunc(func() { close(released) })
			peer := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/tunnel":
					combinedSocket(w, r)
					return
				case "/answer":
					io.WriteString(w, "first\n")
					http.NewResponseController(w).Flush()
					<-released
				}
				io.WriteString(w, "last "+r.URL.Path)
			})
			t.Cleanup(release)
			site, a := testcert.Write(t, dir, "a.example"), testcert.NewAuthority(t, "ca.example")
			pair := func(serial int64) tls.Certificate {
				_, _, pair := a.Chain(t, "/web", func(c *x509.Certificate) { c.SerialNumber = big.NewInt(serial) })
				return pair
			}
			writeFile(t, dir, "ca.pem", a.Root)
			accessLog := filepath.Join(dir, "access.log")
			list := func(serial int64) {
				replaceFile(t, filepath.Join(dir, "crl.pem"), string(a.CRL(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), []int64{serial})))
			}
			text := func(more string) string {
				more = fmt.Sprintf(", client_ca: %q%s", filepath.Join(dir, "ca.pem"), more)
				return fmt.Sprintf("shutdown: { idle: 10m, grace: 10m }\naccess_log: { path: %q }\nclient: { timeouts: { body: 10m, idle: 10m } }\nlisteners:\n", accessLog) + secureListener("web", site, more) +
					strings.Replace(secureListener("db", site, more), "name: db,", "name: db, protocol: tcp, service: db,", 1) +
					fmt.Sprintf("services: { star: { peers: [%q], timeouts: { connect: 1m, response_header: 10m, idle: 10m } }, db: { peers: [%q] } }\nroutes: [{ service: star }]\n", peer, greeter(t, "greeting"))
			}
			follows := func(g *Gateway) { g.waits.certificates = 20 * time.Millisecond }
			crl := fmt.Sprintf(", client_crl: %q", filepath.Join(dir, "crl.pem"))
			list(6)
			r, replaced := newRunning(t, text(crl)), make(chan struct{})
			if circumstance == "a first list by a reload" {
				r.write(text(""))
			}
			r.run(Options{Replaced: replaced}, follows)
			revoked, good := revokedKinds(r, release, pair(7)), revokedKinds(r, release, pair(8))
			switch circumstance {
			case "a new list after a reload":
				r.replace(text(crl + ", min_version: 1.3"))
			case "a first list by a reload":
				list(7)
				r.replace(text(crl))
			case "a new list after an upgrade":
				r.upgrade(text(crl), nil)
				close(replaced)
				r.await("the drain", func() bool { return r.readiness.stopping.Load() })
			}
			for _, l := range revoked {
				verify.That(t, l.open() || circumstance == "a first list by a reload", "%s has ended before", l.kind)
			}
			list(7)
			for _, l := range revoked {
				r.await("the end of "+l.kind, func() bool { return !l.open() })
				verify.That(t, l.kind == "idle" || !strings.Contains(l.got.String(), "last"), "%s: got %q", l.kind, l.got.String())
			}
			for _, l := range good {
				verify.That(t, l.open(), "%s of another client has ended", l.kind)
			}
			for _, l := range good {
				l.proceed()
				want := "last"
				if l.kind == "idle" {
					want = "last /next"
				}
				r.await("the rest of "+l.kind+" of another client", func() bool { return strings.Contains(l.got.String(), want) })
			}
			r.await("the reasons", func() bool {
				all, _ := os.ReadFile(accessLog)
				return strings.Count(string(all), `"certificate_revoked"`) == len(revoked)-1 // except the idle one
			})
		})
	}
}
