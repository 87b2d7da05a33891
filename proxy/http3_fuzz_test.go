package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/quic-go/qpack"

	"sluice/test/verify"
)

// Whatever a client sends on the stream of a request, and behind its SETTINGS, the stream or the
// connection ends, and nothing stays in flight. A peer gets only what net/http takes for requests,
// and a whole one is that which another decoder finds in the frames.
func FuzzHTTP3(f *testing.F) {
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	head, data := h3Head(http3Post), h3Data("body")
	for _, fields := range []string{
		http3Get, http3Post, http3WebSocket, http3Get + "|x=1|te=trailers",
		http3Get + "|te=trailers|cookie=a=1|x=2|cookie=|cookie=b=2|x=1|via=1.1 a|accept=a|accept=b|pragma=no-cache",
		http3Get + "|x-forwarded-for=6.6.6.6|x_forwarded_for=6.6.6.6|x-forwarded-proto=https|forwarded=for=6.6.6.6|x-sluice-attempts=9|proxy-authorization=a|x_y=1|host=a",
		strings.Replace(http3Get, "GET", "HEAD", 1) + "|te=trailers|host=a|x=", strings.Replace(http3Get, "GET", "OPTIONS", 1) + "|max-forwards=7|x-y=\xff",
		http3Post + "|content-length=0", http3Post + "|content-length=4", http3Post + "|expect=100-continue|trailer=x-t",
		http3Post + "|content-type=application/grpc+proto|te=trailers|grpc-timeout=10S|x_y=1", ":method=CONNECT|:authority=a:1",
		http3Get + "|transfer-encoding=chunked", http3Get + "|connection=close", http3Get + "|x=1\r\nhost: b", http3Get + "|:path=/b",
	} {
		for _, rest := range [][]byte{nil, data, join(data, h3Head("x-t=1|content-length=9|host=b|x_t=3")), h3Data("123456789")} {
			f.Add(join(h3Head(fields), rest), []byte{}, uint8(len(rest)))
		}
	}
	for _, request := range [][]byte{
		{}, {0x40}, data, join(h3Frame(0x21, []byte("grease")), head, h3Data(""), h3Frame(0x40, nil), data), join(head, head, head), join(head, data, h3Head("x=1"), data),
		join(head, h3Frame(4, nil)), join(head, h3Frame(0xd, []byte{1})), {1, 0}, {1, 2, 0, 0}, {1, 3, 1, 0, 0xd1}, join(head, []byte{0, 0x80, 1, 0, 0}), h3Frame(1, bytes.Repeat([]byte{0xff}, 500)),
	} {
		f.Add(request, []byte{}, uint8(3))
	}
	for _, control := range [][]byte{h3Frame(7, []byte{4}), h3Frame(0xf0700, []byte{0, 'u', '=', '1'}), h3Frame(4, nil), h3Frame(3, []byte{0}), {0x21}} {
		f.Add(join(head, data), control, uint8(1))
	}

	var mu sync.Mutex
	var arrived []string // the whole requests that the peer got
	var malformed error  // of a request that is none
	origin := startOrigin(f, func(c *originConn) bool {
		r, err := http.ReadRequest(c.Reader)
		if err != nil {
			if ended := (*net.OpError)(nil); err != io.EOF && err != io.ErrUnexpectedEOF && !errors.As(err, &ended) {
				mu.Lock()
				malformed = err
				mu.Unlock()
			}
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		mu.Lock()
		arrived = append(arrived, fmt.Sprintf("%s %s %q", r.Method, r.RequestURI, body))
		mu.Unlock()
		return c.write(okResponse)
	})
	l := findLeftovers(f) // first: the race detector sees no order in packets
	p, address := startHTTP3Proxy(f, Options{}, origin.address())
	var one sync.Mutex
	f.Fuzz(func(t *testing.T, request, control []byte, parts uint8) {
		defer l.enter(t, p)()
		one.Lock()
		defer one.Unlock()
		p.t = t
		if len(request)+len(control) > 64<<10 {
			return
		}
		mu.Lock()
		arrived = nil
		mu.Unlock()
		c := dialBareHTTP3(t, address)
		defer c.close()
		c.openUni([]byte{0}, h3Frame(4, nil), control)
		sent := request
		r, err := c.tryOpen()
		if err == nil {
			for size := len(request)/max(int(parts), 1) + 1; len(request) > 0; {
				n := min(size, len(request))
				r.send(request[:n])
				request = request[n:]
			}
			r.CloseWrite()
			r.drain()
		}
		c.close()
		p.expectNothingLeft(t, 0)
		mu.Lock()
		defer mu.Unlock()
		verify.Require(t, malformed == nil, "the peer got no request: %v", malformed)
		verify.Require(t, len(arrived) <= 1, "the peer got %q", arrived)
		if len(arrived) == 1 {
			found, err := findRequest(sent)
			verify.That(t, err == nil && found == arrived[0], "the peer got %s, another decoder finds %s, %v", arrived[0], found, err)
		}
	})
}

// drain reads until the stream or the connection has ended, frames or not.
func (r *http3Request) drain() {
	r.t.Helper()
	_, err := io.Copy(io.Discard, r.in)
	verify.That(r.t, !timedOut(err), "the stream does not end: %v", err)
}

// withoutBase returns a section whose Base is 0, as quic-go demands: RFC 9204, section 4.5.1.2,
// allows any, which nothing refers to.
func withoutBase(section []byte) []byte {
	if len(section) < 2 || section[0] != 0 {
		return section
	}
	n := 2
	if section[1]&0x7f == 0x7f {
		for n < len(section) && section[n]&0x80 != 0 {
			n++
		}
		n++
	}
	return append([]byte{0, 0}, section[min(n, len(section)):]...)
}

// findRequest returns the request in the frames of a stream as a peer gets it.
func findRequest(sent []byte) (string, error) {
	in := bufio.NewReader(bytes.NewReader(sent))
	method, path, body, upgrades, empty := "", "", []byte{}, false, false
	for {
		frame, payload, err := h3ReadFrame(in)
		switch {
		case err == io.EOF:
			return fmt.Sprintf("%s %s %q", method, path, body), nil
		case err != nil:
			return "", err
		case frame == 0:
			body = append(body, payload...)
		case frame == 1 && method == "":
			for next := qpack.NewDecoder().Decode(withoutBase(payload)); ; {
				field, err := next()
				if err == io.EOF {
					break
				} else if err != nil {
					return "", err
				}
				switch field.Name {
				case ":method":
					method = field.Value
				case ":path":
					path = field.Value
				case ":protocol":
					upgrades = true
				case "content-length":
					empty = strings.Trim(field.Value, "0") == ""
				}
			}
			if upgrades {
				method = "GET"
			}
			if upgrades || empty { // the rest is not read
				return fmt.Sprintf("%s %s %q", method, path, ""), nil
			}
		}
	}
}
