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

// largeHeads are limits above those that fit the usual buffers.
var largeHeads = Limits{HeadBytes: MaxHeadBytes, Fields: 400}

// withHeads returns someTransport for heads of that size.
func withHeads(l Limits) upstream.Options {
	o := someTransport
	o.HeadBytes, o.Fields = l.HeadBytes, l.Fields
	return o
}

// Heads up to the limits pass in both directions, with HTTP/1 and HTTP/2 on each side. What
// is above gets 431.
func TestLimitsOfRequestHeads(t *testing.T) {
	t.Parallel()
	origin := startServer(t, echoPadding)
	for _, peer := range []string{"HTTP/1", "HTTP/2"} {
		p := startProxy(t, Options{Limits: largeHeads})
		p.usePeers(peer == "HTTP/2", withHeads(largeHeads), balancer.Options{}, origin)
		for name, client := range map[string]*http.Client{"HTTP/1": {Transport: new(http.Transport), Timeout: patience}, "HTTP/2": http2Client(t)} {
			for _, test := range []struct {
				fields, bytes, body int
				status              int
				reason              string
			}{
				{3, 1 << 10, 10, 200, ""},
				{150, 15 << 10, 10, 200, ""},
				{10, 17 << 10, 0, 200, ""},
				{350, 55 << 10, 10 << 10, 200, ""},
				{350, 55 << 10, 200 << 10, 200, ""},
				{3, 1 << 10, 15 << 10, 200, ""}, // in the same buffer
				{450, 20 << 10, 0, 431, "too_many_fields"},
				{20, MaxHeadBytes, 0, 431, "head_too_long"},
			} {
				r := verify.Result(http.NewRequest("POST", "http://"+p.address, strings.NewReader(strings.Repeat("x", test.body)))).Must(t)
				r.Header = padding(test.fields, test.bytes)
				answer, err := client.Do(r)
				if err != nil {
					t.Errorf("%s to %s: %+v: %v", name, peer, test, err)
					continue
				}
				body, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				if answer.StatusCode != test.status || answer.Header.Get("X-Sluice-Reason") != test.reason {
					t.Errorf("%s to %s: %+v: status %d, %q", name, peer, test, answer.StatusCode, body)
				} else if test.status == 200 {
					verify.That(t, err == nil && string(body) == fmt.Sprint(test.body), "%s to %s: %+v: body %q, %v", name, peer, test, body, err)
					expectPadding(t, answer.Header, r.Header)
				}
			}
			client.CloseIdleConnections()
		}
		p.expectNothingCounted()
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

// A low limit refuses what fits the buffers.
func TestLowLimitsOfHeads(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answerOK)
	p := startProxy(t, Options{Limits: Limits{HeadBytes: 1 << 10, Fields: 10}}, origin.address())
	for head, reason := range map[string]string{
		"X: " + strings.Repeat("x", 1<<10) + "\r\n": "head_too_long",
		strings.Repeat("X: x\r\n", 10):              "too_many_fields",
		"X: " + strings.Repeat("x", 900) + "\r\n":   "",
	} {
		conn := p.send("GET / HTTP/1.1\r\nHost: a\r\n" + head + "\r\n")
		answer := verify.Result(http.ReadResponse(bufio.NewReader(conn), nil)).Must(t)
		want := 200
		if reason != "" {
			want = 431
		}
		verify.That(t, answer.StatusCode == want && answer.Header.Get("X-Sluice-Reason") == reason, "%.20q: status %d, reason %q", head, answer.StatusCode, answer.Header.Get("X-Sluice-Reason"))
	}
}

// A response head above the limits is no fault of the peer, since it may repeat the request.
func TestLimitsOfResponseHeads(t *testing.T) {
	t.Parallel()
	heads := map[string]http.Header{
		"/small": {}, "/medium": padding(2, 2<<10), "/usual": padding(50, 10<<10), "/long": padding(5, 17<<10), "/many": padding(101, 10<<10), "/both": padding(300, 50<<10),
		"/above": padding(20, MaxHeadBytes), "/more": padding(401, 20<<10),
	}
	origin := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		for name, values := range heads[r.URL.Path] {
			w.Header()[name] = values
		}
		w.Header()["Date"] = nil
		io.WriteString(w, "ok")
	})
	for _, peer := range []string{"HTTP/1", "HTTP/2"} {
		for limits, passing := range map[string]string{"low": "/small", "usual": "/small /medium /usual", "large": "/small /medium /usual /long /many /both"} {
			p := startProxy(t, Options{})
			options := map[string]upstream.Options{"low": withHeads(Limits{HeadBytes: 1 << 10, Fields: 10}), "usual": someTransport, "large": withHeads(largeHeads)}
			p.usePeers(peer == "HTTP/2", options[limits], balancer.Options{}, origin)
			client := &http.Client{Transport: new(http.Transport), Timeout: patience}
			for path, head := range heads {
				answer, err := client.Get("http://" + p.address + path)
				verify.Require(t, err == nil, "%s: %v", path, err)
				body, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				if slices.Contains(strings.Fields(passing), path) {
					if answer.StatusCode != 200 || err != nil || string(body) != "ok" {
						t.Errorf("%s, %s, limits %s: status %d, %q, %v", peer, path, limits, answer.StatusCode, body, err)
						continue
					}
					expectPadding(t, answer.Header, head)
				} else if reason := answer.Header.Get("X-Sluice-Reason"); answer.StatusCode != 502 || reason != "response_head_too_long" {
					t.Errorf("%s, %s, limits %s: status %d, %q", peer, path, limits, answer.StatusCode, reason)
				}
			}
			client.CloseIdleConnections()
			p.expectNothingCounted()
		}
	}
}

// The body of a response arrives also if its head fills the buffer exactly.
func TestResponseHeadFillsTheBuffer(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{socket.ResponseBufferBytes, MaxHeadBytes} {
		origin := startOrigin(t, afterRequest(func(c *originConn) bool {
			const start, end = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: ", "\r\n\r\n"
			io.WriteString(c.Conn, start+strings.Repeat("x", limit-len(start)-len(end))+end)
			return c.write("ok")
		}))
		p := startProxy(t, Options{})
		options := transportOf(t)
		options.HeadBytes = limit
		p.usePeers(false, options, balancer.Options{}, origin.address())
		for range 3 {
			conn := p.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			status, body := readResponse(t, conn)
			verify.That(t, status == 200 && body == "ok", "limit %d: status %d, %q", limit, status, body)
		}
	}
}
