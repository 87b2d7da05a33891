package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/test/verify"
)

// listening returns a configuration with these listeners, as YAML, and one service.
func listening(peer string, listeners ...string) string {
	return fmt.Sprintf("listeners: [%s]\nadmin: { address: '127.0.0.1:0' }\naccess_log: { path: 'off' }\nshutdown: { idle: 100ms }\nservices: { a: { peers: [%q] } }\nroutes: [{ service: a }]\n",
		strings.Join(listeners, ", "), peer)
}

// load sends requests over two persistent connections and over new ones until stop, and
// reports each failure.
func (r *running) load(name string) (stop func() (requests int)) {
	url := "http://" + r.Address(name).String()
	var count atomic.Int64
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for _, fresh := range []bool{false, false, true} {
		client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: fresh}}
		running.Go(func() {
			defer client.CloseIdleConnections()
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			for ; ctx.Err() == nil; <-pace.C {
				response, err := client.Get(url)
				if err != nil {
					r.t.Errorf("listener %s: %v", name, err)
					return
				}
				_, err = io.Copy(io.Discard, response.Body)
				response.Body.Close()
				verify.That(r.t, err == nil && response.StatusCode == http.StatusOK, "listener %s: %d, %v", name, response.StatusCode, err)
				count.Add(1)
			}
		})
	}
	return func() int {
		cancel()
		running.Wait()
		return int(count.Load())
	}
}

// Listeners are added, renamed and removed during requests to them and to others.
func TestListenersChangeUnderLoad(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	const web, second = "{ name: web, address: '127.0.0.1:0' }", "{ name: second, address: '127.0.0.2:0' }"
	r := start(t, listening(a, web))
	address := r.Address("web")
	stopWeb := r.load("web")
	r.write(listening(a, web, second))
	r.awaitRevision(2)
	stopSecond := r.load("second")
	socket := r.Address("second")
	r.write(listening(a, web, strings.Replace(second, "second", "renamed", 1)))
	r.awaitRevision(3)
	if got := r.Address("renamed"); got != socket || r.Address("second") != nil {
		t.Errorf("a renamed listener is at %v, want %v", got, socket)
	}
	for n := range 20 {
		r.write(listening(a, web, fmt.Sprintf("{ name: renamed%d, address: '127.0.0.2:0' }", n)))
		r.awaitRevision(uint64(4 + n))
	}
	if n := stopSecond(); n == 0 {
		t.Error("no request at the second listener")
	}

	// Its requests finish, and it accepts no others.
	idle, err := net.Dial("tcp", socket.String())
	verify.NoError(t, err)
	defer idle.Close()
	fmt.Fprint(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := idle.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	if err := idle.SetReadDeadline(time.Now().Add(patience)); err != nil { // less than the idle timeout
		t.Fatal(err)
	}
	r.write(listening(a, web))
	r.awaitRevision(24)
	if rest, err := io.ReadAll(idle); err != nil || len(rest) > 0 {
		t.Errorf("an idle connection of a removed listener: %q, %v", rest, err)
	}
	if conn, err := net.Dial("tcp", socket.String()); err == nil {
		conn.Close()
		t.Error("a removed listener accepts")
	}
	if got := r.Address("web"); got != address {
		t.Errorf("the other listener moved from %v to %v", address, got)
	}
	if n := stopWeb(); n == 0 {
		t.Error("no request at the first listener")
	}
}

func TestRequestFinishesOnARemovedListener(t *testing.T) {
	t.Parallel()
	arrived, finish := make(chan struct{}), make(chan struct{})
	slow := serveOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-finish
		io.WriteString(w, "slow")
	})
	r := start(t, listening(slow, "{ name: web, address: '127.0.0.1:0' }"))
	var status int
	var body string
	var request sync.WaitGroup
	request.Go(func() { status, body = r.get("/") })
	<-arrived
	r.write(listening(slow, "{ name: other, address: '127.0.0.2:0' }"))
	r.awaitRevision(2)
	r.await("the listener is removed", func() bool { return strings.Contains(r.log.String(), `"message":"listener removed`) })
	close(finish)
	request.Wait()
	verify.That(t, status == http.StatusOK && body == "slow", "got %d %q", status, body)
}

func TestRefusedRevisionChangesNothing(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	verify.NoError(t, err)
	defer taken.Close()
	const web = "{ name: web, address: '127.0.0.1:0' }"
	r := start(t, listening(a, web))
	_, port, _ := net.SplitHostPort(r.Address("web").String())
	missing := filepath.Join(t.TempDir(), "missing", "file")
	for n, bad := range []struct{ text, message string }{
		{listening(b, "{ name: new, address: '127.0.0.2:0' }", fmt.Sprintf("{ name: taken, address: %q }", taken.Addr())), `listener \"taken\": `},
		{listening(b, "{ name: every, address: ':"+port+"' }"), `in use by listener \"web\" of this sluice`},
		{strings.Replace(listening(b, web, "{ name: new, address: '127.0.0.2:0' }"), "path: 'off'", "path: "+missing, 1), "access log: open"},
		{strings.Replace(listening(b, web, "{ name: new, address: '127.0.0.2:0' }"), "admin: {", "admin: { token_file: "+missing+", ", 1), "admin.token_file: open"},
		{strings.Replace(listening(b, web, "{ name: new, address: '127.0.0.2:0' }"), "peers:", "health: { active: { type: tcp, tls: { ca: "+missing+" } } }, peers:", 1), "health.active"},
	} {
		r.write(bad.text)
		r.await("the reload is refused", func() bool { return r.history.Reloads().Refused == uint64(n+1) })
		r.await("the log has "+bad.message, func() bool { return strings.Contains(r.log.String(), bad.message) })
		got := len(r.listeners.all())
		verify.That(t, got == 1 && r.Address("web") != nil, "%s: %d listeners", bad.message, got)
		r.gets("/", "a", bad.message)
		verify.Equal(t, r.api("/api/services", new([]any)), http.StatusOK, "%s: the token of the admin API has changed", bad.message)
	}
}

