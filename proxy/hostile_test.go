package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/discovery/locality"
	"sluice/proxy/http2"
	"sluice/route"
	"sluice/route/auth"
	"sluice/test/verify"
)

// A scriptServer is a server that sends the same bytes on each connection, whatever it gets: a
// hostile peer or authentication server. It sends them when the first bytes of a request have
// arrived, and then ends the connection. With HTTP/2 it sends the first frame after the preface,
// and the others after HEADERS.
type scriptServer struct {
	address string
	http2   bool

	mu sync.Mutex
	// mu guards the fields below.
	bytes []byte
	parts int // in which the bytes are sent
}

func startScript(t testing.TB, http2 bool) *scriptServer {
	t.Helper()
	l := listen(t)
	s := &scriptServer{address: l.Addr().String(), http2: http2}
	var serving sync.WaitGroup
	serving.Go(func() { acceptAll(l, s.serve) })
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return s
}

// play sets what the next connections get.
func (s *scriptServer) play(text []byte, parts int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes, s.parts = text, max(parts, 1)
}

func (s *scriptServer) serve(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	s.mu.Lock()
	text, parts := s.bytes, s.parts
	s.mu.Unlock()
	if s.http2 {
		if _, err := io.ReadFull(conn, make([]byte, len(http2.Preface))); err != nil {
			return
		}
		if len(text) >= http2.FrameHeaderBytes {
			first := min(len(text), http2.FrameHeaderBytes+http2.ParseFrameHeader(text).Length)
			if _, err := conn.Write(text[:first]); err != nil {
				return
			}
			if text = text[first:]; len(text) > 0 && !awaitHeaders(conn) {
				return
			}
		}
	} else if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return
	}
	for size := max(len(text)/parts, 1); len(text) > 0; {
		n := min(size, len(text))
		if _, err := conn.Write(text[:n]); err != nil {
			return
		}
		text = text[n:]
		runtime.Gosched()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
	io.Copy(io.Discard, conn)
}

// awaitHeaders reads frames up to HEADERS.
func awaitHeaders(conn net.Conn) bool {
	for framer := xhttp2.NewFramer(nil, conn); ; {
		switch frame, err := framer.ReadFrame(); frame.(type) {
		case *xhttp2.HeadersFrame:
			return true
		default:
			if err != nil {
				return false
			}
		}
	}
}

// A hostileInput is what somebody sends to sluice. One of client, peer, peerHTTP2 and
// authServer is set; the others behave.
type hostileInput struct {
	name       string
	client     string // bytes after which the client only reads
	peer       string // to each connection
	peerHTTP2  []byte
	authServer string
	actions    *route.Actions // of the route
	target     string         // of the request, if the client behaves; "" is /
	fields     string         // lines of it
	want       string         // the start of the status line that the client gets; "" is the end of the connection
}

