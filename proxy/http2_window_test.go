package proxy

import (
	"io"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"sluice/test/verify"
)

// noWindow lowers the window of each stream by more than is left of it.
var noWindow = xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0}

// The end of a body needs no window, also if that is negative (RFC 9113, section 6.9.2).
func TestHTTP2ClientLowersItsWindow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, fields, end string }{
		{"without trailers", http2Get, "0\r\n\r\n"},
		{"with trailers", http2Get + "|te=trailers", "0\r\nX-Sum: 1\r\n\r\n"},
		{"with an empty trailer section", http2Get + "|te=trailers", "0\r\n\r\n"},
		{"with trailers that are not forwarded", http2Get + "|te=trailers", "0\r\nTransfer-Encoding: a\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			lowered := make(chan struct{})
			p := startProxy(t, Options{}, startOrigin(t, func(c *originConn) bool {
				c.request()
				io.WriteString(c.Conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
				<-lowered
				_, err := io.WriteString(c.Conn, test.end)
				return err == nil
			}).address())
			c := p.dialFrames()
			c.request(1, test.fields, true)
			c.drain(len("hello"))
			c.WriteSettings(noWindow)
			c.expectAnswered(func(f xhttp2.Frame) { t.Errorf("got %v", f) })
			close(lowered)
			r := c.response(1)
			verify.That(t, r.ended && r.body == "" && (r.trailer == nil || len(r.trailer) != 0), "got %+v", r)
			verify.Equal(t, test.name == "with trailers", (r.trailer["x-sum"] == "1"), "trailers %v", r.trailer)
		})
	}
}

// The same for a peer within an upload.
func TestHTTP2PeerLowersItsWindow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, end string }{
		{"without trailers", "0\r\n\r\n"},
		{"with trailers", "0\r\nX-Sum: 1\r\n\r\n"},
		{"with trailers that are not forwarded", "0\r\nTransfer-Encoding: a\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			lowered := make(chan struct{})
			var empty, trailers int
			address := startFramePeerWith(t, framePeerOptions{
				answer: func(*framePeer, uint32) {},
				frame: func(p *framePeer, frame xhttp2.Frame) {
					switch f := frame.(type) {
					case *xhttp2.DataFrame:
						if len(f.Data()) > 0 {
							p.WriteSettings(noWindow)
							p.WritePing(false, [8]byte{1})
						} else {
							empty++
						}
						if f.StreamEnded() {
							p.headers(f.StreamID, true, ":status", "204")
						}
					case *xhttp2.HeadersFrame:
						if f.StreamEnded() {
							trailers++
							p.headers(f.StreamID, true, ":status", "204")
						}
					case *xhttp2.PingFrame:
						if f.IsAck() {
							close(lowered)
						}
					}
				},
			})
			p := startProxyToH2C(t, address)
			conn := p.dial()
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			<-lowered
			io.WriteString(conn, test.end)
			status, body := readResponse(t, conn)
			verify.That(t, status == 204, "got %d %s", status, body)
			withTrailers := test.name == "with trailers"
			verify.That(t, withTrailers == (trailers == 1) && withTrailers != (empty == 1), "%d trailer sections, %d empty frames", trailers, empty)
		})
	}
}
