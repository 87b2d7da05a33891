package proxy

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/http2"
	"sluice/test/verify"
)

// A peer that lowers SETTINGS_HEADER_TABLE_SIZE may require that the next field block
// acknowledges it (RFC 7541, section 4.2), whether that is a head or a trailer section.
func TestHTTP2PeerHeaderTableSize(t *testing.T) {
	t.Parallel()
	for _, size := range []uint32{0, 4095, 4096, 65536} {
		for _, later := range []bool{false, true} {
			setting := xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: size}
			var updates []bool
			o := framePeerOptions{answer: func(*framePeer, uint32) {}}
			if !later {
				o.settings = append(o.settings, setting)
			}
			acks := 0
			acked := make(chan struct{})
			o.frame = func(p *framePeer, frame xhttp2.Frame) {
				switch f := frame.(type) {
				case *xhttp2.SettingsFrame:
					if f.IsAck() {
						if acks++; acks == 2 {
							close(acked)
						}
					}
				case *xhttp2.HeadersFrame:
					updates = append(updates, f.HeaderBlockFragment()[0] == 0x20)
					if f.StreamEnded() {
						p.headers(f.StreamID, true, ":status", "204")
					} else if later && len(updates) == 1 {
						p.WriteSettings(setting)
					}
				}
			}
			p := startProxyToH2C(t, startFramePeerWith(t, o))
			conn := p.dial()
			for i := range 2 {
				io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
				if later && i == 0 {
					<-acked
				}
				io.WriteString(conn, "2\r\nok\r\n0\r\nX: y\r\n\r\n")
				status, _ := readResponse(t, conn)
				verify.Require(t, status == 204, "status %d", status)
			}
			want := make([]bool, 4) // head and trailer section of two requests
			if size < 4096 && later {
				want[1] = true
			} else if size < 4096 {
				want[0] = true
			}
			verify.Slices(t, updates, want, "size %d, later %t: updates", size, later)
		}
	}
}

// Each test is a peer that ignores what bounds the memory of sluice: its connection ends.
func TestHTTP2PeerFloods(t *testing.T) {
	t.Parallel()
	const parts = 100_000 // at least 1.6 GB
	settings := http2.AppendSettings(nil, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Value: 100})
	for _, test := range []struct {
		name  string
		flood func(p *framePeer, stream uint32) error // a part of 16 KiB
	}{
		{"data beyond the window of a stream", func(p *framePeer, stream uint32) error {
			return p.WriteData(stream, false, make([]byte, http2.MaxFrameBytes))
		}},
		{"PING", func(p *framePeer, _ uint32) error {
			_, err := io.WriteString(p.Conn, strings.Repeat(string(http2.AppendPing(nil, 0, make([]byte, 8))), 1000))
			return err
		}},
		{"SETTINGS", func(p *framePeer, _ uint32) error {
			_, err := io.WriteString(p.Conn, strings.Repeat(string(settings), 1000))
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 1)
			p := startProxyToH2C(t, startFramePeer(t, func(p *framePeer, stream uint32) {
				p.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
				p.headers(stream, false, ":status", "200")
				for range parts {
					if test.flood(p, stream) != nil {
						ended <- nil
						return
					}
				}
				ended <- fmt.Errorf("all was accepted")
			}))
			conn := p.dial()
			conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") // and does not read
			verify.Succeeds(t, <-ended)
		})
	}
}
