package clients

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/test/consultest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// gtlsclient makes requests on one connection of HTTP/3, and returns what the program prints. All
// must be answered with 200.
func gtlsclient(t *testing.T, address string, urls []string, args ...string) (output string) {
	t.Helper()
	return startGTLSClient(t, address, urls, args...).end(t)
}

// visitor is a gtlsclient that runs.
type visitor struct {
	process  *subprocess.Process
	args     []string
	output   subprocess.Output
	requests int
}

// startGTLSClient is gtlsclient without its end. Packets that are lost cost it little time.
func startGTLSClient(t *testing.T, address string, urls []string, args ...string) *visitor {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	verify.NoError(t, err)
	args = append(args, "--exit-on-all-streams-close", "--no-quic-dump", "--no-http-dump", "--timeout=2m", "--handshake-timeout=1m",
		"--initial-rtt=20ms", host, port)
	v := &visitor{args: append(args, urls...), requests: len(urls)}
	v.process = verify.Result(subprocess.Start(subprocess.Options{Program: "gtlsclient", Args: v.args, Output: &v.output})).Must(t)
	t.Cleanup(func() { verify.Succeeds(t, v.process.Kill()) })
	return v
}

// end waits for the answers.
func (v *visitor) end(t *testing.T) (output string) {
	t.Helper()
	select {
	case <-v.process.Exited():
	case <-time.After(patience):
		t.Fatalf("gtlsclient %q does not end:\n%s", v.args, &v.output)
	}
	output = v.output.String()
	for text, want := range map[string]int{
		// H3_NO_ERROR.
		"QUIC handshake has completed": 1, "[:status: 200]": v.requests, "closed with error code 256": v.requests,
	} {
		got := strings.Count(output, text)
		verify.Require(t, v.process.Err() == nil && got == want, "gtlsclient %q: %v: got %d times %q, want %d times:\n%s",
			v.args, v.process.Err(), got, text, want, output)
	}
	return output
}

// inOrder fails the test unless the texts are in output, one after the other.
func inOrder(t *testing.T, output string, texts ...string) {
	t.Helper()
	rest := output
	for _, text := range texts {
		var found bool
		_, rest, found = strings.Cut(rest, text)
		verify.Require(t, found, "not in this order: %q:\n%s", texts, output)
	}
}

func testGTLSClient(t *testing.T, s *stage) {
	body := bodies["long"][:300_000]
	path := file(t, body)
	// later is the option of requests that begin some time after the handshake. Before that,
	// the program does what its other options say.
	const later, request = "--delay-stream=300ms", "submit request headers"
	for _, visit := range []struct {
		name     string
		requests int
		args     []string
		printed  []string // with requests with bodies, in this order
	}{
		{"one request", 1, nil, []string{"Negotiated ALPN is h3", request}},
		{"20 requests", 20, nil, nil},
		{"a tenth of the packets is lost", 20, []string{"--tx-loss=0.1", "--rx-loss=0.1"}, []string{"Simulated", "packet loss"}},
		// sluice learns of the new address from the packets that come from it, and checks
		// it.
		{"NAT rebinding", 1, []string{later, "--change-local-addr=100ms", "--nat-rebinding"},
			[]string{"Changing local address", "PATH_CHALLENGE", "PATH_RESPONSE"}},
		{"migration", 1, []string{later, "--change-local-addr=100ms"},
			[]string{"Changing local address", "Path validation against path", "succeeded"}},
		{"key update", 1, []string{later, "--key-update=100ms"}, []string{"Initiate key update", request}},
	} {
		t.Run(visit.name, func(t *testing.T) {
			gtlsclient(t, s.address, s.urls("/hello?", visit.requests), visit.args...)
			answers := t.TempDir()
			args := append([]string{"--http-method=POST", "--data=" + path, "--download=" + answers}, visit.args...)
			inOrder(t, gtlsclient(t, s.address, s.urls("/echo/", visit.requests), args...), visit.printed...)
			for n := range visit.requests {
				got := string(verify.Result(os.ReadFile(filepath.Join(answers, fmt.Sprint(n)))).Must(t))
				verify.That(t, got == body, "answer %d: got %d bytes, want the %d of the request", n, len(got), len(body))
			}
		})
	}
	t.Run("0-RTT", func(t *testing.T) { testEarlyData(t, s) })
	t.Run("upgrade", func(t *testing.T) { testUpgrade(t, s) })
}

// urls returns n URLs, of a path followed by 0, 1 and so on.
func (s *stage) urls(path string, n int) (urls []string) {
	for i := range n {
		urls = append(urls, s.url(path+fmt.Sprint(i)))
	}
	return urls
}

