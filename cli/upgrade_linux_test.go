package cli

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// Under load on persistent and on new connections, a new process takes over ten times. No request
// fails, and no connection is refused or reset.
func TestReplaceUnderLoad(t *testing.T) {
	t.Parallel()
	upgrades := long.Count(t, 3, 10)
	s := startServing(t, static(serveHandler(t, repeats)))
	l := startLoad(t, 8, func(int) (*http.Request, string) {
		// No client repeats this request automatically.
		r, _ := http.NewRequest(http.MethodPost, "http://"+s.address+"/", bufio.NewReader(strings.NewReader("body")))
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

// repeats answers with the body of the request.
func repeats(w http.ResponseWriter, r *http.Request) {
	io.Copy(w, r.Body)
	io.WriteString(w, "ok")
}

// static returns a configuration with one peer.
func static(url string) string {
	return fmt.Sprintf("services: { star: { peers: [%q] } }\nroutes: [{ service: star }]\n", strings.TrimPrefix(url, "http://"))
}

// A listener that a reload of the new process removes before that serves is closed when it does:
// until then the old process serves it.
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

// A signal that comes while a new process starts reaches the old one, and still counts for the
// access log of the new one.
func TestLogIsRotatedWhileANewProcessStarts(t *testing.T) {
	t.Parallel()
	var upgrading atomic.Bool
	proceed := make(chan struct{})
	checked := serveHandler(t, func(http.ResponseWriter, *http.Request) {
		if upgrading.Load() {
			<-proceed // a new process waits for it
		}
	})
	path := filepath.Join(t.TempDir(), "access.log")
	s := newServing(t, "", "")
	s.accessLog = path
	s.configure(strings.Replace(static(checked), "] }", "], health: { active: { type: http, path: /, timeout: 5m, must_pass_first: true } } }", 1))
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

// Who waits for the requests of a peer waits also for those that the old process has yet to finish,
// and that learns of the drain. So it is after each of several upgrades, also after one that has
// failed.
func TestDrainWaitsForTheOldProcess(t *testing.T) {
	t.Parallel()
	s, requests := startWaiting(t)
	drain := []string{"drain", "--force", requests.peer, "--why", "new disk", "--admin", s.admin, "--wait"}
	for n := range 2 {
		if n > 0 {
			s.write("no configuration")
			s.signal(syscall.SIGUSR2)
			s.awaitLog("the new process does not serve: this one continues")
			s.configure(static("http://" + requests.peer))
		}
		answered := requests.begin(s)
		old := s.pid
		s.signal(syscall.SIGUSR2)
		s.pid = awaitPID(t, s.pidFile, old)
		s.awaitLogs(`"stopping"`, n+1) // it has closed its admin API
		prints(t, exitFailed, "still has 1 in flight after 0s", append(drain, "0s")...)
		status, body := s.get("http://" + s.admin + "/api/peers?process=former&state=draining")
		verify.That(t, status == http.StatusOK && strings.Contains(body, "drain: new disk"), "the old process: %d %s", status, body)
		requests.proceed <- struct{}{}
		verify.Equal(t, <-answered, http.StatusOK, "the status of the request")
		prints(t, exitOK, "0 in flight", append(drain, patience.String())...)
		s.awaitEnd(old)
		prints(t, exitOK, "0 in flight", append(drain, "0s")...)
		prints(t, exitOK, "", "enable", requests.peer, "--admin", s.admin)
	}
	s.end()
}

// An old process that hangs has maybe requests in flight: who asks gets no answer that says there
// are none. When it goes on, its answers do, and none is that to a question from before.
func TestDrainSaysThatTheOldProcessHangs(t *testing.T) {
	t.Parallel()
	s, requests := startWaiting(t)
	answered := requests.begin(s)
	old := s.pid
	s.signal(syscall.SIGUSR2)
	s.pid = awaitPID(t, s.pidFile, old)
	s.awaitLog(`"stopping"`)
	// Without a wait, its other threads might go on and answer.
	verify.NoError(t, subprocess.PauseChild(old))
	defer syscall.Kill(old, syscall.SIGKILL)
	drain := []string{"drain", "--force", requests.peer, "--why", "new disk", "--admin", s.admin, "--wait"}
	const hangs = "the old process still runs and has not answered"
	status, body := s.get("http://" + s.admin + "/api/peers?process=former")
	verify.That(t, status == http.StatusServiceUnavailable && strings.Contains(body, hangs), "asked: %d %s", status, body)
	prints(t, exitFailed, hangs, append(drain, patience.String())...)
	verify.NoError(t, syscall.Kill(old, syscall.SIGCONT))
	status, body = s.get("http://" + s.admin + "/api/peers?process=former&state=draining")
	verify.That(t, status == http.StatusOK && strings.Contains(body, "drain: new disk"), "asked when it goes on: %d %s", status, body)
	requests.proceed <- struct{}{}
	verify.Equal(t, <-answered, http.StatusOK, "the status of the request")
	s.awaitEnd(old)
	prints(t, exitOK, "0 in flight", append(drain, "0s")...)
	s.end()
}

// waiting is a peer whose requests wait.
type waiting struct {
	peer             string // its address
	arrived, proceed chan struct{}
}

// startWaiting starts sluice with one peer, whose requests wait.
func startWaiting(t *testing.T) (*serving, waiting) {
	w := waiting{arrived: make(chan struct{}), proceed: make(chan struct{})}
	w.peer = serveHandler(t, func(_ http.ResponseWriter, r *http.Request) {
		w.arrived <- struct{}{}
		select {
		case <-w.proceed:
		case <-r.Context().Done():
		}
	})
	return startServing(t, static(w.peer)), w
}

// begin sends a request that waits, and returns the status of its answer.
func (w waiting) begin(s *serving) <-chan int {
	answered := make(chan int, 1)
	go func() {
		status, _ := tryGet("http://" + s.address + "/")
		answered <- status
	}()
	<-w.arrived
	return answered
}

// freeAddress returns a loopback address that no other process of tests uses until t ends.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", consultest.ReservePort(t))
}
