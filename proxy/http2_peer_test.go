package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/proxy/http2"
	"sluice/route"
	"sluice/test/verify"
)

// smallPost must not be sent twice.
const smallPost = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"

// A request that a peer has not processed is sent again, whatever its method, and also without
// tries left: it is no failure.
func TestUnprocessedStreamIsSentAgain(t *testing.T) {
	t.Parallel()
	type answer = func(p *framePeer, stream uint32)
	refuse := func(p *framePeer, stream uint32) { p.WriteRSTStream(stream, xhttp2.ErrCodeRefusedStream) }
	goAway := func(p *framePeer, stream uint32) { p.WriteGoAway(stream-1, xhttp2.ErrCodeNo, nil) }
	eachCase(t, map[string][]answer{ // of the first streams
		"REFUSED_STREAM":                                    {refuse},
		"GOAWAY":                                            {goAway},
		"GOAWAY, then REFUSED_STREAM":                       {func(p *framePeer, stream uint32) { goAway(p, stream); refuse(p, stream) }},
		"REFUSED_STREAM, then GOAWAY":                       {func(p *framePeer, stream uint32) { refuse(p, stream); goAway(p, stream) }},
		"GOAWAY after it, and REFUSED_STREAM":               {func(p *framePeer, stream uint32) { p.WriteGoAway(stream, xhttp2.ErrCodeNo, nil); refuse(p, stream) }},
		"GOAWAY of all, and REFUSED_STREAM":                 {func(p *framePeer, stream uint32) { p.WriteGoAway(1<<31-1, xhttp2.ErrCodeNo, nil); refuse(p, stream) }},
		"GOAWAY, and REFUSED_STREAM of the next connection": {goAway, refuse},
		"REFUSED_STREAM, and GOAWAY to the next stream":     {refuse, goAway},
	}, func(t *testing.T, answers []answer) {
		left := make(chan answer, len(answers))
		p := startProxyToH2C(t, startFramePeer(t, func(p *framePeer, stream uint32) {
			select {
			case a := <-left:
				a(p, stream)
			default:
				p.headers(stream, true, ":status", "204")
			}
		}))
		p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 1}})
		refuseNext := func() {
			for _, a := range answers {
				left <- a
			}
		}
		conn, c := p.dial(), p.dialFrames()
		for id := uint32(1); id < 5; id += 2 {
			refuseNext()
			io.WriteString(conn, smallPost)
			expectResponse(t, conn, 204)
			refuseNext()
			c.conn.Write(c.framesOf(func() { // so that the whole call arrives at once
				c.request(id, grpcPost, false)
				c.WriteData(id, true, make([]byte, 5)) // a message without bytes
			}))
			r := c.response(id)
			verify.That(t, r.status == "204", "got %+v", r)
		}
		p.expectNothingCounted()
	})
}

// A peer that ends connections before it serves a stream does not get many for a request.
func TestPeerEndsConnectionsAtOnce(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]bool{"with SETTINGS": false, "with the first stream": true}, func(t *testing.T, first bool) {
		origin := startOrigin(t, func(c *originConn) bool {
			settings, end := http2.AppendSettings(nil), http2.AppendGoAway(nil, 0, http2.NoError)
			if first {
				c.Conn.Write(settings)
				io.ReadFull(c, make([]byte, len(http2.Preface)+100)) // a part of the stream
				settings = nil
			}
			c.Conn.Write(append(settings, end...))
			io.Copy(io.Discard, c)
			return false
		})
		p := startProxyToH2C(t, origin.address())
		expectResponse(t, p.send(smallPost), 502)
		verify.That(t, origin.connections() <= 10, "%d connections", origin.connections())
	})
}

// A peer that accepts no streams any more keeps no connection on which nothing is left.
func TestPeerAcceptsNoMoreStreams(t *testing.T) {
	t.Parallel()
	none := xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 0}
	eachCase(t, map[string]func(p *framePeer, stream uint32){
		"within a stream": func(p *framePeer, stream uint32) {
			p.WriteSettings(none)
			p.headers(stream, true, ":status", "204")
		},
		"after it": func(p *framePeer, stream uint32) {
			p.headers(stream, true, ":status", "204")
			p.WriteSettings(none)
		},
	}, func(t *testing.T, answer func(p *framePeer, stream uint32)) {
		p, o := startProxy(t, Options{}), someTransport
		o.IdleTimeout = time.Hour
		p.usePeers(true, o, balancer.Options{}, startFramePeer(t, answer))
		conn := p.dial()
		for range 3 {
			io.WriteString(conn, smallPost)
			expectResponse(t, conn, 204)
		}
		eventually(t, "the connections are closed", func() bool { return p.peerConnections() == 0 })
		p.expectNothingCounted()
	})
}

