package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/proxy/http2"
	"sluice/route"
	"sluice/test/verify"
)

// A framePeer is a connection of a peer that speaks HTTP/2 frame by frame.
type framePeer struct {
	*xhttp2.Framer
	net.Conn
	block bytes.Buffer
	hpack *hpack.Encoder
}

// framePeerOptions are what a framePeer does beside answering.
type framePeerOptions struct {
	settings []xhttp2.Setting
	tls      *tls.Config                            // nil: without TLS
	mute     func() bool                            // whether PINGs get no answer; nil: they get one
	frame    func(p *framePeer, frame xhttp2.Frame) // gets every frame, if not nil
	answer   func(p *framePeer, stream uint32)      // for the HEADERS of each request
}

// startFramePeer calls answer for the HEADERS of each request.
func startFramePeer(t *testing.T, answer func(p *framePeer, stream uint32)) (address string) {
	t.Helper()
	return startFramePeerWith(t, framePeerOptions{answer: answer})
}

func startFramePeerWith(t *testing.T, o framePeerOptions) (address string) {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if o.tls != nil {
				conn = tls.Server(conn, o.tls)
			}
			go serveFrames(conn, o)
		}
	}()
	return l.Addr().String()
}

func serveFrames(conn net.Conn, o framePeerOptions) {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.Preface))); err != nil {
		return
	}
	p := &framePeer{Framer: xhttp2.NewFramer(conn, conn), Conn: conn}
	p.hpack = hpack.NewEncoder(&p.block)
	p.WriteSettings(o.settings...)
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			return
		}
		if o.frame != nil {
			o.frame(p, frame)
		}
		switch frame := frame.(type) {
		case *xhttp2.HeadersFrame:
			o.answer(p, frame.StreamID)
		case *xhttp2.SettingsFrame:
			if !frame.IsAck() {
				p.WriteSettingsAck()
			}
		case *xhttp2.PingFrame:
			if o.mute == nil || !o.mute() {
				p.WritePing(true, frame.Data)
			}
		}
	}
}

// encode sets block to the field block of pairs of names and values.
func (p *framePeer) encode(fields ...string) {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
}

// headers sends HEADERS with pairs of names and values.
func (p *framePeer) headers(stream uint32, ends bool, fields ...string) {
	p.encode(fields...)
	p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: stream, BlockFragment: p.block.Bytes(), EndStream: ends, EndHeaders: true})
}

// A request that a peer has not processed is sent again, whatever its method, and also without
// tries left: it is no failure.
func TestUnprocessedStreamIsSentAgain(t *testing.T) {
	t.Parallel()
	type answer = func(p *framePeer, stream uint32)
	refuse := func(p *framePeer, stream uint32) { p.WriteRSTStream(stream, xhttp2.ErrCodeRefusedStream) }
	goAway := func(p *framePeer, stream uint32) { p.WriteGoAway(stream-1, xhttp2.ErrCodeNo, nil) }
	for name, answers := range map[string][]answer{ // of the first streams
		"REFUSED_STREAM":                                    {refuse},
		"GOAWAY":                                            {goAway},
		"GOAWAY, then REFUSED_STREAM":                       {func(p *framePeer, stream uint32) { goAway(p, stream); refuse(p, stream) }},
		"REFUSED_STREAM, then GOAWAY":                       {func(p *framePeer, stream uint32) { refuse(p, stream); goAway(p, stream) }},
		"GOAWAY after it, and REFUSED_STREAM":               {func(p *framePeer, stream uint32) { p.WriteGoAway(stream, xhttp2.ErrCodeNo, nil); refuse(p, stream) }},
		"GOAWAY of all, and REFUSED_STREAM":                 {func(p *framePeer, stream uint32) { p.WriteGoAway(1<<31-1, xhttp2.ErrCodeNo, nil); refuse(p, stream) }},
		"GOAWAY, and REFUSED_STREAM of the next connection": {goAway, refuse},
		"REFUSED_STREAM, and GOAWAY to the next stream":     {refuse, goAway},
	} {
		t.Run(name, func(t *testing.T) {
			left := make(chan answer, len(answers))
			for _, a := range answers {
				left <- a
			}
			p := startProxyToH2C(t, startFramePeer(t, func(p *framePeer, stream uint32) {
				select {
				case a := <-left:
					a(p, stream)
				default:
					p.headers(stream, true, ":status", "204")
				}
			}))
			p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 1}})
			conn, answered := p.dial(), 0
			for range 3 {
				io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
				if status, _ := readResponse(t, conn); status == 204 {
					answered++
				}
			}
			verify.That(t, answered == 3, "%d of 3 requests were answered", answered)
			p.expectNothingCounted()
		})
	}
}

