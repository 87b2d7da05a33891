package cli

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/verify"
)

// Under load on persistent and on new connections, a new process takes over ten times. No request
// fails, and no connection is refused or reset.
func TestReplaceUnderLoad(t *testing.T) {
	t.Parallel()
	upgrades := long.Count(t, 3, 10)
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
	verify.That(t, !listens("tcp", s.address), "a process still listens")
}

// static returns a configuration with one peer.
func static(url string) string {
	return fmt.Sprintf("services: { star: { peers: [%q] } }\nroutes: [{ service: star }]\n", strings.TrimPrefix(url, "http://"))
}

// A listener that a reload of the new process removes before that serves is closed when it does: until then
// the old process serves it.
func TestListenerIsRemovedWhileANewProcessStarts(t *testing.T) {
	t.Parallel()
	hanging := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t) // it answers no check, so a new process waits
	defer hanging.Close()
	more := freeAddress(t)
	text := static("http://127.0.0.1:1")
	s := startListening(t, fmt.Sprintf(", { name: more, address: %q }", more), text)
	s.configure(strings.Replace(text, "services: {", fmt.Sprintf("services: { hanging: { peers: [%q], health: { active: { timeout: 5m, must_pass_first: true } } },", hanging.Addr()), 1))
	s.awaitLog("configuration applied")
	old := s.pid
	s.signal(syscall.SIGUSR2)
	s.awaitLog("the state of the old process is restored")
	verify.That(t, listens("tcp", more), "the listener is closed before its removal")
	s.listeners = ""
	s.configure(text) // nothing to wait for any more
	s.pid = awaitPID(t, s.pidFile, old)
	s.awaitEnd(old)
	awaitThat(t, "the removed listener is closed", func() bool { return !listens("tcp", more) })
	s.end()
}

// A signal that comes while a new process starts reaches the old one, and still counts for the access log of the new one.
func TestLogIsRotatedWhileANewProcessStarts(t *testing.T) {
	t.Parallel()
	var upgrading atomic.Bool
	proceed := make(chan struct{})
	checked := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if upgrading.Load() {
			<-proceed // a new process waits for it
		}
	}))
	defer checked.Close()
	path := filepath.Join(t.TempDir(), "access.log")
	s := newServing(t, "", "")
	s.accessLog = path
	s.configure(strings.Replace(static(checked.URL), "] }", "], health: { active: { type: http, path: /, timeout: 5m, must_pass_first: true } } }", 1))
	s.serve()
	upgrading.Store(true)
	old := s.pid
	s.signal(syscall.SIGUSR2)
	s.awaitLog("the state of the old process is restored")
	verify.NoError(t, os.Rename(path, path+".1"))
	s.signal(syscall.SIGHUP)
	awaitThat(t, "the old process has a new file", func() bool { _, err := os.Stat(path); return err == nil })
	close(proceed)
	s.pid = awaitPID(t, s.pidFile, old)
	s.awaitEnd(old)
	awaitThat(t, "the new file has a line of the new process", func() bool {
		s.get("http://" + s.address + "/afterwards")
		lines, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(lines), "/afterwards")
	})
	s.end()
}

// A new process serves, and ends the old one, although it cannot write the pid file.
func TestReplaceWithoutAPIDFile(t *testing.T) {
	t.Parallel()
	m := startServiceManager(t) // which knows the new process
	s := newServing(t, "", static("http://127.0.0.1:1"))
	m.activate(s.command, "", nil)
	s.serve()
	verify.NoError(t, os.Remove(s.pidFile))
	verify.NoError(t, os.MkdirAll(filepath.Join(s.pidFile, "in the way"), 0o700))
	old := s.pid
	s.signal(syscall.SIGUSR2)
	message, _ := m.await(0, "MAINPID=")
	s.awaitLog("replaced by a new process")
	_, err := fmt.Sscanf(message, "MAINPID=%d", &s.pid)
	verify.NoError(t, err)
	s.awaitEnd(old)
	s.awaitLog("write the pid file")
	s.end()
}

// Inherited listeners are also protected from requests to peers.
func TestNoRequestReachesAnInheritedListener(t *testing.T) {
	t.Parallel()
	s := startServing(t, static("http://127.0.0.1:1"))
	for _, own := range []string{s.admin, s.address} {
		s.configure(static("http://" + own))
		s.replace()
		status, body := s.get("http://" + s.address + "/api/peers")
		verify.That(t, status == http.StatusServiceUnavailable, "a peer at %s: %d %s", own, status, body)
	}
	s.end()
}

// freeAddress returns a loopback address that no other process of tests uses until t ends.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", consultest.ReservePort(t))
}
