package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/proxy/socket"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// socketDirectory returns a directory whose files have paths that are short enough for unix
// sockets.
func socketDirectory(t *testing.T) string {
	t.Helper()
	dir := verify.Result(os.MkdirTemp("", "sluice-")).Must(t)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// through makes the client use a unix socket.
func (r *running) through(path string) {
	r.client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
}

// serveSocket serves a handler on a unix socket.
func serveSocket(t *testing.T, path string, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Listener.Close()
	server.Listener = verify.Result(net.Listen("unix", path)).Must(t)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// postBody sends a request with the body and returns the answer's status and body; 0: none.
func (r *running) postBody(url, body string) (int, string) {
	r.t.Helper()
	return read(r.client.Post(url, "text/plain", strings.NewReader(body)))
}

// Clients and peers use unix sockets, with checks. A reload moves and keeps sockets, and a socket
// of sluice itself gets no requests.
func TestUnixSocketsOfClientsAndPeers(t *testing.T) {
	t.Parallel()
	dir := socketDirectory(t)
	one, two, web := filepath.Join(dir, "One"), filepath.Join(dir, "two"), filepath.Join(dir, "web")
	echo := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			body, _ := io.ReadAll(q.Body)
			fmt.Fprintf(w, "%s %s %q %d", name, q.Host, q.Header.Get("X-Forwarded-For"), len(body))
		}
	}
	serveSocket(t, one, echo("one"))
	second := serveSocket(t, two, echo("two"))
	of := func(listeners, peers string) string {
		return fmt.Sprintf("listeners: [%s]\nshutdown: { idle: 0s }\n"+
			"services: { a: { peers: [%s], balance: { policy: round_robin }, health: { active: { type: http, path: /, interval: 100ms, timeout: 1m } } } }\n"+
			"routes: [{ service: a }]\n", listeners, peers)
	}
	listener := fmt.Sprintf("{ name: web, address: 'unix:%s' }", web)
	r := start(t, of(listener, fmt.Sprintf("'unix:%s', 'unix:%s'", one, two)))
	r.through(web)
	var seen []string
	for range 4 {
		status, body := r.postBody("http://example.com/", strings.Repeat("x", 100_000))
		name, rest, _ := strings.Cut(body, " ")
		seen = append(seen, name)
		verify.That(t, status == http.StatusOK && rest == `example.com "unknown" 100000`, "got %d %s", status, body)
	}
	slices.Sort(seen)
	verify.Slices(t, seen, []string{"one", "one", "two", "two"}, "peers")
	second.Close()
	consultest.Await(t, "the check of the second fails", func() bool {
		return len(r.services.get("a").pool.Snapshot().Eligible) == 1
	})
	info, err := os.Stat(web)
	verify.That(t, err == nil && info.Mode().Perm() == 0o600, "the listener's file: %v, %v", info.Mode(), err)

	// A reload keeps the socket, changes who may connect, and adds another.
	before, _ := os.Stat(web)
	other := filepath.Join(dir, "other")
	r.replace(of(fmt.Sprintf("{ name: again, address: 'unix:%s', socket: { mode: 0666 } }, { name: other, address: 'unix:%s' }", web, other), "'unix:"+one+"'"))
	after, err := os.Stat(web)
	verify.That(t, err == nil && os.SameFile(before, after) && after.Mode().Perm() == 0o666, "after a reload: %v, %v", after, err)
	for _, path := range []string{web, other} {
		r.through(path)
		status, body := r.postBody("http://example.com/", "")
		verify.That(t, status == http.StatusOK, "%s: got %d %s", path, status, body)
	}

	// A request that reached sluice itself would come again and again.
	link := filepath.Join(dir, "link")
	verify.NoError(t, os.Symlink(web, link))
	for _, own := range []string{web, link} {
		r.replace(of(fmt.Sprintf("{ name: again, address: 'unix:%s', socket: { mode: 0666 } }", web), "'unix:"+own+"'"))
		r.through(web)
		status, body := r.postBody("http://example.com/", "")
		verify.That(t, status == http.StatusServiceUnavailable || status == http.StatusBadGateway, "%s: got %d %s", own, status, body)
	}
	r.awaitRefused(&net.UnixAddr{Name: other, Net: "unix"})
}

