//lint:file-ignore SA1019 net/http refuses the field :protocol.

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
	"slices"
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

// revokedKinds are what a client may have in progress on a connection. Each returns when the peer
// has it.
func revokedKinds(r *running, release func(), pair tls.Certificate) (all []*revokedLink) {
	const get, socket = "GET %s HTTP/1.1\r\nHost: a.example\r\n%s\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	again := func(l *revokedLink, text string) func() { return func() { io.WriteString(l.Conn, text) } }
	for _, kind := range []struct{ name, request, first string }{
		{"idle", fmt.Sprintf(get, "/", ""), "last"},
		{"a request that waits for its answer", fmt.Sprintf(get, "/wait", ""), ""},
		{"an answer", fmt.Sprintf(get, "/answer", ""), "first"},
		{"an upload", "POST /upload HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\nbegin", ""},
		{"a WebSocket", fmt.Sprintf(get, "/tunnel", socket) + "first\n", "first"},
	} {
		l := dialRevoked(r, kind.name, "web", pair, "http/1.1")
		l.proceed = release
		switch kind.name {
		case "idle":
			l.proceed = again(l, fmt.Sprintf(get, "/next", ""))
		case "an upload":
			l.proceed = again(l, strings.Repeat("x", 100_000-len("begin")))
		case "a WebSocket":
			l.proceed = again(l, "last\n")
		}
		io.WriteString(l.Conn, kind.request)
		go io.Copy(&l.got, l)
		r.await("the first bytes of "+kind.name, func() bool { return strings.Contains(l.got.String(), kind.first) })
		all = append(all, l)
	}
	db := dialRevoked(r, "TCP", "db", pair)
	db.proceed = again(db, "last\n")
	go io.Copy(&db.got, db)
	r.await("the greeting", func() bool { return strings.Contains(db.got.String(), "greeting") })
	all = append(all, db)
	for _, kind := range []struct{ name, path, first string }{
		{"idle by HTTP/2", "/", "last"},
		{"an answer by HTTP/2", "/answer", "first"},
		{"a WebSocket by HTTP/2", "/tunnel", "first"},
	} {
		l := dialRevoked(r, kind.name, "web", pair, "h2")
		l.proceed = release
		conn := verify.Result((&xhttp2.Transport{}).NewClientConn(l)).Must(r.t)
		send := func(path string) {
			request := verify.Result(http.NewRequestWithContext(r.t.Context(), http.MethodGet, "https://a.example"+path, nil)).Must(r.t)
			if path == "/tunnel" {
				body, up := io.Pipe()
				request.Method, request.Body = http.MethodConnect, body
				request.Header.Set(":protocol", "websocket")
				request.Header.Set("Sec-WebSocket-Version", "13")
				l.proceed = func() { io.WriteString(up, "last\n") }
				go io.WriteString(up, "first\n")
			}
			answer, err := conn.RoundTrip(request)
			if err != nil {
				return
			}
			go func() {
				defer answer.Body.Close()
				io.Copy(&l.got, answer.Body)
			}()
		}
		send(kind.path)
		r.await("the first bytes of "+kind.name, func() bool { return strings.Contains(l.got.String(), kind.first) })
		if kind.path == "/" {
			l.proceed = func() { send("/next") }
		}
		all = append(all, l)
	}
	return all
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
				case "/wait":
					<-released
				case "/answer":
					io.WriteString(w, "first\n")
					http.NewResponseController(w).Flush()
					<-released
				case "/upload":
					io.Copy(io.Discard, r.Body)
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
			drains := false
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
				drains = true
			}
			for _, l := range revoked {
				verify.That(t, l.open() || circumstance == "a first list by a reload" || drains && l.kind == "idle by HTTP/2", "%s has ended before", l.kind)
			}
			list(7)
			for _, l := range revoked {
				r.await("the end of "+l.kind, func() bool { return !l.open() })
				verify.That(t, l.kind == "idle" || l.kind == "idle by HTTP/2" || !strings.Contains(l.got.String(), "last"), "%s: got %q", l.kind, l.got.String())
			}
			if drains { // it was told to go
				good = slices.DeleteFunc(good, func(l *revokedLink) bool { return l.kind == "idle by HTTP/2" })
			}
			for _, l := range good {
				verify.That(t, l.open(), "%s of another client has ended", l.kind)
			}
			for _, l := range good {
				l.proceed()
				want := "last"
				if l.kind == "idle" || l.kind == "idle by HTTP/2" {
					want = "last /next"
				}
				r.await("the rest of "+l.kind+" of another client", func() bool { return strings.Contains(l.got.String(), want) })
			}
			r.await("the reasons", func() bool {
				all, _ := os.ReadFile(accessLog)
				return strings.Count(string(all), `"certificate_revoked"`) == len(revoked)-2 // except the idle ones
			})
		})
	}
}