// A request of early data, which an attacker could repeat, is served once, after the handshake.
func testEarlyData(t *testing.T, s *stage) {
	dir := t.TempDir()
	session, parameters := filepath.Join(dir, "session"), filepath.Join(dir, "parameters")
	args := []string{"--session-file=" + session, "--tp-file=" + parameters}
	consultest.Await(t, "a session and its parameters are stored", func() bool {
		gtlsclient(t, s.address, s.urls("/hello?", 1), args...)
		_, noSession := os.Stat(session)
		_, noParameters := os.Stat(parameters)
		return noSession == nil && noParameters == nil
	})
	const early = "/hello?early"
	out := gtlsclient(t, s.address, []string{s.url(early)}, args...)
	inOrder(t, out, "type=0RTT", "Early data was rejected by server", "[:path: "+early+"]", "[:status: 200]")
	consultest.Await(t, "it is logged", func() bool { return len(s.logged(t, early)) > 0 })
	verify.Slices(t, s.logged(t, early), []string{"HTTP/3.0"}, "requests in the access log")
}

// A new process takes over while requests wait for their answers. The connection stays that of the
// old process: what the client sends is passed on to it, and the answers are complete.
func testUpgrade(t *testing.T, s *stage) {
	const requests = 20
	// Much longer than what is sent before the client confirms it.
	answer := bodies["long"][:300_000]
	var arrived atomic.Int32
	proceed := make(chan struct{})
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived.Add(1)
		<-proceed
		io.WriteString(w, answer)
	}))
	t.Cleanup(peer.Close)
	answerAll := sync.OnceFunc(func() { close(proceed) })
	t.Cleanup(answerAll)
	sluice := s.startUpgradable(t, peer.Listener.Addr().String())

	answers := t.TempDir()
	urls := make([]string, requests)
	for n := range urls {
		urls[n] = fmt.Sprintf("https://%s/%d", sluice.address, n)
	}
	client := startGTLSClient(t, sluice.address, urls, "--download="+answers)
	consultest.Await(t, "all requests are at the peer", func() bool { return arrived.Load() == requests })
	verify.NoError(t, syscall.Kill(sluice.pid, syscall.SIGUSR2))
	sluice.awaitOther(t)
	answerAll()
	client.end(t)
	for n := range requests {
		got, err := os.ReadFile(filepath.Join(answers, fmt.Sprint(n)))
		verify.That(t, err == nil && string(got) == answer, "answer %d: got %d bytes, want %d: %v", n, len(got), len(answer), err)
	}
	verify.Equal(t, arrived.Load(), requests, "requests at the peer")
	passed := sluice.metric(t, `sluice_http3_packets_total{fate="passed",listener="web"} `)
	verify.That(t, passed > 0, "the new process has passed on %v packets", passed)
}

// upgradable is a sluice that a new process replaces.
type upgradable struct {
	address, admin, pidFile string
	// The first one, which ends with the last one: that has its output.
	process *subprocess.Process
	log     subprocess.Output
	pid     int // of the process that serves
}

// startUpgradable runs a sluice with HTTP/3, whose last process ends with the test.
func (s *stage) startUpgradable(t *testing.T, peer string) *upgradable {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "sluice.yaml")
	address := func() string { return fmt.Sprint("127.0.0.1:", consultest.ReservePort(t)) }
	u := &upgradable{address: address(), admin: address(), pidFile: filepath.Join(dir, "pid")}
	verify.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
access_log: { path: off }
admin: { address: %q }
shutdown: { delay: 0s }
listeners: [{ name: web, address: %q, http3: true, tls: { certificates: [{ cert: %q, key: %q }] } }]
services: { site: { peers: [%q] } }
routes: [{ service: site }]
`, u.admin, u.address, s.cert, s.key, peer), 0o600))
	u.process = verify.Result(subprocess.Start(subprocess.Options{
		Program: s.program, Args: []string{"run", "--config", file, "--pid-file", u.pidFile}, Output: &u.log,
	})).Must(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sluice's log:\n%s", &u.log)
		}
		if u.pid != 0 {
			verify.Succeeds(t, syscall.Kill(u.pid, syscall.SIGTERM))
		}
		verify.Succeeds(t, u.process.Stop())
	})
	u.awaitOther(t)
	return u
}

// awaitOther waits until another process serves than before.
func (u *upgradable) awaitOther(t *testing.T) {
	t.Helper()
	before := u.pid
	consultest.Await(t, "a process serves", func() bool {
		text, _ := os.ReadFile(u.pidFile)
		pid, err := strconv.Atoi(string(text))
		if err == nil && pid != before {
			u.pid = pid
		}
		select {
		case <-u.process.Exited():
			t.Fatalf("sluice has ended: %v", u.process.Err())
		default:
		}
		return u.pid != before
	})
}

// metric returns the value of a metric, with its labels, of the process that serves.
func (u *upgradable) metric(t *testing.T, name string) (value float64) {
	t.Helper()
	answer := verify.Result(http.Get("http://" + u.admin + "/metrics")).Must(t)
	defer answer.Body.Close()
	_, rest, found := strings.Cut(string(verify.Result(io.ReadAll(answer.Body)).Must(t)), "\n"+name)
	verify.Require(t, found, "there is no metric %s", name)
	text, _, _ := strings.Cut(rest, "\n")
	return verify.Result(strconv.ParseFloat(text, 64)).Must(t)
}
