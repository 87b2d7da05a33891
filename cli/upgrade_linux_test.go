package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"sluice/observe/events"
	"sluice/test/consultest"
	"sluice/test/subprocess"
)

// Under load on persistent and on new connections, a new process takes over ten times. No request
// fails, and no connection is refused or reset.
func TestReplaceUnderLoad(t *testing.T) {
	t.Parallel()
	upgrades := 10
	if testing.Short() {
		upgrades = 3
	}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
		io.WriteString(w, "ok")
	}))
	defer origin.Close()
	s := startServing(t, static(origin.URL))
	l := startLoad(t, 8, func(int) (*http.Request, string) {
		// No client repeats this request automatically.
		r, err := http.NewRequest(http.MethodPost, "http://"+s.address+"/", bufio.NewReader(strings.NewReader("body")))
		if err != nil {
			panic(err)
		}
		return r, "bodyok"
	})
	for range upgrades {
		l.more(100)
		s.replace()
	}
	l.more(100)
	l.stop()
	t.Logf("%d upgrades, %d requests", upgrades, l.served.Load())

	// The last one stops, and then no process listens.
	s.end()
	if conn, err := net.Dial("tcp", s.address); err == nil {
		conn.Close()
		t.Error("a process still listens")
	}
}

// static returns a configuration with one peer.
func static(url string) string {
	return fmt.Sprintf("services: { star: { peers: [%q] } }\nroutes: [{ service: star }]\n", strings.TrimPrefix(url, "http://"))
}

// A new process with an invalid configuration changes nothing.
func TestReplaceByBrokenProcess(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	defer origin.Close()
	s := startServing(t, static(origin.URL))
	s.write("nonsense")
	s.signal(syscall.SIGUSR2)
	awaitThat(t, "the log has the failure", func() bool { return strings.Contains(s.log(), "the new process does not serve") })
	if r, err := http.Get("http://" + s.address + "/"); err != nil || r.StatusCode != 200 {
		t.Errorf("the old process does not serve: %v, %v", r, err)
	}
	s.end()
}

// "events --follow" goes on with the new process, and no event is lost or twice.
func TestFollowEventsAcrossReplacements(t *testing.T) {
	t.Parallel()
	s := startServing(t, static("http://127.0.0.1:1"))
	var out, problems subprocess.Output
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	root := newRoot()
	root.SetArgs([]string{"events", "--follow", "--json", "--kind", "sluice", "--kind", "config", "--admin", s.admin})
	root.SetOut(&out)
	root.SetErr(&problems)
	go func() { ended <- root.ExecuteContext(ctx) }()
	count := func(kind events.Kind) int { return strings.Count(out.String(), string(kind)) }
	awaitThat(t, "the first process is followed", func() bool { return count(events.KindReady) == 1 })
	for n := range 3 {
		s.replace()
		awaitThat(t, "the new process is followed", func() bool { return count(events.KindReady) == n+2 })
	}
	s.configure(static("http://127.0.0.1:2"))
	s.signal(syscall.SIGHUP)
	awaitThat(t, "the new configuration", func() bool { return count(events.KindApplied) == 2 })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if started, first := count(events.KindStarted), strings.Count(out.String(), ": start\""); started != 4 || first != 1 || problems.String() != "" {
		t.Errorf("%d starts, %d first configurations, %s:\n%s", started, first, problems.String(), out.String())
	}
	s.end()
}

// Inherited listeners are also protected from requests to peers.
func TestNoRequestReachesAnInheritedListener(t *testing.T) {
	t.Parallel()
	s := startServing(t, static("http://127.0.0.1:1"))
	for _, own := range []string{s.admin, s.address} {
		s.configure(static("http://" + own))
		s.replace()
		r, err := http.Get("http://" + s.address + "/api/peers")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a peer at %s: %d %s, %v", own, r.StatusCode, body, err)
		}
	}
	s.end()
}

// Connections of a listener for TCP go on in the old process, which ends with the last of
// them. The new one accepts meanwhile.
func TestReplaceWithStreams(t *testing.T) {
	t.Parallel()
	peer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	go func() {
		for {
			conn, err := peer.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	db := freeAddress(t)
	s := startListening(t, fmt.Sprintf(", { name: db, address: %q, protocol: tcp, service: db }", db),
		fmt.Sprintf("shutdown: { idle: 0s, grace: 1h }\nservices: { db: { peers: [%q] } }\nroutes: [{ service: db }]\n", peer.Addr()))
	connect := func() net.Conn {
		t.Helper()
		var conn net.Conn
		awaitThat(t, "the listener accepts", func() (ok bool) {
			conn, err = net.Dial("tcp", db)
			return err == nil
		})
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	echoes := func(conn net.Conn, text string) {
		t.Helper()
		io.WriteString(conn, text)
		b := make([]byte, len(text))
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != text {
			t.Errorf("got %q, %v, want %q", b, err, text)
		}
	}
	first, other := connect(), connect()
	echoes(first, "one")
	echoes(other, "one")
	old := s.pid
	s.signal(syscall.SIGUSR2)
	s.pid = awaitPID(t, s.pidFile, old)
	second := connect()
	for _, conn := range []net.Conn{first, other, second} {
		echoes(conn, "two")
	}
	for _, conn := range []net.Conn{first, other, second} { // the old process may have accepted the second one too
		conn.Close()
	}
	s.awaitEnd(old) // long before its grace
	third := connect()
	echoes(third, "three")
	third.Close()
	s.end()
}

// freeAddress returns a loopback address that no other process of tests uses until t ends.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", consultest.ReservePort(t))
}
