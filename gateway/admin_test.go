package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/config"
	"sluice/observe/events"
	"sluice/route/places"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// writeToken writes the file of a token.
func writeToken(t *testing.T, name, token string) (path string) {
	t.Helper()
	return writeFile(t, t.TempDir(), name, []byte(token+"\n"))
}

// statusOf returns the status of an answer of the admin API to a token.
func (r *running) statusOf(method, url, token string) (status int) {
	r.t.Helper()
	status, _ = r.send(method, url, "Authorization", strings.TrimSpace("Bearer "+token))
	return status
}

// The admin API follows its certificate, as listeners do, and /api/certificates shows it.
func TestAdminWithTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := testcert.Write(t, dir, "admin.example")
	r := start(t, fmt.Sprintf("admin: { address: '127.0.0.1:0', tls: { cert: %q, key: %q } }\n", files.Cert, files.Key)+static("star", "127.0.0.1:1"))
	url := "https://" + r.Address("admin").String() + "/api/certificates"
	r.trust(files.Cert, "admin.example")
	verify.Equal(t, r.statusOf("GET", url, ""), http.StatusOK, "result")
	verify.Equal(t, r.statusOf("GET", strings.Replace(url, "https", "http", 1), ""), http.StatusBadRequest, "without TLS")
	all := r.Gateway.certificates.Statuses()
	verify.That(t, len(all) == 1 && all[0].UsedBy == adminUser && all[0].File == files.Cert, "certificates: %+v", all)
	testcert.Write(t, dir, "admin.example")
	r.Gateway.certificates.Refresh() // as it does every few seconds
	r.trust(files.Cert, "admin.example")
	verify.Equal(t, r.statusOf("GET", url, ""), http.StatusOK, "after the certificate has changed")
	verify.NoError(t, os.WriteFile(files.Cert, []byte("nonsense"), 0o600))
	r.Gateway.certificates.Refresh()
	verify.Equal(t, r.statusOf("GET", url, ""), http.StatusOK, "with a certificate that cannot be used")
}

// The tokens change with the configuration and with their files. They do not while another address
// waits for a restart.
func TestAdminTokens(t *testing.T) {
	t.Parallel()
	operate, look, other := writeToken(t, "operate", "s3cret"), writeToken(t, "look", "scraper"), writeToken(t, "other", "other")
	of := func(admin string) string { return "admin: { " + admin + " }\n" + static("star", "127.0.0.1:1") }
	r := start(t, of("address: '127.0.0.1:0'"))
	r.await("star has its peer", func() bool { return len(r.services.get("star").pool.Snapshot().All) == 1 })
	base := r.url("admin")
	check := func(what string, token string, see, drain int) {
		t.Helper()
		verify.Equal(t, r.statusOf("GET", base+"/metrics", token), see, "%s, token %q: looking", what, token)
		verify.Equal(t, r.statusOf("POST", base+"/api/peers/star/127.0.0.1:1/drain", token), drain, "%s, token %q: drain", what, token)
	}
	check("no token", "", 200, 200)
	r.replace(of("address: '127.0.0.1:0', token_file: " + operate))
	check("one token", "", 401, 401)
	check("one token", "s3cret", 200, 200)
	r.replace(of("address: '127.0.0.1:0', token_file: " + operate + ", read_token_file: " + look))
	check("two tokens", "s3cret", 200, 200)
	check("two tokens", "scraper", 200, 403)
	check("two tokens", "other", 401, 401)
	verify.NoError(t, os.WriteFile(look, []byte("scraper2"), 0o600))
	r.Reload()
	r.await("the new token is in use", func() bool { return r.statusOf("GET", base+"/metrics", "scraper2") == http.StatusOK })
	check("a new token", "scraper", 401, 401)
	for text, refusal := range map[string]string{"s3cret": "admin.read_token_file: it has the token of admin.token_file", "": "is empty"} {
		verify.NoError(t, os.WriteFile(look, []byte(text), 0o600))
		r.Reload()
		r.awaitLog(refusal)
		check(refusal, "scraper2", 200, 403)
	}
	r.replace(of("address: '127.0.0.1:1', token_file: " + other))
	check("another address waits", "other", 401, 401)
	check("another address waits", "s3cret", 200, 200)
	r.replace(of("address: '127.0.0.1:0'"))
	check("no token again", "", 200, 200)
}

// The admin API listens on a unix socket, whose permissions follow the configuration, but not while
// another address waits for a restart.
func TestAdminOnAUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketDirectory(t), "admin.sock")
	of := func(path, socket string) string {
		return fmt.Sprintf("admin: { address: 'unix:%s', socket: { %s } }\n", path, socket) + static("star", "127.0.0.1:1")
	}
	r := start(t, of(path, "mode: 0666"))
	r.through(path)
	mode := func(want os.FileMode) {
		t.Helper()
		info, err := os.Stat(path)
		verify.That(t, err == nil && info.Mode().Perm() == want, "got %v, %v", info.Mode(), err)
	}
	mode(0o666)
	for host, want := range map[string]int{"localhost": 200, "127.0.0.1:8081": 200, "evil.example": 403} {
		verify.Equal(t, r.statusOf("GET", "http://"+host+"/api/peers", ""), want, "host %s", host)
	}
	for _, step := range []struct {
		path, socket string
		want         os.FileMode
	}{
		{path, "", 0o600}, {path, "group: '" + fmt.Sprint(os.Getgid()) + "'", 0o660}, {path, "mode: 0666", 0o666},
		{path + "2", "mode: 0600", 0o666}, {path, "mode: 0600", 0o600},
	} {
		r.replace(of(step.path, step.socket))
		mode(step.want)
	}
	self := r.replica.name()
	verify.That(t, strings.HasSuffix(self, "/unix:"+path), "this replica is %q", self)
}

