package cli

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
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
	if conn, err := net.Dial("tcp", s.address); err == nil {
		conn.Close()
		t.Error("a process still listens")
	}
}

// static returns a configuration with one peer.
func static(url string) string {
	return fmt.Sprintf("services: { star: { peers: [%q] } }\nroutes: [{ service: star }]\n", strings.TrimPrefix(url, "http://"))
}

// Inherited listeners are also protected from requests to peers.
func TestNoRequestReachesAnInheritedListener(t *testing.T) {
	t.Parallel()
	s := startServing(t, static("http://127.0.0.1:1"))
	for _, own := range []string{s.admin, s.address} {
		s.configure(static("http://" + own))
		s.replace()
		r := verify.Result(http.Get("http://" + s.address + "/api/peers")).Must(t)
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		verify.That(t, err == nil && r.StatusCode == http.StatusServiceUnavailable, "a peer at %s: %d %s, %v", own, r.StatusCode, body, err)
	}
	s.end()
}

// freeAddress returns a loopback address that no other process of tests uses until t ends.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", consultest.ReservePort(t))
}
