package main

import (
	"context"
	"fmt"
	"io"
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

	"sluice/consultest"
)

// serving is the program as a release is, in processes that replace each other.
type serving struct {
	t             *testing.T
	address       string // of its listener
	admin         string
	configuration string // a file
	pidFile       string
	logFile       string

	command *exec.Cmd // the first process
	pid     int       // of the one that serves
}

// startServing runs the program until t ends, or end. To text it adds where to listen.
func startServing(t *testing.T, text string) *serving {
	t.Helper()
	program := releaseProgram(t)
	dir := t.TempDir()
	s := &serving{
		t: t, address: freeAddress(t), admin: freeAddress(t),
		configuration: filepath.Join(dir, "sluice.yaml"), pidFile: filepath.Join(dir, "pid"), logFile: filepath.Join(dir, "log"),
	}
	s.configure(text)
	log, err := os.Create(s.logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the process has its own
	s.command = exec.Command(program, "run", "--config", s.configuration, "--pid-file", s.pidFile)
	s.command.Stdout, s.command.Stderr = log, log
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.pid == 0 {
			_ = s.command.Process.Kill()
		} else {
			_ = syscall.Kill(s.pid, syscall.SIGTERM)
		}
		if t.Failed() {
			t.Logf("log:\n%s", s.log())
		}
	})
	s.pid = awaitPID(t, s.pidFile, 0)
	return s
}

// configure makes text, with where to listen, the configuration of the next
// process.
func (s *serving) configure(text string) {
	s.t.Helper()
	text = fmt.Sprintf("listeners: [{ name: web, address: %q }]\nadmin: { address: %q }\naccess_log: { path: \"off\" }\n", s.address, s.admin) + text
	if err := os.WriteFile(s.configuration, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *serving) log() string {
	text, _ := os.ReadFile(s.logFile)
	return string(text)
}

// replace has a new process take over, and waits for the end of the old one.
func (s *serving) replace() {
	s.t.Helper()
	old := s.pid
	s.signal(syscall.SIGUSR2)
	s.pid = awaitPID(s.t, s.pidFile, old)
	s.awaitEnd(old)
}

func (s *serving) signal(which syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(s.pid, which); err != nil {
		s.t.Fatal(err)
	}
}

// end stops the process that serves, and waits for that.
func (s *serving) end() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	s.awaitEnd(s.pid)
}

// awaitEnd waits until a process has ended: the first one is our child, the
// others are those of the one before.
func (s *serving) awaitEnd(pid int) {
	s.t.Helper()
	if pid == s.command.Process.Pid {
		if err := s.command.Wait(); err != nil {
			s.t.Fatalf("the first process ended with %v", err)
		}
		return
	}
	awaitThat(s.t, fmt.Sprintf("process %d has ended", pid), func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		// An orphan may stay as a zombie where nobody reaps it.
		_, rest, _ := strings.Cut(string(status), ") ")
		return err != nil || strings.HasPrefix(rest, "Z")
	})
}

// awaitPID waits until the file names another process than old.
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

// awaitThat waits until condition holds.
func awaitThat(t *testing.T, what string, condition func() bool) {
	t.Helper()
	consultest.Await(t, what, condition)
}

// load is requests without a pause between them, until stop.
type load struct {
	t      *testing.T
	served atomic.Int64
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// lostRequest is how long a client waits: it takes milliseconds.
const lostRequest = 10 * time.Second

// startLoad has clients send requests one after the other, each second client on
// a new connection each time. Request makes the one of that number, and says what
// its answer is to be; another answer, or none, fails t.
func startLoad(t *testing.T, clients int, request func(number int) (r *http.Request, want string)) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: t, cancel: cancel}
	for i := range clients {
		l.ended.Go(func() {
			c := &loadClient{Client: http.Client{Timeout: lostRequest, Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}}
			defer c.CloseIdleConnections()
			pace := time.NewTicker(4 * time.Millisecond)
			defer pace.Stop()
			for number := i; ; number += clients {
				select {
				case <-ctx.Done():
					return
				case <-pace.C:
				}
				r, want := request(number)
				switch err := c.ask(r, want); {
				case err == nil:
					l.served.Add(1)
				case i%2 == 1 && c.paused > shutdownIdle:
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

// shutdownIdle is the default of shutdown.idle: a client that pauses for longer
// may send its next request on a connection that is closed meanwhile.
const shutdownIdle = time.Second

// loadClient knows how long it has paused.
type loadClient struct {
	http.Client
	last   time.Time     // when the last answer was there
	paused time.Duration // from then until the last request had been written
}

func (c *loadClient) ask(r *http.Request, want string) error {
	var wrote atomic.Int64 // in nanoseconds; its goroutine may outlast an answer
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
	if err == nil && (status != http.StatusOK || body != want) {
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
