package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/proxy/http1"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/test/verify"
)

// padding returns n header fields, of that many bytes together as lines.
func padding(n, bytes int) http.Header {
	header := make(http.Header, n)
	for i := range n {
		name := fmt.Sprintf("X-Pad-%04d", i)
		header.Set(name, strings.Repeat(string(rune('a'+i%26)), bytes/n-len(name)-len(": \r\n")))
	}
	return header
}

// echoPadding answers with the length of the body, and with the padding of the request.
func echoPadding(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "X-Pad-") {
			w.Header()[name] = values
		}
	}
	fmt.Fprint(w, len(body))
}

func expectPadding(t *testing.T, got, want http.Header) {
	t.Helper()
	for name := range want {
		verify.Require(t, got.Get(name) == want.Get(name), "%s: got %d bytes, want %d", name, len(got.Get(name)), len(want.Get(name)))
	}
}

var (
	// largeHeads are limits above those that fit the usual buffers.
	largeHeads = Limits{HeadBytes: http1.MaxHeadBytes, Fields: 400}
	lowHeads   = Limits{HeadBytes: 1 << 10, Fields: 10}
)

// withHeads returns someTransport for heads of that size.
func withHeads(l Limits) upstream.Options {
	o := someTransport
	o.HeadBytes, o.Fields = l.HeadBytes, l.Fields
	return o
}

// Heads up to the limits pass in both directions, with HTTP/1 and HTTP/2 on each side. What
// is above gets 431, also if it fits the buffers.
func TestLimitsOfRequestHeads(t *testing.T) {
	t.Parallel()
	origin := startServer(t, echoPadding)
	for limits, tests := range map[Limits][]struct {
		fields, bytes, body int
		reason              string // of 431; "": 200
	}{
		lowHeads: {{2, 700, 10, ""}, {2, 1 << 10, 10, "head_too_long"}, {10, 500, 10, "too_many_fields"}},
		largeHeads: {
			{150, 15 << 10, 10, ""},
			{10, 17 << 10, 0, ""},
			{350, 55 << 10, 10 << 10, ""},
			{350, 55 << 10, 200 << 10, ""},
			{3, 1 << 10, 15 << 10, ""}, // in the same buffer
			{450, 20 << 10, 0, "too_many_fields"},
			{20, http1.MaxHeadBytes, 0, "head_too_long"},
		},
	} {
		for _, http2Peer := range []bool{false, true} {
			p := startProxy(t, Options{Limits: limits})
			p.usePeers(http2Peer, withHeads(largeHeads), balancer.Options{}, origin)
			fronts := p.fronts()[:3] // the last one is HTTP/2 as well
			if limits == lowHeads {
				fronts = fronts[:1] // others know it, and do not ask
			}
			for _, front := range fronts {
				for _, test := range tests {
					header := padding(test.fields, test.bytes)
					var lines []string
					for name := range header {
						lines = append(lines, name+": "+header.Get(name))
					}
					answer, body := front.ask(t, "POST", "/", strings.Repeat("x", test.body), lines...)
					what := fmt.Sprintf("%s, HTTP/2 to peers %v: %+v", front.name, http2Peer, test)
					verify.Equal(t, answer.Header.Get("X-Sluice-Reason"), test.reason, "%s: the reason", what)
					if test.reason != "" {
						verify.Equal(t, answer.StatusCode, 431, "%s: the status", what)
						continue
					}
					verify.That(t, answer.StatusCode == 200 && body == fmt.Sprint(test.body), "%s: status %d, %q", what, answer.StatusCode, body)
					expectPadding(t, answer.Header, header)
				}
			}
			p.expectNothingCounted()
		}
	}
}

// Requests on one connection with heads of any size do not disturb each other, also if they
// arrive together.
func TestLargeHeadsArePipelined(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Limits: largeHeads})
	p.usePeers(false, withHeads(largeHeads), balancer.Options{}, startServer(t, echoPadding))
	var all strings.Builder
	heads := []http.Header{padding(1, 100), padding(300, 50<<10), padding(2, 1<<10), padding(20, 18<<10), padding(1, 15<<10), padding(150, 30<<10)}
	for i, head := range heads {
		fmt.Fprintf(&all, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n", 1000*i)
		head.Write(&all)
		io.WriteString(&all, "\r\n"+strings.Repeat("x", 1000*i))
	}
	conn := p.dial()
	go io.WriteString(conn, all.String())
	reader := bufio.NewReader(conn)
	for i, head := range heads {
		answer, err := http.ReadResponse(reader, nil)
		verify.Require(t, err == nil, "response %d: %v", i+1, err)
		body, err := io.ReadAll(answer.Body)
		verify.That(t, err == nil && string(body) == fmt.Sprint(1000*i), "response %d: %q, %v", i+1, body, err)
		expectPadding(t, answer.Header, head)
	}
}

// A response head above the limits is no fault of the peer, since it may repeat the request.
func TestLimitsOfResponseHeads(t *testing.T) {
	t.Parallel()
	heads := map[string]http.Header{
		"/small": {}, "/medium": padding(2, 2<<10), "/usual": padding(50, 10<<10), "/long": padding(5, 17<<10), "/many": padding(101, 10<<10), "/both": padding(300, 50<<10),
		"/above": padding(20, http1.MaxHeadBytes), "/more": padding(401, 20<<10),
	}
	origin := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		for name, values := range heads[r.URL.Path] {
			w.Header()[name] = values
		}
		w.Header()["Date"] = nil
		io.WriteString(w, "ok")
	})
	for _, http2Peer := range []bool{false, true} {
		for limits, passing := range map[Limits]string{
			lowHeads: "/small", {HeadBytes: 16 << 10, Fields: http1.UsualFields}: "/small /medium /usual", largeHeads: "/small /medium /usual /long /many /both",
		} {
			p := startProxy(t, Options{})
			p.usePeers(http2Peer, withHeads(limits), balancer.Options{}, origin)
			front := p.fronts()[0]
			for path, head := range heads {
				answer, body := front.ask(t, "GET", path, "")
				what := fmt.Sprintf("%s, HTTP/2 to peers %v, limits %+v: status %d, %q", path, http2Peer, limits, answer.StatusCode, body)
				if slices.Contains(strings.Fields(passing), path) {
					verify.That(t, answer.StatusCode == 200 && body == "ok", "%s", what)
					expectPadding(t, answer.Header, head)
				} else {
					verify.That(t, answer.StatusCode == 502 && answer.Header.Get("X-Sluice-Reason") == "response_head_too_long", "%s", what)
				}
			}
			p.expectNothingCounted()
		}
	}
}

// The body of a response arrives also if its head fills the buffer exactly.
func TestResponseHeadFillsTheBuffer(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{socket.ResponseBufferBytes, http1.MaxHeadBytes} {
		origin := startOrigin(t, afterRequest(func(c *originConn) bool {
			const start, end = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: ", "\r\n\r\n"
			io.WriteString(c.Conn, start+strings.Repeat("x", limit-len(start)-len(end))+end)
			return c.write("ok")
		}))
		p := startProxy(t, Options{})
		options := transportOf(t)
		options.HeadBytes = units.Size(limit)
		p.usePeers(false, options, balancer.Options{}, origin.address())
		for range 3 {
			expectResponse(t, p.send(getRequest), 200, "ok")
		}
	}
}