// What an HTTP/1 client would take for another response is not forwarded.
func TestResponseOfAnotherLength(t *testing.T) {
	t.Parallel()
	type frame = func(p *framePeer, stream uint32)
	head := func(ends bool, fields ...string) frame {
		return func(p *framePeer, stream uint32) { p.headers(stream, ends, append([]string{":status"}, fields...)...) }
	}
	data := func(ends bool, text string) frame {
		return func(p *framePeer, stream uint32) {
			p.WriteDataPadded(stream, ends, []byte(text), make([]byte, len(text)))
		}
	}
	reset := func(p *framePeer, stream uint32) { p.WriteRSTStream(stream, xhttp2.ErrCodeInternal) }
	const refused, cut, complete = "refused", "cut", "complete"
	for _, test := range []struct {
		name, method, want string
		answer             []frame
	}{
		{"more data than announced", "GET", refused, []frame{head(false, "200", "content-length", "2"), data(true, "okHTTP/1.1 200 OK\r\n\r\n")}},
		{"less data than announced", "GET", refused, []frame{head(false, "200", "content-length", "3"), data(true, "ok")}},
		{"data for HEAD", "HEAD", refused, []frame{head(false, "200", "content-length", "2"), data(true, "ok")}},
		{"reset in the body", "GET", cut, []frame{head(false, "200"), data(false, "ok"), reset}},
		{"whole", "GET", complete, []frame{head(false, "103", "link", "</a>"), head(false, "200", "content-length", "2"), data(false, "o"), data(true, "k")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startProxyToH2C(t, startFramePeer(t, func(p *framePeer, stream uint32) {
				for _, write := range test.answer {
					write(p, stream)
				}
			}))
			text := p.raw(test.method + " / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			got := cut
			switch {
			case strings.Contains(text, "HTTP/1.1 502"):
				got = refused
			case strings.HasSuffix(text, "\r\n\r\nok") || strings.HasSuffix(text, "0\r\n\r\n"):
				got = complete
			}
			if got != test.want && !(test.want == refused && got == cut && !strings.HasSuffix(text, "ok")) {
				t.Errorf("%s, want %s: %q", got, test.want, text)
			}
			verify.That(t, strings.Count(text, "HTTP/1.1 200") <= 1, "several responses: %q", text)
		})
	}
}

// A client that has a whole response has its next one soon, also if the peer does not end the
// stream, or resets it in place of that.
func TestNoEndAfterAWholeResponse(t *testing.T) {
	t.Parallel()
	type test struct {
		method, length, body string
		resets               bool
	}
	eachCase(t, map[string]test{
		"GET": {"GET", "2", "ok", false}, "GET, empty": {"GET", "0", "", false}, "HEAD": {"HEAD", "2", "", false},
		"GET, reset": {"GET", "2", "ok", true}, "GET, empty, reset": {"GET", "0", "", true}, "HEAD, reset": {"HEAD", "2", "", true},
	}, func(t *testing.T, test test) {
		received, canceled := make(chan struct{}), make(chan struct{}, 3)
		p, options := startProxy(t, Options{}), someTransport
		// The clock is set forward: a connection that ends by it may take the last frame
		// along.
		options.IdleTimeout = time.Hour
		p.usePeers(true, options, balancer.Options{}, startFramePeerWith(t, framePeerOptions{
			answer: func(p *framePeer, stream uint32) {
				p.headers(stream, false, ":status", "200", "content-length", test.length)
				if test.body != "" {
					p.WriteData(stream, false, []byte(test.body))
				}
				if test.resets {
					<-received
					p.WriteRSTStream(stream, xhttp2.ErrCodeInternal)
				}
			},
			frame: func(_ *framePeer, frame xhttp2.Frame) {
				if f, ok := frame.(*xhttp2.RSTStreamFrame); ok && f.ErrCode == xhttp2.ErrCodeCancel {
					canceled <- struct{}{}
				}
			},
		}))
		p.setService(route.Service{Timeouts: route.Timeouts{Idle: time.Hour}, Retry: route.Retry{Attempts: 1}})
		c := p.dial()
		in := bufio.NewReader(c)
		for range 3 {
			fmt.Fprintf(c, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", test.method)
			response := verify.Result(http.ReadResponse(in, &http.Request{Method: test.method})).Must(t)
			body := verify.Result(io.ReadAll(response.Body)).Must(t)
			verify.Equal(t, fmt.Sprint(response.StatusCode, " ", string(body)), "200 "+test.body, "the response")
			if test.resets {
				received <- struct{}{}
				continue
			}
			eventually(t, "the wait for the end is over", func() bool {
				p.skip(endPause)
				return len(canceled) > 0
			})
			<-canceled
		}
		if !test.resets {
			p.expectNothingCounted()
		}
	})
}

// The stream of a client with HTTP/2 that takes no trailer section ends soon, too. One that takes
// it waits for it.
func TestNoEndAfterAWholeResponseWithHTTP2(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]struct{ fields, length, body string }{
		"GET":                {http2Get, "2", "ok"},
		"HEAD":               {":method=HEAD|:scheme=http|:authority=a|:path=/", "2", ""},
		"GET with a trailer": {http2Get + "|te=trailers", "2", "ok"},
	}, func(t *testing.T, test struct{ fields, length, body string }) {
		later := make(chan func(), 1)
		p := startProxyToH2C(t, startFramePeer(t, func(p *framePeer, stream uint32) {
			p.headers(stream, false, ":status", "200", "content-length", test.length)
			if test.body != "" {
				p.WriteData(stream, false, []byte(test.body))
			}
			later <- func() { p.headers(stream, true, "x-sum", "1") }
		}))
		p.setService(route.Service{Timeouts: route.Timeouts{Idle: time.Hour}, Retry: route.Retry{Attempts: 1}})
		c := p.dialFrames()
		c.request(1, test.fields, true)
		responses := make(chan http2Response, 1)
		go func() { responses <- c.response(1) }()
		trailer := <-later
		if strings.Contains(test.fields, "trailers") {
			p.skip(2 * endPause)
			trailer()
		}
		eventually(t, "the response ends", func() bool {
			p.skip(endPause)
			return len(responses) > 0
		})
		r := <-responses
		verify.That(t, r.status == "200" && r.body == test.body && r.ended, "got %+v", r)
		verify.Equal(t, len(r.trailer) > 0, strings.Contains(test.fields, "trailers"), "a trailer section")
		p.expectNothingCounted()
	})
}