// A client of a unix socket has no address: no network has it, not that of 127.0.0.1 either, and no
// limit for an address. Only "unix:" makes it a proxy that may say who its client is.
func TestClientsOfUnixSocketsHaveNoAddress(t *testing.T) {
	t.Parallel()
	dir := socketDirectory(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	serveSocket(t, path("app"), func(w http.ResponseWriter, q *http.Request) {
		fmt.Fprintf(w, "%s %s", q.Header["X-Forwarded-For"], q.Header["X-Real-Ip"])
	})
	of := func(proxies string) string {
		return fmt.Sprintf("listeners: [{ name: web, address: 'unix:%s' }, { name: proxied, address: 'unix:%s', proxy_protocol: { from: ['unix:'] } }]\n"+
			"client: { trusted_proxies: [%s], limits: { connections_per_address: 1 } }\n"+
			"shutdown: { idle: 0s }\nservices: { a: { peers: ['unix:%s'] } }\n"+
			"routes: [{ path: /local, service: a, allow: [127.0.0.1, '::/0', 0.0.0.0/0] }, { path: /, service: a }]\n",
			path("web"), path("proxied"), proxies, path("app"))
	}
	const networks = "127.0.0.1, '::/0', 0.0.0.0/0"
	r := start(t, of(networks))
	ask := func(socket, header, path, fields, want string) {
		t.Helper()
		conn := verify.Result(net.Dial("unix", filepath.Join(dir, socket))).Must(t)
		t.Cleanup(func() { conn.Close() }) // it stays open: no limit of an address counts it
		fmt.Fprintf(conn, "%sGET %s HTTP/1.1\r\nHost: a\r\n%s\r\n", header, path, fields)
		response := verify.Result(http.ReadResponse(bufio.NewReader(conn), nil)).Must(t)
		defer response.Body.Close()
		body := verify.Result(io.ReadAll(response.Body)).Must(t)
		if response.StatusCode != http.StatusOK {
			body = []byte(response.Header.Get("X-Sluice-Reason"))
		}
		verify.Equal(t, string(body), want, "%s %s %q %q", socket, path, header, fields)
	}
	const forwarded, header = "X-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n", "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n"
	ask("web", "", "/", "", "[unknown] [unknown]")
	ask("web", "", "/", forwarded, "[unknown] [unknown]")
	ask("web", "", "/local", forwarded, "client_denied")
	ask("proxied", "PROXY UNKNOWN\r\n", "/local", "", "client_denied")
	ask("proxied", header, "/local", "", "[192.0.2.7] [192.0.2.7]")
	r.replace(of("127.0.0.1, 'unix:'"))
	ask("web", "", "/", forwarded, "[192.0.2.1, 127.0.0.1] [192.0.2.1]")
	ask("web", "", "/local", "", "client_denied")
	ask("proxied", strings.ReplaceAll(header, "192.0.2.7", "192.0.2.8"), "/", forwarded, "[192.0.2.8] [192.0.2.8]")
}

// A configuration that is refused changes no permissions of a socket, which another process may
// have made.
func TestARefusedConfigurationPermitsNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketDirectory(t), "s")
	made := verify.Result(net.Listen("unix", path)).Must(t)
	verify.NoError(t, os.Chmod(path, 0o600))
	taken := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer taken.Close()
	of := func(more string) string {
		return fmt.Sprintf("listeners: [{ name: web, address: '127.0.0.1:0' }%s]\n", more) + static("a", "127.0.0.1:1")
	}
	r := newRunning(t, of(""))
	r.run(Options{
		Listen: func(name, network, address string) (net.Listener, error) {
			if name == "made" {
				return made, nil
			}
			return socket.Listen(network, address)
		},
		Release: func(l net.Listener, used bool) {
			if l != made || used {
				l.Close()
			}
		},
	})
	mode := func(want os.FileMode) {
		t.Helper()
		info, err := os.Stat(path)
		verify.That(t, err == nil && info.Mode().Perm() == want, "got %v, %v", info, err)
	}
	with := fmt.Sprintf(", { name: made, address: 'unix:%s', socket: { mode: 0666 } }", path)
	r.write(of(with + fmt.Sprintf(", { name: taken, address: '%s' }", taken.Addr())))
	r.awaitLog("configuration refused")
	mode(0o600)
	r.replace(of(with))
	mode(0o666)
}
