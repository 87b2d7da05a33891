package upstream

import (
	"net"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

// When the peer takes no more bytes, the frames that it sent before still count.
func TestFramesOfAPeerThatTakesNoMore(t *testing.T) {
	t.Parallel()
	c, accepted := unreadHTTP2Conn(t)
	client := new(Client)
	open := func() *http2Stream {
		if !c.reserve(nil) {
			t.Fatal("no stream is free")
		}
		u := newHTTP2Stream(c, Requirements{Client: client})
		b := &socket.Buffers{Out: []byte("POST / HTTP/1.1\r\nHost: a\r\n\r\n")}
		if err := u.open(b, nil, nil, true); err != nil {
			t.Fatal(err)
		}
		return u
	}
	answered, lost, refused := open(), open(), open()
	eventually(t, "all are written", func() bool {
		c.Mu.Lock()
		defer c.Mu.Unlock()
		return c.Written == c.Last && !c.Flushing
	})
	peer := xhttp2.NewFramer(accepted, nil)
	peer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: answered.ID, BlockFragment: []byte{0x80 | 9}, EndStream: true, EndHeaders: true}) // :status 204
	peer.WriteGoAway(lost.ID, xhttp2.ErrCodeNo, nil)
	accepted.Close() // a reset, since it has not read
	unwritten := open()
	eventually(t, "writing has failed", func() bool {
		c.Mu.Lock()
		defer c.Mu.Unlock()
		return c.Err != nil
	})
	c.read()
	for _, test := range []struct {
		name     string
		u        *http2Stream
		answered bool
		err      error
	}{
		{"with an answer", answered, true, nil},
		{"without an answer", lost, false, socket.ErrClosedEarly},
		{"excluded by GOAWAY", refused, false, errUnprocessed},
		{"not written", unwritten, false, errUnprocessed},
	} {
		if got := len(test.u.heads) > 0; got != test.answered || test.u.Err != test.err {
			t.Errorf("stream %s: answered %t, error %v; want %t, %v", test.name, got, test.u.Err, test.answered, test.err)
		}
		test.u.Finish(false)
	}
}

// A connection that the peer has closed while it was idle gets no request, even if its
// reading goroutine does not know that yet.
func TestStaleHTTP2Connection(t *testing.T) {
	t.Parallel()
	c, peer := unreadHTTP2Conn(t)
	defer c.Remove()
	defer c.Work.Wait()
	use := func() bool {
		if !c.reserve(nil) {
			return false
		}
		c.Mu.Lock()
		defer c.Mu.Unlock()
		c.Last += 2
		c.releasedLocked()
		return true
	}
	for range 2 {
		verify.Require(t, use(), "an idle connection is not used")
	}
	verify.NoError(t, peer.(*net.TCPConn).CloseWrite())
	eventually(t, "its end is noticed", func() bool { return !use() })
}

// unreadHTTP2Conn returns a connection that is ready, and the peer's end of it. Nothing reads it.
func unreadHTTP2Conn(t *testing.T) (c *http2Conn, peer net.Conn) {
	t.Helper()
	conn, peer := connected(t)
	raw, err := conn.SyscallConn()
	verify.NoError(t, err)
	c = newHTTP2Conn(startHTTP2(t, hanging), socket.Wire{Conn: conn, Raw: raw}, nil, 0, 0)
	if _, err := c.process(http2.AppendSettings(nil)); err != nil {
		t.Fatal(err)
	}
	return c, peer
}