// pipes is a listener for connections in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error { close(p); return nil }
func (pipes) Addr() net.Addr { return new(net.TCPAddr) }

// A client that does not take its answer, or does not send what it has announced, is cut.
func TestAdminCutsClientsThatHang(t *testing.T) {
	const hangs, lacks = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
	for request, reads := range map[string]bool{hangs: false, lacks: true} {
		synctest.Test(t, func(t *testing.T) {
			l, end := serveAdmin(t, places.New(9, 9))
			client, server := net.Pipe()
			defer client.Close()
			l <- server
			verify.NoError(t, client.SetDeadline(time.Now().Add(time.Hour)))
			_, err := io.WriteString(client, request)
			verify.NoError(t, err)
			if reads {
				_, err = io.ReadAll(client)
				verify.NoError(t, err)
			} else {
				time.Sleep(adminWriteTimeout + time.Second)
				synctest.Wait()
			}
			_, err = client.Write([]byte{0})
			verify.That(t, errors.Is(err, io.ErrClosedPipe), "%q: %v", request, err)
			end()
		})
	}
}

// serveAdmin serves the admin API to connections in memory until end.
func serveAdmin(t *testing.T, p *places.Places) (l pipes, end func()) {
	t.Helper()
	a := verify.Result(newAdminServer(config.Admin{}, events.New(), zerolog.Nop())).Must(t)
	a.places = p
	a.http.Handler = admin.New(admin.Options{Tokens: func() admin.Tokens { return admin.Tokens{} }})
	l = make(pipes)
	var serving sync.WaitGroup
	serving.Go(func() { _ = a.serve(l) })
	return l, func() {
		a.close(t.Context())
		serving.Wait()
	}
}

// clientConn is a connection of a client with that address.
type clientConn struct {
	net.Conn
	address net.TCPAddr
}

func (c *clientConn) RemoteAddr() net.Addr { return &c.address }

// Connections to the admin API, also those that send nothing, leave descriptors to the requests of
// clients, and those of one address leave room for others.
func TestAdminConnectionsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, end := serveAdmin(t, places.New(4, 2))
		connect := func(address string, open bool) (client net.Conn) {
			t.Helper()
			client, server := net.Pipe()
			l <- &clientConn{server, net.TCPAddr{IP: net.ParseIP(address)}}
			synctest.Wait()
			client.SetReadDeadline(time.Now().Add(time.Millisecond)) // fails if the server has closed it
			_, err := client.Read(make([]byte, 1))
			verify.That(t, errors.Is(err, os.ErrDeadlineExceeded) == open, "a connection from %s: %v", address, err)
			return client
		}
		first := connect("::ffff:10.0.0.1", true)
		connect("10.0.0.1", true)
		connect("10.0.0.1", false)
		connect("fd00::1", true)
		connect("fd00::2", true) // of the same /64
		connect("fd00:1::1", false)
		first.Close()
		synctest.Wait()
		connect("fd00::3", false)
		connect("10.0.0.2", true)
		time.Sleep(time.Minute) // those that sent nothing are cut
		synctest.Wait()
		connect("fd00::3", true)
		end()
	})
}

// A part whose collector is not registered would have no metrics.
func TestGatewayRegistersTheMetricsOfAllParts(t *testing.T) {
	t.Parallel()
	r := start(t, "listeners: [{ address: '127.0.0.1:0' }]\naccess_log: { path: 'off' }\nadmin: { address: '127.0.0.1:0' }\n"+static("star", "127.0.0.1:1"))
	declared := make(chan *prometheus.Desc)
	go func() {
		defer close(declared)
		for _, part := range r.Gateway.metrics() {
			part.Describe(declared)
		}
	}()
	var got, want []string
	for d := range declared {
		if name := regexp.MustCompile(`"(sluice_\w+)"`).FindStringSubmatch(d.String()); name != nil {
			got = append(got, name[1])
		}
	}
	text := verify.Result(os.ReadFile("../docs/metrics.md")).Must(t)
	for _, row := range regexp.MustCompile("(?m)^\\| `(sluice_\\w+)` \\|").FindAllStringSubmatch(string(text), -1) {
		want = append(want, row[1])
	}
	slices.Sort(got)
	slices.Sort(want)
	verify.That(t, slices.Equal(got, want), "the gateway has the metrics\n%q\ndocs/metrics.md has\n%q", got, want)
}
