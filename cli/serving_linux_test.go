package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// serving is the release program, in processes that replace each other.
type serving struct {
	t             *testing.T
	address       string // of its listener
	admin         string
	listeners     string // more of them; may be empty
	adminKeys     string // more keys of admin; may be empty
	accessLog     string // its path; empty: off
	configuration string // a file
	pidFile       string
	logFile       string
	terminal      *os.File // its standard error; nil: logFile

	command *exec.Cmd // the first process
	pid     int       // of the current process
}

// startServing runs the program until t ends, or until end. It adds the listeners to text.
func startServing(t *testing.T, text string) *serving {
	t.Helper()
	return startListening(t, "", text)
}

// startListening is startServing with more listeners.
func startListening(t *testing.T, listeners, text string) *serving {
	t.Helper()
	s := newServing(t, listeners, text)
	s.serve()
	return s
}

// newServing is startListening without a start.
func newServing(t *testing.T, listeners, text string) *serving {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: sluice runs in processes of its own")
	}
	dir := t.TempDir()
	s := &serving{
		t: t, address: freeAddress(t), admin: freeAddress(t), listeners: listeners,
		configuration: filepath.Join(dir, "sluice.yaml"), pidFile: filepath.Join(dir, "pid"), logFile: filepath.Join(dir, "log"),
	}
	s.configure(text)
	s.command = exec.Command("env", envRole+"=sluice", os.Args[0], "run", "--config", s.configuration, "--pid-file", s.pidFile)
	return s
}

// start starts the first process. It ends with the test.
func (s *serving) start() {
	s.t.Helper()
	log := verify.Result(os.Create(s.logFile)).Must(s.t)
	defer log.Close() // the process has a copy
	s.command.Stdout, s.command.Stderr = log, cmp.Or(s.terminal, log)
	verify.NoError(s.t, s.command.Start())
	s.t.Cleanup(func() {
		if s.pid == 0 {
			_ = s.command.Process.Kill()
		} else {
			_ = syscall.Kill(s.pid, syscall.SIGTERM)
		}
		if s.t.Failed() {
			s.t.Logf("log:\n%s", s.log())
		}
	})
}

// serve is start, and waits until the process serves.
func (s *serving) serve() {
	s.t.Helper()
	s.start()
	s.pid = awaitPID(s.t, s.pidFile, 0)
}

// configure writes the configuration of the next process: text with the listeners.
func (s *serving) configure(text string) {
	s.t.Helper()
	text = fmt.Sprintf("listeners: [{ name: web, address: %q }%s]\nadmin: { address: %q%s }\naccess_log: { path: %q }\n", s.address, s.listeners, s.admin, s.adminKeys, cmp.Or(s.accessLog, "off")) + text
	// The machine may be busy.
	text += "\ndefaults: { service: { timeouts: { connect: 5m } } }\n"
	s.write(text)
}

// write replaces the configuration with text. Nobody reads a part of it.
func (s *serving) write(text string) {
	s.t.Helper()
	verify.NoError(s.t, os.WriteFile(s.configuration+"~", []byte(text), 0o644))
	verify.NoError(s.t, os.Rename(s.configuration+"~", s.configuration))
}

func (s *serving) log() string {
	text, _ := os.ReadFile(s.logFile)
	return string(text)
}

// replace starts a new process, and waits for the end of the old one.
func (s *serving) replace() {
	s.t.Helper()
	old := s.pid
	s.signal(syscall.SIGUSR2)
	s.pid = awaitPID(s.t, s.pidFile, old)
	s.awaitEnd(old)
}

func (s *serving) signal(which syscall.Signal) {
	s.t.Helper()
	verify.NoError(s.t, syscall.Kill(s.pid, which))
}

// end stops the current process, and waits for its end.
func (s *serving) end() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	s.awaitEnd(s.pid)
}

// awaitEnd waits until a process has ended. The first one is a child of this process, the
// others are children of their predecessors.
func (s *serving) awaitEnd(pid int) {
	s.t.Helper()
	if pid == s.command.Process.Pid {
		verify.NoError(s.t, s.command.Wait())
		return
	}
	awaitThat(s.t, fmt.Sprintf("process %d has ended", pid), func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return true
		}
		// An orphan stays a zombie if no process reaps it. While a process ends, its first
		// thread may be one before the others have ended.
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		_, rest, _ := strings.Cut(string(status), ") ")
		return strings.HasPrefix(rest, "Z") && len(threads) <= 1
	})
}

// awaitPID waits until the file has another process than old.
func awaitPID(t *testing.T, file string, old int) (pid int) {
	t.Helper()
	awaitThat(t, fmt.Sprintf("another process than %d serves", old), func() bool {
		text, _ := os.ReadFile(file)
		var err error
		pid, err = strconv.Atoi(string(text))
		return err == nil && pid != old
	})
	return pid
}