// hostileInputs returns all. One line or entry is one case: add what has hurt a proxy, or might.
func hostileInputs(t testing.TB) []hostileInput {
	compresses := compressing(t, 1)
	edits := headerEdits(t, map[string]string{"X-A": strings.Repeat("$path", 1000)}, nil)
	return []hostileInput{
		{name: "a name with a blank from an authentication server", authServer: "HTTP/1.1 401 No\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n", want: "503"},
		{name: "the same, allowed", authServer: "HTTP/1.1 200 OK\r\nBad Name: x\r\nX-User: a\r\nContent-Length: 0\r\n\r\n", want: "503"},
		{name: "a name with a colon before it", authServer: "HTTP/1.1 401 No\r\n: x\r\nContent-Length: 0\r\n\r\n", want: "503"},
		{name: "too many fields from an authentication server", authServer: "HTTP/1.1 401 No\r\n" + strings.Repeat("a: b\r\n", 200) + "Content-Length: 0\r\n\r\n", want: "503"},
		{name: "control characters from an authentication server", authServer: "HTTP/1.1 401 No\r\nX-A: a\x01b\r\nContent-Length: 0\r\n\r\n", want: "503"},
		{name: "an authentication server that says nothing", authServer: "", want: "503"},
		{name: "an authentication server of HTTP/2", authServer: "\x00\x00\x00\x04\x00\x00\x00\x00\x00", want: "503"},
		{name: "a status of an authentication server that is none", authServer: "HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n", want: "503"},

		{name: "many ETags are compressed", peer: "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n" + strings.Repeat("ETag: \""+strings.Repeat("e", 210)+"\"\r\n", 250) + "\r\nhello",
			actions: compresses, fields: "Accept-Encoding: gzip\r\n", want: "502"},
		{name: "as many short ETags as fit", peer: "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n" + strings.Repeat("ETag: \"\"\r\n", 60) + "\r\nhello",
			actions: compresses, fields: "Accept-Encoding: gzip\r\n", want: "200"},
		{name: "a redirect with a long path", target: "/" + strings.Repeat("a", 7300), want: "414", actions: &route.Actions{Redirect: redirect(t, "https://a.example"+strings.Repeat("$path", 9), 302)}},
		{name: "a redirect with a path ten thousand times", target: "/" + strings.Repeat("a", 7300), want: "414", actions: &route.Actions{Redirect: redirect(t, "https://a.example"+strings.Repeat("$path", 10_000), 302)}},
		{name: "a field with a path a thousand times", target: "/" + strings.Repeat("a", 7300), want: "431", actions: &route.Actions{RequestHeaders: edits}},
		{name: "the same in a response", target: "/" + strings.Repeat("a", 7300), want: "502", actions: &route.Actions{ResponseHeaders: edits}},

		{name: "a peer that closes", peer: "", want: "502"},
		{name: "a head of a peer without end", peer: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100<<10), want: "502"},
		{name: "a peer of another protocol", peer: "220 smtp.example ESMTP\r\n", want: "502"},
		{name: "a chunk of a peer that is too long to count", peer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx", want: "502"},
		{name: "two lengths from a peer", peer: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy", want: "502"},

		{name: "a client that sends zeros", client: strings.Repeat("\x00", 4096)},
		{name: "a head of a client that is too long", client: "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", want: "431"},
		{name: "many fields of a client", client: "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("x: y\r\n", 2000) + "\r\n", want: "431"},
		{name: "a window of a client that becomes negative", client: http2.Preface + string(frames(func(p *framePeer) {
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 65535})
			p.headers(1, true, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/")
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1})
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
		}))},
		{name: "a block of HPACK that is none", client: http2.Preface + string(frames(func(p *framePeer) {
			p.WriteSettings()
			p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: bytes.Repeat([]byte{0xff}, 500), EndHeaders: true, EndStream: true})
		}))},
		{name: "DATA for the connection", client: http2.Preface + string(frames(func(p *framePeer) { p.WriteSettings(); p.WriteData(0, false, []byte("x")) }))},

		{name: "a window of a peer that becomes negative", want: "200", peerHTTP2: frames(func(p *framePeer) {
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 65535})
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
			p.headers(1, true, ":status", "200")
		})},
		{name: "a peer that answers all before it is asked", want: "502", peerHTTP2: frames(func(p *framePeer) { p.WriteSettings(); p.headers(1001, true, ":status", "200") })},
		{name: "a peer that pushes", want: "502", peerHTTP2: frames(func(p *framePeer) {
			p.WriteSettings()
			p.WritePushPromise(xhttp2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: []byte{0x82}, EndHeaders: true})
		})},
		{name: "a peer that accepts no streams", want: "502", peerHTTP2: frames(func(p *framePeer) {
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 0})
		})},
		{name: "a status of a peer that is none", want: "502", peerHTTP2: frames(func(p *framePeer) { p.WriteSettings(); p.headers(1, true, ":status", "abc") })},
		{name: "two statuses", want: "502", peerHTTP2: frames(func(p *framePeer) { p.WriteSettings(); p.headers(1, true, ":status", "200", ":status", "204") })},
		{name: "fields of HTTP/1 in HTTP/2", want: "502", peerHTTP2: frames(func(p *framePeer) {
			p.WriteSettings()
			p.headers(1, true, ":status", "200", "transfer-encoding", "chunked")
		})},
		{name: "a peer that speaks HTTP/1", want: "502", peerHTTP2: []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")},
	}
}