func TestAccessLogChanges(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	dir := t.TempDir()
	text := func(path, more string) string {
		return strings.Replace(listening(a, "{ name: web, address: '127.0.0.1:0' }"), "path: 'off'", fmt.Sprintf("path: %q%s", path, more), 1)
	}
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	r := start(t, text(first, ""))
	stop := r.load("web")
	lines := func(path string) int {
		data, err := os.ReadFile(path)
		verify.NoError(t, err)
		return strings.Count(string(data), "\n")
	}
	r.await("a request", func() bool { status, _ := r.get("/"); return status == http.StatusOK })
	r.await("its line", func() bool { return lines(first) > 0 }) // a request is logged after its answer
	r.write(text(second, ""))
	r.awaitRevision(2)
	r.get("/")
	requests := stop() + 2
	r.write(text(second, ", format: combined"))
	r.awaitRevision(3)
	r.get("/combined")
	r.await("a line for each request", func() bool { return lines(first)+lines(second) >= requests+1 })
	r.write(text("off", ""))
	r.awaitRevision(4)
	r.get("/")
	if one, two := lines(first), lines(second); one == 0 || two < 2 || one+two != requests+1 {
		t.Errorf("%d and %d lines for %d requests", one, two, requests+1)
	}
	if data, err := os.ReadFile(second); err != nil || !strings.Contains(string(data), `"GET /combined HTTP/1.1" 200`) {
		t.Errorf("the second log lacks a line of the other format: %v", err)
	}
}

func TestAdminTokenChanges(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	dir := t.TempDir()
	without := listening(a, "{ name: web, address: '127.0.0.1:0' }")
	text := func(token string) string {
		if token == "" {
			return without
		}
		file := filepath.Join(dir, token)
		verify.NoError(t, os.WriteFile(file, []byte(token), 0o600))
		return strings.Replace(without, "admin: {", "admin: { token_file: "+file+", ", 1)
	}
	r := start(t, text(""))
	ask := func(token string) int {
		request, err := http.NewRequest(http.MethodGet, "http://"+r.Address("admin").String()+"/api/services", nil)
		verify.NoError(t, err)
		request.Header.Set("Authorization", "Bearer "+token)
		status, _ := r.do(request)
		return status
	}
	revision := uint64(1)
	for _, token := range []string{"one", "two", ""} {
		revision++
		r.write(text(token))
		r.awaitRevision(revision)
		verify.Equal(t, ask(token), http.StatusOK, "with token %q", token)
		if status := ask("zero"); token != "" && status != http.StatusUnauthorized {
			t.Errorf("with another token than %q: %d", token, status)
		}
	}

	// The token of an address does not change before the address.
	r.write(text("three"))
	r.awaitRevision(5)
	r.write(strings.Replace(without, "admin: { address: '127.0.0.1:0'", "admin: { address: '127.0.0.1:1'", 1))
	verify.DeepEqual(t, r.awaitRevision(6).Pending, []string{"admin.address"}, "pending")
	verify.Equal(t, ask(""), http.StatusUnauthorized, "without the token, at the old address")
	r.write(without)
	r.awaitRevision(7)
	verify.Equal(t, ask(""), http.StatusOK, "without the token, with the address unchanged")
}

func TestLimitsOfClientsChange(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	text := func(client string) string {
		return listening(a, "{ name: web, address: '127.0.0.1:0' }") + "client: { " + client + " }\n"
	}
	r := start(t, text(""))
	conn, err := net.Dial("tcp", r.Address("web").String())
	verify.NoError(t, err)
	defer conn.Close()
	ask := func() string {
		fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: a\r\n\r\n", strings.Repeat("x", 300))
		answer := make([]byte, 4096)
		n, err := conn.Read(answer)
		verify.NoError(t, err)
		return string(answer[:min(n, len("HTTP/1.1 200"))])
	}
	verify.Equal(t, ask(), "HTTP/1.1 200", "ask()")
	r.write(text("limits: { target: 256B }"))
	r.awaitRevision(2)
	verify.Equal(t, ask(), "HTTP/1.1 414", "with a limit")
	r.write(text("timeouts: { idle: 1s }"))
	r.awaitRevision(3)
	idle, err := net.Dial("tcp", r.Address("web").String())
	verify.NoError(t, err)
	defer idle.Close()
	fmt.Fprint(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	verify.NoError(t, idle.SetReadDeadline(time.Now().Add(patience)))
	if _, err := io.Copy(io.Discard, idle); errors.Is(err, os.ErrDeadlineExceeded) { // a reset, if the request came too late
		t.Errorf("an idle connection: %v", err)
	}
}
