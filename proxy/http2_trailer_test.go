package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/test/verify"
)

// The trailer section of a request reaches an HTTP/2 peer, whether or not the request has a
// Content-Length, and however much of it sluice reads before it sends it.
func TestRequestTrailersReachHTTP2Peers(t *testing.T) {
	t.Parallel()
	arrived := make(chan string, 1)
	p := startProxyToH2C(t, startFramePeerWith(t, framePeerOptions{
		answer: func(*framePeer, uint32) {},
		frame: func(p *framePeer, frame xhttp2.Frame) {
			var names []string
			switch f := frame.(type) {
			case *xhttp2.HeadersFrame:
				if !f.StreamEnded() {
					return
				}
				fields, err := hpack.NewDecoder(4096, nil).DecodeFull(f.HeaderBlockFragment())
				verify.Succeeds(t, err)
				for _, field := range fields {
					names = append(names, field.Name)
				}
			case *xhttp2.DataFrame:
				p.WriteWindowUpdate(0, max(f.Length, 1))
				p.WriteWindowUpdate(f.StreamID, max(f.Length, 1))
				if !f.StreamEnded() {
					return
				}
			default:
				return
			}
			slices.Sort(names)
			arrived <- strings.Join(names, " ")
			p.headers(frame.Header().StreamID, true, ":status", "204")
		},
	}))
	for _, buffered := range []int64{0, 1 << 20} {
		p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 3, BodyBytes: buffered}})
		for _, kind := range []struct{ name, fields, want string }{
			{"gRPC", "|content-type=application/grpc|te=trailers", "x-a x_b"},
			{"other", "", "x-a"}, // names with an underscore do not pass
		} {
			for _, length := range []int{0, 1, 5000, socket.RequestBufferBytes, 40_000} {
				for _, announced := range []bool{false, true} {
					if announced && length == 0 { // there is no body
						continue
					}
					t.Run(fmt.Sprintf("%s, %d bytes, announced %t, buffer %d", kind.name, length, announced, buffered), func(t *testing.T) {
						c := p.dialFrames()
						c.t = t
						fields := http2Post + kind.fields
						if announced {
							fields += fmt.Sprint("|content-length=", length)
						}
						c.request(1, fields, false)
						for body := make([]byte, length); len(body) > 0; {
							n := min(len(body), http2.MaxFrameBytes)
							c.WriteData(1, false, body[:n])
							body = body[n:]
						}
						c.request(1, "x-a=1|x_b=2|content-length=3", true)
						verify.Equal(t, <-arrived, kind.want, "the trailer section")
						r := c.response(1)
						verify.That(t, r.status == "204", "got %+v", r)
						c.conn.Close()
					})
				}
			}
		}
	}
}
