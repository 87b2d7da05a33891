package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
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
	s := startServing(t, static(origin.URL))
	l := startLoad(t, 8, func(int) (*http.Request, string) {
		// No client repeats this by itself.
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

	// The last one stops as ever, and nobody listens afterwards.
	s.end()
	if conn, err := net.Dial("tcp", s.address); err == nil {
		conn.Close()
		t.Error("somebody still listens")
	}
}

// static is a configuration with one peer.
func static(url string) string {
	return fmt.Sprintf("services: { star: { peers: [%q] } }\nroutes: [{ service: star }]\n", strings.TrimPrefix(url, "http://"))
}

// A new process that cannot start, here for its configuration, changes nothing.
func TestReplaceByBrokenProcess(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	defer origin.Close()
	s := startServing(t, static(origin.URL))
	if err := os.WriteFile(s.configuration, []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGUSR2)
	awaitThat(t, "the log says that it failed", func() bool { return strings.Contains(s.log(), "not replaced, going on") })
	if r, err := http.Get("http://" + s.address + "/"); err != nil || r.StatusCode != 200 {
		t.Errorf("the old process does not serve: %v, %v", r, err)
	}
	s.end()
}

// Listeners that were taken over are as much its own as those that it has bound.
func TestAfterReplacingNoRequestReachesAListenerOfItsOwn(t *testing.T) {
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

// freeAddress returns a loopback address that nobody listens at. Its port is below
// those that the system gives to connections and to listeners on any port: else
// somebody might get it by chance before it is used. Where it begins to look
// depends on the process alone.
func freeAddress(t *testing.T) string {
	t.Helper()
	const firstPort, ports = 10000, 32768 - 10000
	for range ports {
		nextPort++
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", firstPort+nextPort%ports))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// nextPort is where freeAddress looks next: another place in each process, and
// no place twice. No test of this package runs in parallel.
var nextPort = os.Getpid() * 37