// Whatever a client, a peer or an authentication server sends, it gets the expected answer or
// the end of its connection, another client gets its answers at the same time, and nothing is
// left of it all. Each input meets clients of HTTP/1, HTTP/2 and HTTP/3.
func TestHostileInputs(t *testing.T) {
	if !alone(t) { // it counts goroutines
		return
	}
	p := startProxy(t, Options{Limits: Limits{CompressionBytes: 64 << 20}}, answersOK(t))
	hostile := newHostileRoutes(t, p)
	goroutines := 0
	for _, input := range hostileInputs(t) {
		t.Run(input.name, func(t *testing.T) {
			hostile.set(input)
			for _, front := range []string{"HTTP/1", "HTTP/2", "HTTP/3"} {
				got := hostile.send(t, front, input)
				verify.That(t, strings.HasPrefix(got, input.want) && (input.want != "" || !strings.HasPrefix(got, "5")), "%s: got %q, want %q", front, got, input.want)
				p.expect("GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200")
			}
			if hostile.closeIdle(); goroutines == 0 {
				p.expectNothingLeft(t, 0)
				goroutines = runtime.NumGoroutine() + 8 // connections to the origin stay
			}
			p.expectNothingLeft(t, goroutines)
		})
	}
}

// hostileRoutes are a route to hostile peers and past a hostile authentication server, and one
// that has nothing to do with them.
type hostileRoutes struct {
	p                 *testProxy
	address3          string // of clients with HTTP/3
	peer, peer2, auth *scriptServer
	http1, http2      *route.Service
}

func newHostileRoutes(t testing.TB, p *testProxy) *hostileRoutes {
	h := &hostileRoutes{p: p, address3: p.serveHTTP3(ListenerOptions{Name: "h3"}), peer: startScript(t, false), peer2: startScript(t, true), auth: startScript(t, false)}
	h.http1 = p.newService("hostile", balancer.Options{Policy: balancer.PolicyRoundRobin, NewTransport: p.NewTransport(someTransport)}, h.peer.address)
	h.http2 = p.newService("hostile2", balancer.Options{Policy: balancer.PolicyRoundRobin, NewTransport: p.NewHTTP2Transport(someTransport)}, h.peer2.address)
	return h
}

// set makes the route / that of an input; /other does not change.
func (h *hostileRoutes) set(input hostileInput) {
	actions := cmp.Or(input.actions, new(route.Actions))
	service := h.p.service
	switch {
	case input.client != "":
	case input.peerHTTP2 != nil:
		service = h.http2
		h.peer2.play(input.peerHTTP2, 1)
	case input.peer != "" || strings.Contains(input.name, "peer that closes"):
		service = h.http1
		h.peer.play([]byte(input.peer), 1)
	case input.actions == nil:
		h.auth.play([]byte(input.authServer), 1)
		actions.ForwardAuth = &route.ForwardAuth{Forward: auth.NewForward(units.NewLocation("http://"+h.auth.address), patience, locality.ByOperator), Copied: []string{"x-user"}}
		actions.Authorized.Dropped = []string{"x-user"}
	}
	h.p.setRoutes(route.Route{Path: "/", Service: service, Actions: actions}, route.Route{Path: "/other", Service: h.p.service})
}

// send sends the input, or a request that meets it, and returns the status that the client
// gets, or the bytes that are no response.
func (h *hostileRoutes) send(t testing.TB, front string, input hostileInput) string {
	t.Helper()
	target := input.target
	if target == "" {
		target = "/"
	}
	switch {
	case input.client != "":
		conn := h.p.dial()
		defer conn.Close()
		_, _ = io.WriteString(conn, input.client)
		closeWrite(t, conn)
		answer, _ := io.ReadAll(conn)
		if status, found := strings.CutPrefix(string(answer), "HTTP/1.1 "); found {
			return status
		}
		return fmt.Sprintf("%.20q", answer)
	case front == "HTTP/1":
		conn := h.p.dial()
		defer conn.Close()
		_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n%sConnection: close\r\n\r\n", target, input.fields)
		status, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.TrimPrefix(status, "HTTP/1.1 ")
	}
	fields := strings.TrimSuffix(http2Get, "/") + target
	for line := range strings.SplitSeq(strings.TrimSuffix(input.fields, "\r\n"), "\r\n") {
		if name, value, found := strings.Cut(line, ": "); found {
			fields += "|" + strings.ToLower(name) + "=" + value
		}
	}
	if front == "HTTP/3" {
		c := dialHTTP3(t, h.address3)
		defer c.close()
		return c.ask(fields).status
	}
	c := h.p.dialFrames()
	defer c.conn.Close()
	verify.NoError(t, c.request(1, fields, true))
	return c.response(1).status
}

func (h *hostileRoutes) closeIdle() {
	for _, s := range []*route.Service{h.http1, h.http2} {
		for _, peer := range s.Pool.Snapshot().All {
			peer.Transport.Drain()
		}
	}
}
