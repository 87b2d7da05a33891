package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/upstream"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// A badRequest is ambiguous or malformed. bad is the invalid part, which must not get through.
type badRequest struct {
	name         string
	request, bad string
	inBody       bool // the head is correct and may get through; the whole must not
	status       int  // of sluice's answer; 0: 400
}

// TestAgainstOthers sends malformed and unusual requests through sluice, nginx and HAProxy and
// prints the results. The oracle of FuzzProxy finds what it finds (docs/testing.md), so it runs
// only on demand.
func TestAgainstOthers(t *testing.T) {
	if os.Getenv("SLUICE_DIFFERENTIAL") == "" {
		t.Skip("set SLUICE_DIFFERENTIAL=1 to compare with nginx and HAProxy")
	}
	t.Run("sluice", func(t *testing.T) {
		t.Parallel()
		origin := startWitness(t)
		p := startProxy(t, Options{}, origin.address())
		through, unanswered, broken := runDifferential(t, origin, p.address, patience, func() { origin.settle(p) })
		verify.That(t, len(through) == 0 && len(unanswered) == 0 && len(broken) == 0, "let through: %q\nnot answered by an error and the end of the connection: %q\nbroken: %q", through, unanswered, broken)
	})
	for _, other := range []otherProxy{nginx, haproxy} {
		t.Run(other.name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("only sluice itself in short mode")
			}
			t.Parallel()
			origin := startWitness(t)
			address := other.start(t, origin.address())
			runDifferential(t, origin, address, time.Second, func() { time.Sleep(time.Millisecond) })
		})
	}
}

// runDifferential sends all requests to a proxy and returns the names of the
// bad ones that got through, or that were not answered by an error and the end
// of the connection, and of the good ones that did not work. settle waits until
// the witness has seen all that is sent to it.
func runDifferential(t *testing.T, origin *witness, proxy string, patience time.Duration, settle func()) (through, unanswered, broken []string) {
	asSent := 0
	for _, bad := range badRequests {
		got := origin.observe(func() {
			if status, ended := converse(t, proxy, bad.request, patience); status < 400 || !ended {
				unanswered = append(unanswered, bad.name)
			}
			settle()
		})
		if !bad.inBody && got.bytes == "" || bad.inBody && !got.complete {
			continue
		}
		through = append(through, bad.name)
		if strings.Contains(got.bytes, bad.bad) {
			asSent++
		}
	}
	for _, good := range goodRequests {
		var status []int
		got := origin.observe(func() {
			status = goodExchange(t, proxy, good, patience)
			settle()
		})
		if want := cmp.Or(len(good.want), 1); len(status) != want || slices.ContainsFunc(status, func(s int) bool { return s != 200 }) ||
			!slices.Equal(got.requests, good.want) {
			broken = append(broken, fmt.Sprintf("%s: status %d, the peer got %.200q", good.name, status, got.requests))
		}
	}
	t.Logf("of %d bad requests, %d get through (%d with what is wrong in them): %q\nof %d good requests, %d do not work: %q",
		len(badRequests), len(through), asSent, through, len(goodRequests), len(broken), broken)
	return through, unanswered, broken
}

// converse sends a request on a new connection and reads an answer and, for a
// moment, what follows it, or for as long as patience lasts. ended reports
// whether the connection then ended.
func converse(t *testing.T, proxy, request string, patience time.Duration) (status int, ended bool) {
	conn := verify.Result(net.Dial("tcp", proxy)).Must(t)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	go io.WriteString(conn, request)
	reader := bufio.NewReader(conn)
	method, _, _ := strings.Cut(request, " ")
	r, err := http.ReadResponse(reader, &http.Request{Method: method})
	if err != nil {
		return 0, errors.Is(err, io.ErrUnexpectedEOF)
	}
	io.Copy(io.Discard, r.Body)
	if !r.Close {
		conn.SetDeadline(time.Now().Add(patience / 20))
	}
	rest, err := io.ReadAll(reader)
	return r.StatusCode, err == nil && len(rest) == 0
}

// goodExchange sends a good request and returns the status of each answer.
func goodExchange(t *testing.T, proxy string, good goodRequest, patience time.Duration) (status []int) {
	conn := verify.Result(net.Dial("tcp", proxy)).Must(t)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(max(patience, 5*time.Second)))
	if good.byteByByte {
		for i := range len(good.request) {
			io.WriteString(conn, good.request[i:i+1])
		}
	} else {
		go io.WriteString(conn, good.request)
	}
	reader := bufio.NewReader(conn)
	for _, want := range good.want {
		method, _, _ := strings.Cut(want, " ")
		for {
			r, err := http.ReadResponse(reader, &http.Request{Method: method})
			if err != nil {
				return status
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return status
			}
			if r.StatusCode >= 200 {
				status = append(status, r.StatusCode)
				break
			}
		}
	}
	return status
}

// A witness is a peer that answers every request and remembers what it got.
type witness struct {
	*origin
	mu       sync.Mutex
	complete bool     // some request was complete. Guarded by mu
	requests []string // complete ones: "POST /a host body". Guarded by mu
}

