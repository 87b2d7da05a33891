package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	own "sluice/proxy/http3"
	"sluice/test/verify"
)

// echoBody answers with the method, the body and the trailer section of a request.
func echoBody(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	fmt.Fprintf(w, "%s %s %s", r.Method, body, r.Trailer.Get("X-After"))
}

// What a client may send, however odd: RFC 9114, sections 6.2, 7.2.8 and 9, and RFC 9000, section
// 16.
func TestHTTP3AcceptsWhatIsAllowed(t *testing.T) {
	t.Parallel()
	get, head, data, trailer := h3Head(http3Get), h3Head(http3Post), h3Data("body"), h3Head("x-after=1")
	grease := func(n uint64, length int) []byte { return h3Frame(0x21+0x1f*n, make([]byte, length)) }
	padded := func(frame uint64, payload []byte, n int) []byte {
		return append(append(h3LongInt(frame, n), h3LongInt(uint64(len(payload)), n)...), payload...)
	}
	section := h3Section(http3Get)
	type request [][]byte // parts of a request, which then ends
	for _, test := range []struct {
		what string
		do   any // a request, or a func(c *http3Frames) before one
		want string
	}{
		{"a request", request{get}, "GET  "},
		{"a body", request{head, data}, "POST body "},
		{"a body in parts", request{head, h3Data("bo"), h3Data(""), h3Data("dy")}, "POST body "},
		{"a body without bytes", request{head, h3Data(""), h3Data("")}, "POST  "},
		{"a trailer section", request{head, data, trailer}, "POST body 1"},
		{"a trailer section without a body", request{head, trailer}, "POST  1"},
		{"an empty trailer section", request{head, data, h3Frame(1, []byte{0, 0})}, "POST body "},
		{"unknown frames everywhere", request{grease(0, 3), head, grease(1, 0), data, grease(1<<40, 9), trailer, grease(2, 1)}, "POST body 1"},
		{"a long unknown frame", request{grease(0, 20_000), head, grease(7, 20_000), data}, "POST body "},
		{"an unknown frame that ends the request", request{get, grease(3, 10)}, "GET  "},
		{"PRIORITY_UPDATE on the stream of a request", request{h3Frame(0xf0700, []byte{0, 'u', '=', '1'}), get}, "GET  "},
		{"integers of two bytes", request{padded(1, section, 1)}, "GET  "},
		{"integers of eight bytes", request{padded(1, h3Section(http3Post), 3), padded(0, []byte("body"), 3), padded(1, h3Section("x-after=1"), 3)}, "POST body 1"},
		{"byte by byte", request(eachByte(head, data, grease(0, 2), trailer)), "POST body 1"},
		{"a section with a base", request{h3Frame(1, append([]byte{0, 5}, section[2:]...))}, "GET  "},
		{"the end in its own frame", func(c *http3Frames) {
			r := c.open(get)
			r.CloseWrite()
			a := r.response()
			verify.That(t, a.ended && a.body == "GET  ", "got %+v", a)
		}, ""},

		{"a client without a control stream", nil, ""},
		{"QPACK's streams", func(c *http3Frames) { c.openUni([]byte{3}); c.openUni([]byte{2}) }, ""},
		{"unknown streams", func(c *http3Frames) {
			for n := range 100 {
				s := c.openUni(h3LongInt(0x21+0x1f*uint64(n), 2+n%2), make([]byte, n))
				s.CloseWrite()
			}
		}, ""},
		{"streams without a type", func(c *http3Frames) {
			for range 3 {
				c.openUni().CloseWrite()
				c.openUni([]byte{0x40}).CloseWrite()
			}
		}, ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			_, address := startHTTP3Proxy(t, Options{}, startServer(t, echoBody))
			var c *http3Frames
			if test.do == nil {
				c = dialBareHTTP3(t, address)
			} else {
				c = dialHTTP3(t, address)
			}
			switch do := test.do.(type) {
			case request:
				r := c.open(do...)
				r.CloseWrite()
				a := r.response()
				verify.That(t, a.status == "200" && a.ended && a.body == test.want, "got %+v, want %q", a, test.want)
			case func(*http3Frames):
				if do(c); c.control != nil {
					c.control.Flush()
				}
			}
			a := c.ask(http3Get)
			verify.That(t, a.status == "200" && a.body == "GET  ", "the next request: %+v", a)
		})
	}
}

// eachByte returns the bytes of parts.
func eachByte(parts ...[]byte) (all [][]byte) {
	for _, b := range bytes.Join(parts, nil) {
		all = append(all, []byte{b})
	}
	return all
}

// The order in which the streams of a client may come. TestCriticalStreams of package http3 has
// what may come on them.
func TestHTTP3AcceptsStreams(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]func(c *http3Frames){
		"behind QPACK's streams": func(c *http3Frames) {
			first, second := c.openUni(), c.openUni() // their ids are lower
			c.openUni([]byte{0}, h3Frame(4, nil))
			sendBytes(second, []byte{3})
			c.expectAlive()
			sendBytes(first, []byte{2})
		},
		"behind a stream whose type never comes": func(c *http3Frames) {
			sendBytes(c.openUni(), []byte{0x80})
			c.openUni([]byte{0}, h3Frame(4, []byte{4, 0}))
			c.expectEnd(own.SettingsError)
		},
	}, func(t *testing.T, do func(c *http3Frames)) {
		_, address := startHTTP3Proxy(t, Options{}, answersOK(t))
		c := dialBareHTTP3(t, address)
		do(c)
		if t.Name() != "TestHTTP3AcceptsStreams/behind_a_stream_whose_type_never_comes" {
			c.expectAlive()
		}
	})
}

func sendBytes(w interface {
	io.Writer
	Flush() error
}, parts ...[]byte) {
	for _, b := range eachByte(parts...) {
		w.Write(b)
		w.Flush()
	}
}

// What sluice says first: its limit of field sections, and that it accepts the extended CONNECT.
func TestHTTP3Settings(t *testing.T) {
	t.Parallel()
	_, address := startHTTP3Proxy(t, Options{})
	in := dialHTTP3(t, address).serverFrames()
	frame, payload, err := h3ReadFrame(in)
	want := append(append(h3Int(6), h3LongInt(streamListBytes, 2)...), 8, 1)
	verify.That(t, err == nil && frame == 4 && bytes.Equal(payload, want), "got %d %x, %v, want SETTINGS %x", frame, payload, err, want)
}
