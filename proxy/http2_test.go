package proxy

import (
	"cmp"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"net/http"
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

// startLongOrigin starts a peer that answers /none with 204, /hang never and others with
// a body of that length.
func startLongOrigin(t *testing.T, length int) *origin {
	body := strings.Repeat("x", length)
	return startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		switch r.URL.Path {
		case "/none":
			return c.write("HTTP/1.1 204 No Content\r\n\r\n")
		case "/hang":
			io.Copy(io.Discard, c.Conn)
			return false
		}
		return c.answer(body)
	}))
}

// The end of a response that the client has not read yet is not lost when the connection
// has no stream any more.
func TestHTTP2SlowClientGetsTheEnd(t *testing.T) {
	t.Parallel()
	var p *testProxy
	var clients []*frameClient
	var lengths []int
	for length := 40_000; length < 400_000; length += 20_000 {
		p = startProxy(t, Options{}, startLongOrigin(t, length).address())
		c := p.dialFrames(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 20})
		c.WriteWindowUpdate(0, 1<<20)
		eventually(t, "the connection is accepted", func() bool { return p.Connections() == 1 })
		p.eachConn(func(c *clientConn) { c.wire.Conn.(*net.TCPConn).SetWriteBuffer(4 << 10) })
		c.request(1, http2GetOf("/"), true)
		clients, lengths = append(clients, c), append(lengths, length)
	}
	p.sweptFor(5 * idleSetDelay)
	for i, c := range clients {
		r := c.response(1)
		verify.That(t, r.ended && len(r.body) == lengths[i], "%d of %d bytes", len(r.body), lengths[i])
	}
}

// A client that lowers SETTINGS_HEADER_TABLE_SIZE may require that the next field block
// acknowledges it (RFC 7541, section 4.2).
func TestHTTP2HeaderTableSize(t *testing.T) {
	t.Parallel()
	for _, size := range []uint32{0, 4095, 4096, 65536} {
		p := startProxy(t, Options{}, startLongOrigin(t, 10).address())
		c := p.dialFrames(xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: size})
		c.ReadMetaHeaders = nil
		for id := uint32(1); id < 7; id += 2 {
			c.request(id, http2GetOf("/none"), true)
			f, ok := c.read().(*xhttp2.HeadersFrame)
			verify.Require(t, ok, "got %v", f)
			verify.Equal(t, f.HeaderBlockFragment()[0] == 0x20, size < 4096 && id == 1, "size %d, stream %d: update", size, id)
		}
	}
}

// Streams count as connections for the limit of an address, while they are used. More of them are
// refused, so that the client sends them again elsewhere, and that is no fault of the client.
func TestHTTP2StreamsCountAsConnections(t *testing.T) {
	t.Parallel()
	const limit = 10
	proceed := make(chan struct{})
	origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
		if r.URL.Path == "/hang" {
			return hanging(c)
		}
		<-proceed
		return c.write(okResponse)
	}))
	p := startProxy(t, Options{Limits: Limits{ConnectionsPerAddress: limit}}, origin.address())
	c := p.dialFrames()
	const last = 2*limit - 1
	for id := uint32(1); id < last; id += 2 {
		c.request(id, http2Get, true)
	}
	c.request(last, http2GetOf("/hang"), true) // not the first: that one counts as the connection
	eventually(t, "as many as allowed are in flight", func() bool { return p.inflight() == limit })
	for n := range uint32(http2Resets + 10) {
		r := c.ask(last+2+2*n, http2Get)
		verify.Require(t, r.reset == xhttp2.ErrCodeRefusedStream, "request %d: got %+v", n, r)
	}
	verify.Equal(t, p.Stats().HTTP2, StreamStats{RefusedConnections: http2Resets + 10}, "what is counted")
	verify.Equal(t, p.admission.total(), limit, "admitted")
	p.sweptFor(2 * idleSetDelay) // so that no earlier timer ends this
	close(proceed)
	eventually(t, "one is in flight", func() bool { return p.inflight() == 1 })
	eventually(t, "the others do not count", func() bool { return p.admission.total() == 1 })
	c.expectAnswered(func(xhttp2.Frame) {})
	c.conn.Close()
	eventually(t, "all were released", func() bool {
		p.admission.mu.Lock()
		defer p.admission.mu.Unlock()
		return p.Connections() == 0 && p.admission.open == 0 && len(p.admission.perBlock) == 0
	})
}

// A client that takes all the time, if slowly, loses no stream that waits for its turn.
func TestHTTP2SlowClientKeepsItsStreams(t *testing.T) {
	t.Parallel()
	const streams = 30
	p := startProxy(t, Options{Timeouts: Timeouts{Write: time.Minute}}, startLongOrigin(t, 1<<20).address())
	c := p.dialFrames(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 2 << 20})
	for i := range uint32(streams) {
		c.request(2*i+1, http2Get, true)
	}
	c.drain(http2.InitialWindow)
	for range 5 {
		p.skip(40 * time.Second)
		c.WriteWindowUpdate(0, 1)
		c.expectAnswered(func(f xhttp2.Frame) {
			verify.That(t, f.Header().Type != xhttp2.FrameRSTStream, "got %v", f)
		})
	}
}

// HTTP/2 prohibits the cipher suites of TLS 1.2 without authenticated encryption.
func TestHTTP2CipherSuites(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startLongOrigin(t, 10).address())
	address := p.serveWith(ListenerOptions{TLS: &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2"}}})
	for _, test := range []struct {
		suites []uint16
		code   xhttp2.ErrCode
	}{
		{[]uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}, xhttp2.ErrCodeInadequateSecurity},
		{[]uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, xhttp2.ErrCodeNo},
	} {
		conn := verify.Result(tls.Dial("tcp", address, &tls.Config{
			InsecureSkipVerify: true, NextProtos: []string{"h2"}, MaxVersion: tls.VersionTLS12, CipherSuites: test.suites,
		})).Must(t)
		defer conn.Close()
		c := framesOn(t, conn)
		if test.code == xhttp2.ErrCodeNo {
			c.expectAnswered(func(xhttp2.Frame) {})
		} else {
			c.expectEnd(test.code)
		}
	}
}

// A client that obeys SETTINGS_MAX_HEADER_LIST_SIZE does not exceed the limit of field
// blocks, which ends the connection.
func TestHTTP2HeaderListSize(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	c := p.dialFrames()
	f := verify.Result(c.ReadFrame()).Must(t)
	size, ok := f.(*xhttp2.SettingsFrame).Value(xhttp2.SettingMaxHeaderListSize)
	verify.Require(t, ok, "no limit is announced")
	value := strings.Repeat("^", int(size)-300) // longer in Huffman code
	for first, block := true, c.encode(http2Get+"|x="+value); len(block) > 0; first = false {
		part := block[:min(len(block), http2.MaxFrameBytes)]
		block = block[len(part):]
		if first {
			c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: part, EndStream: true, EndHeaders: len(block) == 0})
		} else {
			c.WriteContinuation(1, len(block) == 0, part)
		}
	}
	r := c.response(1)
	verify.That(t, r.status == "431", "got %+v", r)
}