// awaitLog waits until the log has a text.
func (s *serving) awaitLog(text string) {
	s.t.Helper()
	s.awaitLogs(text, 1)
}

// awaitLogs waits until the log has a text n times.
func (s *serving) awaitLogs(text string, n int) {
	s.t.Helper()
	awaitThat(s.t, fmt.Sprintf("the log has %q %d times", text, n), func() bool { return strings.Count(s.log(), text) >= n })
}

// tryGet returns the answer to a request. Without one, the status is 0.
func tryGet(url string) (status int, body string) {
	r, err := (&http.Client{Timeout: patience}).Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err.Error()
	}
	return r.StatusCode, string(text)
}

// get is tryGet, but there must be an answer.
func (s *serving) get(url string) (status int, body string) {
	s.t.Helper()
	status, body = tryGet(url)
	verify.Require(s.t, status != 0, "%s: %s", url, body)
	return status, body
}

// listens reports whether a connection to the address is accepted.
func listens(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// failsToStart runs a command that must end with the status of a failure, and returns what it has
// written.
func failsToStart(t *testing.T, command *exec.Cmd) (output string) {
	t.Helper()
	stuck := time.AfterFunc(patience, func() { _ = command.Process.Kill() })
	defer stuck.Stop()
	text, err := command.CombinedOutput()
	verify.That(t, command.ProcessState.ExitCode() == exitFailed, "%v: %s", err, text)
	return string(text)
}

// awaitThat waits until condition returns true.
func awaitThat(t *testing.T, what string, condition func() bool) {
	t.Helper()
	consultest.Await(t, what, condition)
}

// load sends requests continuously until stop.
type load struct {
	t      *testing.T
	served atomic.Int64
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// lostRequest is the timeout of a client. A request takes milliseconds, and the machine may stand
// still.
const lostRequest = patience

// startLoad starts clients of HTTP/1.1 that send one request at a time, every second client on new
// connections. request returns a numbered request and the expected response, which begins with the
// status if that is not 200. Any other result fails t.
func startLoad(t *testing.T, clients int, request func(number int) (r *http.Request, want string)) *load {
	t.Helper()
	return startLoadOn(t, clients, func(i int) (http.RoundTripper, bool) {
		return &http.Transport{DisableKeepAlives: i%2 == 0}, i%2 == 1
	}, request)
}

// startLoadOn is startLoad with a transport for each client. kept reports whether the client uses a
// connection for more than one request.
func startLoadOn(t *testing.T, clients int, transport func(client int) (on http.RoundTripper, kept bool), request func(number int) (r *http.Request, want string)) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: t, cancel: cancel}
	for i := range clients {
		l.ended.Go(func() {
			on, kept := transport(i)
			c := &loadClient{Client: http.Client{Timeout: lostRequest, Transport: on}}
			defer c.CloseIdleConnections()
			pace := time.Tick(4 * time.Millisecond)
			for number := i; ; number += clients {
				select {
				case <-ctx.Done():
					return
				case <-pace:
				}
				r, want := request(number)
				switch err := c.ask(r, want); {
				case err == nil:
					l.served.Add(1)
				case kept && c.paused > shutdownIdle:
					t.Logf("request %d came after a pause of %v, on a connection that may be closed by then: %v", number, c.paused, err)
				default:
					t.Errorf("request %d: %v", number, err)
				}
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

// shutdownIdle is the default of shutdown.idle. The connection of a client that pauses for
// longer may be closed before its next request.
const shutdownIdle = time.Second

// loadClient records its pause before a request.
type loadClient struct {
	http.Client
	last   time.Time     // time of the last response
	paused time.Duration // from then until the last request was written
}

func (c *loadClient) ask(r *http.Request, want string) error {
	var wrote atomic.Int64 // in nanoseconds; atomic, because the goroutine that writes may still run
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { wrote.Store(time.Now().UnixNano()) },
	}))
	body, status, err := c.read(r)
	now := time.Now()
	if at := wrote.Load(); at != 0 {
		c.paused = time.Unix(0, at).Sub(c.last)
	} else {
		c.paused = now.Sub(c.last)
	}
	c.last = now
	if err == nil && (body != want || status != http.StatusOK && !strings.HasPrefix(want, strconv.Itoa(status))) {
		c.paused = 0
		err = fmt.Errorf("%s: status %d, body %q", r.URL.Path, status, body)
	}
	return err
}

func (c *loadClient) read(r *http.Request) (body string, status int, err error) {
	answer, err := c.Do(r)
	if err != nil {
		return "", 0, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	return string(data), answer.StatusCode, err
}

// more waits until n more requests have been served.
func (l *load) more(n int64) {
	l.t.Helper()
	before := l.served.Load()
	awaitThat(l.t, fmt.Sprintf("%d more requests are served", n), func() bool { return l.served.Load() >= before+n })
}

func (l *load) stop() {
	l.cancel()
	l.ended.Wait()
}