// A response that sluice compresses is whole when all of its Content-Length is there: a peer that
// does not end the stream, or resets it, cuts nothing off, and holds its client up for a moment
// only.
func TestNoEndAfterAWholeCompressedResponse(t *testing.T) {
	t.Parallel()
	content := words(3000)
	eachCase(t, map[string]xhttp2.ErrCode{"no end": xhttp2.ErrCodeNo, "reset": xhttp2.ErrCodeInternal}, func(t *testing.T, code xhttp2.ErrCode) {
		held := make(chan struct{}, 2) // the client waits for the end
		p := startProxy(t, Options{Limits: compressionMemory})
		p.usePeers(true, someTransport, balancer.Options{}, startFramePeer(t, func(p *framePeer, stream uint32) {
			p.headers(stream, false, ":status", "200", "content-type", "text/plain", "content-length", fmt.Sprint(len(content)))
			p.WriteData(stream, false, []byte(content))
			if held <- struct{}{}; code != xhttp2.ErrCodeNo {
				p.WriteRSTStream(stream, code)
			}
		}))
		p.setService(route.Service{Timeouts: route.Timeouts{Idle: time.Hour}, Retry: route.Retry{Attempts: 1}})
		p.setActions(compressing(t, 1000))
		for _, front := range p.fronts() {
			r := verify.Result(http.NewRequest("GET", front.url, nil)).Must(t)
			r.Header.Set("Accept-Encoding", "gzip")
			response := verify.Result(front.client.Do(r)).Must(t)
			<-held
			bodies := make(chan string, 1)
			go func() {
				body, err := io.ReadAll(response.Body)
				if err != nil {
					body = []byte(err.Error())
				}
				bodies <- string(body)
			}()
			eventually(t, front.name+": the response ends", func() bool {
				p.skip(endPause)
				return len(bodies) > 0
			})
			response.Body.Close()
			text, err := io.ReadAll(decode(t, response.Header.Get("Content-Encoding"), strings.NewReader(<-bodies)))
			verify.That(t, err == nil && string(text) == content, "%s: %q, %v", front.name, text, err)
		}
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 && p.Compression().InUseBytes == 0 })
	})
}
