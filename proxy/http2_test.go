package proxy

import (
	"cmp"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/http2"
	"sluice/test/pinned"
	"sluice/test/verify"
)

// An answer of sluice's own, to a request whose body is not read.
func TestHTTP2Refusals(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Limits: Limits{BodyBytes: 10}, Timeouts: Timeouts{Body: 200 * time.Millisecond}})
	c := p.dialFrames()
	c.request(1, http2Post+"|content-length=1000", false)
	r := c.response(1)
	verify.That(t, r.status == "413" && r.header["x-sluice-reason"] == "body_too_long" && r.header["connection"] == "" && strings.HasPrefix(r.body, "413 "), "got %+v", r)
	c.expectReset(1, xhttp2.ErrCodeNo)
	c.WriteData(1, false, make([]byte, 100)) // on its way
	c.request(1, "x=1", true)
	c.request(3, http2Post+"|content-length=5", false)
	r = c.response(3)
	verify.That(t, r.status == "408" && r.header["x-sluice-reason"] == "body_timeout", "got %+v", r)
	c.read() // RST_STREAM
	r = c.ask(5, strings.Replace(http2Get, "GET", "HEAD", 1))
	verify.That(t, r.status == "503" && r.body == "" && r.ended, "got %+v", r)
}

// Shutdown loses no request: those that were sent before the client knew are served.
func TestHTTP2Shutdown(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		<-proceed
		return c.write(okResponse)
	}))
	p := newUnmanagedProxy(t, Options{}, origin.address())
	c, idle := p.dialFrames(), p.dialFrames()
	c.request(1, http2Get, true)
	eventually(t, "the request is in flight", func() bool { return p.inflight() == 1 })
	ended := p.shutDown(t.Context(), 0)
	f, ok := c.read().(*xhttp2.GoAwayFrame)
	verify.Require(t, ok && f.LastStreamID == http2.MaxWindow && f.ErrCode == xhttp2.ErrCodeNo, "got %v", f)
	c.request(3, http2Get, true) // before the client has answered
	ping, ok := c.read().(*xhttp2.PingFrame)
	verify.Require(t, ok, "got %v", ping)
	c.WritePing(true, ping.Data)
	f, ok = c.read().(*xhttp2.GoAwayFrame)
	verify.Require(t, ok && f.LastStreamID == 3 && f.ErrCode == xhttp2.ErrCodeNo, "got %v", f)
	c.request(5, http2Post, false) // on its way
	c.WriteData(5, false, []byte("body"))
	c.WriteWindowUpdate(5, 1)
	c.WriteRSTStream(5, xhttp2.ErrCodeCancel)
	c.expectAnswered(func(xhttp2.Frame) {})
	close(proceed)
	answers := make(map[uint32]string)
	for frame := c.read(); frame != nil; frame = c.read() {
		if f, ok := frame.(*xhttp2.DataFrame); ok && f.StreamEnded() {
			answers[f.StreamID] = string(f.Data())
		}
	}
	verify.That(t, len(answers) == 2 && answers[1] == "ok" && answers[3] == "ok", "got %v", answers)
	idle.expectEnd(xhttp2.ErrCodeNo)
	verify.Succeeds(t, <-ended)
	p.pool.Close()
}

// An idle connection has no goroutine, and serves again; its end is announced.
func TestHTTP2IdleConnection(t *testing.T) {
	t.Parallel()
	const idle = time.Hour
	p := startProxy(t, Options{Timeouts: Timeouts{Idle: idle}}, answersOK(t))
	c := p.dialFrames()
	for id := uint32(1); id < 7; id += 2 {
		c.expectAlive(id)
		eventually(t, "the connection is idle", func() bool { return !hasIdleSet || p.idleConnCount() == 1 })
	}
	p.skip(idle)
	c.expectEnd(xhttp2.ErrCodeNo)
}

// The cases of h2spec, without and with TLS. One fails without TLS: what does not begin with
// the preface of HTTP/2 is answered as HTTP/1.1.
func TestHTTP2Spec(t *testing.T) {
	program := pinned.Program{
		Name: "h2spec", Title: "h2spec", Module: "github.com/summerwind/h2spec",
		Package: "github.com/summerwind/h2spec/cmd/h2spec", Dir: "test/h2spec",
	}
	binary := verify.Result(program.Binary(t.Context(), os.Stderr)).Must(t)
	for _, test := range []struct {
		name      string
		tls       *tls.Config
		arguments []string
		exception string
	}{
		{"h2c", nil, nil, "http2/3.5: Sends invalid connection preface"},
		{"TLS", &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2"}}, []string{"--tls", "--insecure"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startProxy(t, Options{}, startLongOrigin(t, 1000).address())
			_, port, _ := net.SplitHostPort(p.serveWith(ListenerOptions{Name: "spec", TLS: test.tls, HTTP2: true}))
			report := filepath.Join(t.TempDir(), "report.xml")
			command := exec.Command(binary, append([]string{"--strict", "--timeout", "120", "--host", "127.0.0.1", "--port", port, "--junit-report", report}, test.arguments...)...)
			out, err := command.CombinedOutput()
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			passed, failures := readSpecReport(t, report)
			verify.That(t, passed >= 140, "%d cases passed:\n%s", passed, out)
			for name, text := range failures {
				verify.Equal(t, name, test.exception, "%s", text)
			}
		})
	}
}

// readSpecReport returns the number of cases that passed, and the failures by case.
func readSpecReport(t *testing.T, file string) (passed int, failures map[string]string) {
	t.Helper()
	var report struct {
		Cases []struct {
			Package string  `xml:"package,attr"`
			Class   string  `xml:"classname,attr"`
			Failure *string `xml:"failure"`
			Error   *string `xml:"error"`
			Skipped *string `xml:"skipped"`
		} `xml:"testsuite>testcase"`
	}
	verify.NoError(t, xml.Unmarshal(verify.Result(os.ReadFile(file)).Must(t), &report))
	failures = make(map[string]string)
	for _, c := range report.Cases {
		if failure := cmp.Or(c.Failure, c.Error); failure != nil {
			failures[c.Package+": "+c.Class] = strings.TrimSpace(*failure)
		} else if c.Skipped == nil {
			passed++
		}
	}
	return passed, failures
}
