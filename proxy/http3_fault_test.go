package proxy

import (
	"bytes"
	"fmt"
	"testing"

	own "sluice/proxy/http3"
	"sluice/test/verify"
)

// startHTTP3Proxy starts a proxy with HTTP/3, and returns its address.
func startHTTP3Proxy(t testing.TB, o Options, origins ...string) (p *testProxy, address string) {
	t.Helper()
	p = startProxy(t, o, origins...)
	return p, p.serveHTTP3(ListenerOptions{Name: "h3"})
}

// An http3Fault is what a client does wrong on a new connection.
type http3Fault struct {
	what string
	code own.ErrorCode
	do   func(c *http3Frames)
}

// Faults that end the connection: RFC 9114, section 8.1, and RFC 9204, section 6.
// [sluice/proxy/http3] has all those of the streams beside requests, and [sluice/proxy/fields] those of
// field sections.
func TestHTTP3ConnectionFaults(t *testing.T) {
	t.Parallel()
	head, trailer, data := h3Head(http3Post), h3Head("x=1"), h3Data("body")
	settings := h3Frame(4, nil)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	// request sends bytes on a stream of a request, which goes on.
	request := func(parts ...[]byte) func(c *http3Frames) {
		return func(c *http3Frames) { c.open(parts...) }
	}
	// whole is request with the end of the stream.
	whole := func(parts ...[]byte) func(c *http3Frames) {
		return func(c *http3Frames) { c.open(parts...).CloseWrite() }
	}
	control := func(parts ...[]byte) func(c *http3Frames) {
		return func(c *http3Frames) { c.control.Write(join(parts...)); c.control.Flush() }
	}
	// first sends frames in place of the SETTINGS of dialHTTP3.
	first := func(parts ...[]byte) func(c *http3Frames) {
		return func(c *http3Frames) { c.control = c.openUni([]byte{0}, join(parts...)) }
	}
	withoutSettings := []http3Fault{
		{"no SETTINGS, but GOAWAY", own.MissingSettings, first(h3Frame(7, []byte{0}))},
		{"a setting twice", own.SettingsError, first(h3Frame(4, []byte{6, 0x10, 6, 0x10}))},
		{"long SETTINGS", own.ExcessiveLoad, first(h3Frame(4, make([]byte, 5000)))},
		{"the end of the control stream before SETTINGS", own.ClosedCriticalStream, func(c *http3Frames) { c.openUni([]byte{0}).CloseWrite() }},
	}
	tests := []http3Fault{
		{"DATA before HEADERS", own.FrameUnexpected, request(data)},
		{"DATA alone", own.FrameUnexpected, whole(data)},
		{"HEADERS after the trailer section", own.FrameUnexpected, request(head, data, trailer, trailer)},
		{"DATA after the trailer section", own.FrameUnexpected, request(head, data, trailer, data)},
		{"SETTINGS on the stream of a request", own.FrameUnexpected, request(settings)},
		{"SETTINGS after the trailer section", own.FrameUnexpected, request(head, data, trailer, settings)},
		{"GOAWAY on the stream of a request", own.FrameUnexpected, request(head, h3Frame(7, []byte{0}))},
		{"CANCEL_PUSH on the stream of a request", own.FrameUnexpected, request(head, h3Frame(3, []byte{0}))},
		{"PUSH_PROMISE on the stream of a request", own.FrameUnexpected, request(head, h3Frame(5, []byte{0, 0, 0}))},

		{"DATA on the control stream", own.FrameUnexpected, control(data)},

		{"HEADERS that end within the stream", own.FrameError, whole(head[:len(head)-1])},
		{"HEADERS without a byte of what is announced", own.FrameError, whole(head[:2])},
		{"DATA that ends within the stream", own.FrameError, whole(head, h3Data("body")[:4])},
		{"DATA without a byte of what is announced", own.FrameError, whole(head, []byte{0, 4})},
		{"a stream that ends within a type", own.FrameError, whole(head, []byte{0x40})},
		{"a stream that ends within a length", own.FrameError, whole(head, []byte{0, 0x40})},
		{"a stream that ends between type and length", own.FrameError, whole([]byte{1})},
		{"an unknown frame that ends within the stream", own.FrameError, whole(head, h3Frame(0x21, []byte("grease"))[:4])},
		{"a trailer section that ends within the stream", own.FrameError, whole(head, data, trailer[:3])},

		{"GOAWAY that is higher", own.IDError, control(h3Frame(7, []byte{4}), h3Frame(7, []byte{8}))},

		{"a push stream", own.StreamCreationError, func(c *http3Frames) { c.openUni([]byte{1, 0}) }},
		{"a second control stream", own.StreamCreationError, func(c *http3Frames) { c.openUni([]byte{0}, settings) }},
		{"a second encoder stream", own.StreamCreationError, func(c *http3Frames) { c.openUni([]byte{2}); c.openUni([]byte{2}) }},

		{"the end of the control stream", own.ClosedCriticalStream, func(c *http3Frames) { c.control.CloseWrite() }},
		{"a reset of the control stream", own.ClosedCriticalStream, func(c *http3Frames) { c.expectAlive(); c.control.Reset(1) }},
		{"a reset of the decoder stream", own.ClosedCriticalStream, func(c *http3Frames) {
			s := c.openUni([]byte{3})
			c.expectAlive() // so that the type has arrived
			s.Reset(1)
		}},

		{"an empty field section", own.DecompressionFailed, request(h3Frame(1, nil))},
		{"an empty field section at the end", own.DecompressionFailed, whole(h3Frame(1, nil))},
		{"a dynamic index", own.DecompressionFailed, whole(h3Frame(1, []byte{0, 0, 0x80}))},
		{"a trailer section that is no section", own.DecompressionFailed, whole(head, data, h3Frame(1, []byte{0, 0, 0x80}))},

		{"an insertion", own.EncoderStreamError, func(c *http3Frames) { c.openUni([]byte{2, 0xc0, 1, 'x'}) }},
		{"an increment of nothing", own.DecoderStreamError, func(c *http3Frames) { c.openUni([]byte{3, 0}) }},
	}
	for _, frame := range []uint64{2, 6, 8, 9} { // of HTTP/2: RFC 9114, section 7.2.8
		payload := h3Frame(frame, make([]byte, 8))
		tests = append(tests,
			http3Fault{fmt.Sprintf("type %d of HTTP/2 before HEADERS", frame), own.FrameUnexpected, request(payload)},
			http3Fault{fmt.Sprintf("type %d of HTTP/2 after HEADERS", frame), own.FrameUnexpected, request(head, payload)})
	}
	p, address := startHTTP3Proxy(t, Options{}, answersOK(t))
	ended := uint64(0)
	run := func(dial func(t testing.TB, to string) *http3Frames, tests []http3Fault) {
		for _, test := range tests {
			t.Run(test.what, func(t *testing.T) {
				c := dial(t, address)
				test.do(c)
				c.expectEnd(test.code)
				ended++
				eventually(t, "the connection is closed", func() bool { return p.Connections() == 0 })
				verify.Equal(t, p.http3.errors.Load(), ended, "connections that were ended for a fault")
			})
		}
	}
	run(dialBareHTTP3, withoutSettings)
	run(dialHTTP3, tests)
	p.expectNothingLeft(t, 0)
	dialHTTP3(t, address).expectAlive()
}