// Peers may end each connection after a few streams, as nginx does after keepalive_requests, and
// refuse those that were opened meanwhile: no request fails, whatever its method, and none is served twice.
func TestPeerEndsConnectionsAfterFewStreams(t *testing.T) {
	t.Parallel()
	const streams, clients, requests = 10, 40, 3
	var served atomic.Int64
	address := startFramePeer(t, func(p *framePeer, stream uint32) {
		const last = 2*streams - 1
		if stream == last {
			p.WriteGoAway(last, xhttp2.ErrCodeNo, nil)
		}
		if stream <= last {
			served.Add(1)
			p.headers(stream, true, ":status", "204")
		}
	})
	p := startProxyToH2C(t, address)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			conn := p.dial()
			for range requests {
				io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
				if status, body := readResponse(t, conn); status != 204 {
					t.Errorf("got %d %s", status, body)
					return
				}
			}
		})
	}
	wg.Wait()
	verify.Equal(t, served.Load(), clients*requests, "requests were served")
	p.expectNothingCounted()
}

// A peer that ends connections before it serves a stream does not get many for a request.
func TestPeerEndsConnectionsAtOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		first bool
	}{{"with SETTINGS", false}, {"with the first stream", true}} {
		t.Run(test.name, func(t *testing.T) {
			origin := startOrigin(t, func(c *originConn) bool {
				settings, end := http2.AppendSettings(nil), http2.AppendGoAway(nil, 0, http2.NoError)
				if test.first {
					c.Conn.Write(settings)
					io.ReadFull(c, make([]byte, len(http2.Preface)+100)) // a part of the stream
					settings = nil
				}
				c.Conn.Write(append(settings, end...))
				io.Copy(io.Discard, c)
				return false
			})
			p := startProxyToH2C(t, origin.address())
			conn := p.dial()
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
			status, _ := readResponse(t, conn)
			verify.That(t, status == 502 && origin.connections() <= 10, "status %d after %d connections", status, origin.connections())
		})
	}
}

// What an HTTP/1 client would take for another response is not forwarded.
func TestResponseOfAnotherLength(t *testing.T) {
	t.Parallel()
	const refused, cut, complete = "refused", "cut", "complete"
	for _, test := range []struct {
		name, method string
		answer       func(p *framePeer, stream uint32)
		want         string
	}{
		{"more data than announced", "GET", func(p *framePeer, stream uint32) {
			p.headers(stream, false, ":status", "200", "content-length", "2")
			p.WriteData(stream, true, []byte("okHTTP/1.1 200 OK\r\n\r\n"))
		}, refused},
		{"less data than announced", "GET", func(p *framePeer, stream uint32) {
			p.headers(stream, false, ":status", "200", "content-length", "3")
			p.WriteData(stream, true, []byte("ok"))
		}, refused},
		{"data for HEAD", "HEAD", func(p *framePeer, stream uint32) {
			p.headers(stream, false, ":status", "200", "content-length", "2")
			p.WriteData(stream, true, []byte("ok"))
		}, refused},
		{"CR LF in a value", "GET", func(p *framePeer, stream uint32) {
			p.headers(stream, true, ":status", "200", "x", "a\r\nb: c")
		}, refused},
		{"connection-specific field", "GET", func(p *framePeer, stream uint32) {
			p.headers(stream, true, ":status", "200", "transfer-encoding", "chunked")
		}, refused},
		{"status of four digits", "GET", func(p *framePeer, stream uint32) {
			p.headers(stream, true, ":status", "2000")
		}, refused},
		{"reset in the body", "GET", func(p *framePeer, stream uint32) {
			p.headers(stream, false, ":status", "200")
			p.WriteData(stream, false, []byte("ok"))
			p.WriteRSTStream(stream, xhttp2.ErrCodeInternal)
		}, cut},
		{"whole", "GET", func(p *framePeer, stream uint32) {
			p.headers(stream, false, ":status", "103", "link", "</a>")
			p.headers(stream, false, ":status", "200", "content-length", "2")
			p.WriteData(stream, false, []byte("o"))
			p.WriteDataPadded(stream, true, []byte("k"), make([]byte, 200))
		}, complete},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startProxyToH2C(t, startFramePeer(t, test.answer))
			conn := p.dial()
			io.WriteString(conn, test.method+" / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			all, _ := io.ReadAll(conn)
			got := cut
			switch text := string(all); {
			case strings.Contains(text, "HTTP/1.1 502"):
				got = refused
			case strings.HasSuffix(text, "\r\n\r\nok") || strings.HasSuffix(text, "0\r\n\r\n"):
				got = complete
			}
			if got != test.want && !(test.want == refused && got == cut && !strings.HasSuffix(string(all), "ok")) {
				t.Errorf("%s, want %s: %q", got, test.want, all)
			}
			n := strings.Count(string(all), "HTTP/1.1 200")
			verify.That(t, n <= 1, "%d responses: %q", n, all)
		})
	}
}