// A testimony is what the witness saw of one case.
type testimony struct {
	bytes    string
	complete bool
	requests []string
}

func startWitness(t testing.TB) *witness {
	w := &witness{}
	w.origin = startOrigin(t, func(c *originConn) bool {
		r, err := readWitnessed(c.Reader, 1)
		if err != nil {
			if err != io.EOF {
				io.WriteString(c.Conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			}
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		if len(body) > 100 {
			body = fmt.Appendf(nil, "%d bytes", len(body))
		}
		w.mu.Lock()
		w.complete = true
		w.requests = append(w.requests, fmt.Sprintf("%s %s %s %s", r.Method, r.RequestURI, r.Host, body))
		w.mu.Unlock()
		_, err = io.WriteString(c.Conn, okResponse[:len(okResponse)-len("ok")])
		if err == nil && r.Method != "HEAD" {
			_, err = io.WriteString(c.Conn, "ok")
		}
		return err == nil
	})
	return w
}

// readWitnessed reads a request whatever its target is, which net/http would
// not. Its body may take up to mostBytes from the reader that follow the request, and
// cannot have more bytes of trailers.
func readWitnessed(reader *bufio.Reader, mostBytes int) (*http.Request, error) {
	line, err := reader.ReadString('\n')
	if err != nil {
		return nil, err
	}
	parts := strings.Split(strings.TrimRight(line, "\r\n"), " ")
	if len(parts) != 3 {
		return nil, fmt.Errorf("request line %q", line)
	}
	// Of a *bufio.Reader that is large enough, ReadRequest takes no copy.
	joined := bufio.NewReaderSize(io.MultiReader(strings.NewReader(parts[0]+" / "+parts[2]+"\r\n"), reader), mostBytes)
	r, err := http.ReadRequest(joined)
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	r.RequestURI = parts[1]
	return r, nil
}

// settle waits until the proxy is at rest and the witness has read all that was
// sent to it.
func (w *witness) settle(p *testProxy) {
	p.t.Helper()
	last := verify.Result(net.Dial("tcp", w.address())).Must(p.t)
	last.Close()
	eventually(p.t, "all connections to the witness are accepted", func() bool { return w.hasAccepted(last.LocalAddr()) })
	eventually(p.t, "the witness is at rest", func() bool {
		idle, busy := p.pool.Snapshot().All[0].Transport.(*upstream.Transport).Connections()
		return p.Connections() == 0 && p.inflight() == 0 && busy == 0 && w.open() == idle
	})
}

// observe returns what arrived while f ran.
func (w *witness) observe(f func()) testimony {
	w.mu.Lock()
	w.complete, w.requests = false, nil
	w.mu.Unlock()
	w.origin.forget()
	f()
	w.mu.Lock()
	defer w.mu.Unlock()
	return testimony{w.origin.got(), w.complete, w.requests}
}

// An otherProxy is a program to compare with.
type otherProxy struct {
	name   string
	config string // with the addresses to listen on and to forward to
	args   func(dir, config string) []string
}

var nginx = otherProxy{"nginx", `
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events {}
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	client_max_body_size 0;
	large_client_header_buffers 4 16k;
	server {
		listen %s;
		location / {
			proxy_pass http://%s;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
		}
	}
}
`, func(dir, config string) []string { return []string{"-p", dir, "-e", "stderr", "-c", config} }}

var haproxy = otherProxy{"haproxy", `
global
	maxconn 100
defaults
	mode http
	timeout connect 5s
	timeout client 5s
	timeout server 5s
frontend f
	bind %s
	default_backend b
backend b
	server s %s
`, func(_, config string) []string { return []string{"-db", "-f", config} }}

// start runs the proxy in front of a peer until the test ends, and returns its
// address.
func (o *otherProxy) start(t *testing.T, peer string) (address string) {
	program, err := exec.LookPath(o.name)
	if err != nil {
		if program, err = exec.LookPath(filepath.Join("/usr/sbin", o.name)); err != nil {
			t.Skipf("%s is not installed", o.name)
		}
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	for range 5 { // somebody else may take the port
		l := listen(t)
		address = l.Addr().String()
		l.Close()
		verify.NoError(t, os.WriteFile(config, fmt.Appendf(nil, o.config, address, peer), 0o600))
		var output bytes.Buffer
		process := verify.Result(subprocess.Start(subprocess.Options{Program: program, Args: o.args(dir, config), Dir: dir, Output: &output})).Must(t)
		for started := time.Now(); time.Since(started) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
			if conn, err := net.Dial("tcp", address); err == nil {
				conn.Close()
				t.Cleanup(func() { process.Kill() })
				return address
			}
			select {
			case <-process.Exited():
				t.Logf("%s ended: %v, %s", o.name, process.Err(), &output)
				started = time.Time{}
			default:
			}
		}
		process.Kill()
	}
	t.Skipf("%s does not start", o.name)
	return ""
}
