package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
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
)

// Ten times a new process takes over under load, on connections that are kept
// and on new ones: no request fails and no connection is refused or reset.
func TestReplaceUnderLoad(t *testing.T) {
	upgrades := 10
	if testing.Short() {
		upgrades = 3
	}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
		io.WriteString(w, "ok")
	}))
	defer origin.Close()

	dir := t.TempDir()
	address, admin := freeAddress(t), freeAddress(t)
	configuration := filepath.Join(dir, "sluice.yaml")
	pidFile := filepath.Join(dir, "pid")
	text := fmt.Sprintf("listeners: [{ name: web, address: %q }]\nadmin: { address: %q }\naccess_log: { path: \"off\" }\nservices: { star: { peers: [%q] } }\nroutes: [{ service: star }]\nshutdown: { idle: 20s, grace: 1m }\n",
		address, admin, strings.TrimPrefix(origin.URL, "http://"))
	if err := os.WriteFile(configuration, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	command := exec.Command(releaseProgram(t), "run", "--config", configuration, "--pid-file", pidFile)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	pid := awaitPID(t, pidFile, 0)
	defer func() {
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log:\n%s", text)
		}
	}()
	defer func() { syscall.Kill(pid, syscall.SIGTERM) }()

	stop := make(chan struct{})
	var load sync.WaitGroup
	var served atomic.Int64
	for i := range 8 {
		load.Go(func() {
			client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := post(client, "http://"+address+"/"); err != nil {
					t.Errorf("request %d: %v", served.Load(), err)
					return
				}
				served.Add(1)
				time.Sleep(4 * time.Millisecond)
			}
		})
	}

	first := pid
	for range upgrades {
		before := served.Load()
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		old := pid
		pid = awaitPID(t, pidFile, old)
		awaitEnd(t, old, command, first)
		for deadline := time.Now().Add(patience); served.Load() < before+100 && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond)
		}
	}
	close(stop)
	load.Wait()
	t.Logf("%d upgrades, %d requests", upgrades, served.Load())

	// The last one stops as ever, and nobody listens afterwards.
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, pid, command, first)
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("somebody still listens")
	}
}

// post sends a request that no client repeats by itself.
func post(client *http.Client, url string) error {
	r, err := client.Post(url, "text/plain", bufio.NewReader(strings.NewReader("body")))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.StatusCode != 200 || string(body) != "bodyok" {
		return fmt.Errorf("status %s, body %q", r.Status, body)
	}
	return nil
}

// A new process that cannot start, here for its configuration, changes nothing.
func TestReplaceByBrokenProcess(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	defer origin.Close()
	dir := t.TempDir()
	address, admin := freeAddress(t), freeAddress(t)
	configuration, pidFile, logFile := filepath.Join(dir, "sluice.yaml"), filepath.Join(dir, "pid"), filepath.Join(dir, "log")
	text := fmt.Sprintf("listeners: [{ name: web, address: %q }]\nadmin: { address: %q }\nservices: { star: { peers: [%q] } }\nroutes: [{ service: star }]\n",
		address, admin, strings.TrimPrefix(origin.URL, "http://"))
	if err := os.WriteFile(configuration, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	command := exec.Command(releaseProgram(t), "run", "--config", configuration, "--pid-file", pidFile)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	pid := awaitPID(t, pidFile, 0)
	if err := os.WriteFile(configuration, []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if text, _ := os.ReadFile(logFile); strings.Contains(string(text), "not replaced, going on") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the log does not say that it failed")
		}
	}
	if r, err := http.Get("http://" + address + "/"); err != nil || r.StatusCode != 200 {
		t.Errorf("the old process does not serve: %v, %v", r, err)
	}
	command.Process.Signal(syscall.SIGTERM)
	if err := command.Wait(); err != nil {
		t.Errorf("the old process ended with %v", err)
	}
}

// freeAddress returns a loopback address that nobody listens at. Its port is below
// those that the system gives to connections and to listeners on any port: else
// somebody might get it by chance before it is used.
func freeAddress(t *testing.T) string {
	t.Helper()
	const firstPort, lastPort = 10000, 32767
	for try := 0; ; try++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(lastPort-firstPort+1)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
		if try == 100 {
			t.Fatal(err)
		}
	}
}

// awaitPID waits until the file names another process than old.
func awaitPID(t *testing.T, file string, old int) int {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(string(text)); err == nil && pid != old {
			return pid
		}
		if time.Now().After(deadline) {
			t.Fatalf("no process but %d serves", old)
		}
	}
}

// awaitEnd waits until a process has ended: the first one is our child, the
// others are those of the one before.
func awaitEnd(t *testing.T, pid int, command *exec.Cmd, first int) {
	t.Helper()
	if pid == first {
		if err := command.Wait(); err != nil {
			t.Fatalf("the first process ended with %v", err)
		}
		return
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		// An orphan may stay as a zombie where nobody reaps it.
		if _, rest, ok := strings.Cut(string(status), ") "); ok && strings.HasPrefix(rest, "Z") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not end", pid)
		}
	}
}
