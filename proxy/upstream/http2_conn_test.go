package upstream

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

// When the peer takes no more bytes, the frames that it sent before still count.
func TestFramesOfAPeerThatTakesNoMore(t *testing.T) {
	t.Parallel()
	c, accepted := unreadHTTP2Conn(t)
	open := func() *http2Stream { return openStream(t, c) }
	answered, lost, refused := open(), open(), open()
	awaitWritten(t, c)
	peer := xhttp2.NewFramer(accepted, nil)
	peer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: answered.stream.ID, BlockFragment: []byte{0x80 | 9}, EndStream: true, EndHeaders: true}) // :status 204
	peer.WriteGoAway(lost.stream.ID, xhttp2.ErrCodeNo, nil)
	accepted.Close() // a reset, since it has not read
	unwritten := open()
	c.eventually(t, "writing has failed", func() bool { return c.protocol.Err != nil })
	c.read()
	for _, test := range []struct {
		name     string
		u        *http2Stream
		answered bool
		err      error
	}{
		{"with an answer", answered, true, nil},
		{"without an answer", lost, false, socket.ErrClosedEarly},
		{"excluded by GOAWAY", refused, false, ErrUnprocessed},
		{"not written", unwritten, false, ErrUnprocessed},
	} {
		if got := len(test.u.heads) > 0; got != test.answered || test.u.stream.Err != test.err {
			t.Errorf("stream %s: answered %t, error %v; want %t, %v", test.name, got, test.u.stream.Err, test.answered, test.err)
		}
		test.u.Finish(false)
	}
}

// openStream sends a request without a body.
func openStream(t *testing.T, c *http2Conn) *http2Stream {
	t.Helper()
	if !c.reserve(agreement{}, false, false) {
		t.Fatal("no stream is free")
	}
	u := newHTTP2Stream(c, Requirements{Client: new(Client)})
	b := &socket.Buffers{Out: []byte("POST / HTTP/1.1\r\nHost: a\r\n\r\n")}
	if err := u.open(b, nil, nil, true); err != nil {
		t.Fatal(err)
	}
	return u
}

// awaitWritten waits until all requests are sent.
func awaitWritten(t *testing.T, c *http2Conn) {
	t.Helper()
	c.eventually(t, "all are written", func() bool { return c.protocol.Written == c.protocol.Last && !c.protocol.Flushing })
}

// eventually waits until condition holds, which it calls with the mutex of c held.
func (c *http2Conn) eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	eventually(t, what, func() bool {
		c.protocol.Mu.Lock()
		defer c.protocol.Mu.Unlock()
		return condition()
	})
}

// A panic of an exchange under the mutex of a connection ends the connection, which other exchanges
// use: what the mutex guards may be half changed.
func TestPanicUnderMutexEndsHTTP2Connection(t *testing.T) {
	t.Parallel()
	c, _ := unreadHTTP2Conn(t)
	defer c.entry.Remove()
	defer c.protocol.Work.Wait()
	panics, other := openStream(t, c), openStream(t, c)
	awaitWritten(t, c)
	func() {
		defer panics.Finish(false)
		defer func() { verify.That(t, recover() != nil, "there was no panic") }()
		c.protocol.Mu.Lock()
		defer c.protocol.Mu.Unlock()
		c.protocol.Output.Send(new(http2.Sender), nil, nil, nil, true) // without an owner
		c.protocol.Output.Fill()
	}()
	c.protocol.Mu.Lock()
	verify.That(t, other.stream.Stopped && c.protocol.Err != nil, "the other stream goes on")
	c.protocol.Mu.Unlock()
	other.Finish(false)
	verify.That(t, !c.reserve(agreement{}, false, false), "the connection gets more requests")
}

// A panic of the goroutine that sends ends the streams too whose requests it was writing.
func TestPanicOfSenderEndsHTTP2Streams(t *testing.T) {
	t.Parallel()
	c, _ := unreadHTTP2Conn(t)
	defer c.entry.Remove()
	awaitWritten(t, c)
	c.protocol.Mu.Lock()
	c.protocol.Flushing = true // so that no other goroutine sends
	c.protocol.Mu.Unlock()
	written := openStream(t, c)
	c.protocol.Mu.Lock()
	c.protocol.Taken = c.protocol.Last
	c.protocol.Mu.Unlock()
	waiting := openStream(t, c)
	c.OnPanic()
	c.protocol.Mu.Lock()
	verify.Equal(t, written.stream.Err, socket.ErrClosedEarly, "the stream whose request was being written")
	verify.Equal(t, waiting.stream.Err, ErrUnprocessed, "the stream whose request was not")
	c.protocol.Mu.Unlock()
	written.Finish(false)
	waiting.Finish(false)
}

// A connection that the peer has closed while it was idle gets no request, even if its
// reading goroutine does not know that yet.
func TestStaleHTTP2Connection(t *testing.T) {
	t.Parallel()
	c, peer := unreadHTTP2Conn(t)
	defer c.entry.Remove()
	defer c.protocol.Work.Wait()
	use := func() bool {
		if !c.reserve(agreement{}, false, false) {
			return false
		}
		c.protocol.Mu.Lock()
		defer c.protocol.Mu.Unlock()
		c.protocol.Last += 2
		c.releasedLocked()
		return true
	}
	for range 2 {
		verify.Require(t, use(), "an idle connection is not used")
	}
	verify.NoError(t, peer.(*net.TCPConn).CloseWrite())
	eventually(t, "its end is noticed", func() bool { return !use() })
}

// A request with a streamed body is not begun on a connection that the peer has reset under other
// streams: the body's start would be lost.
func TestStreamedRequestOnAResetHTTP2Connection(t *testing.T) {
	t.Parallel()
	c, peer := unreadHTTP2Conn(t)
	defer c.entry.Remove()
	defer openStream(t, c).Finish(false)
	awaitWritten(t, c)
	c.protocol.Mu.Lock()
	c.protocol.Flushing = true // so that no write tells of the reset
	c.protocol.Mu.Unlock()
	verify.NoError(t, peer.(*net.TCPConn).SetLinger(0))
	verify.NoError(t, peer.Close())
	eventually(t, "the request is not begun", func() bool {
		verify.Require(t, c.reserve(agreement{}, false, false), "no stream is free")
		u := newHTTP2Stream(c, Requirements{Client: new(Client)})
		defer u.Finish(false)
		err := u.open(&socket.Buffers{Out: []byte("POST / HTTP/1.1\r\nHost: a\r\n\r\n")}, nil, nil, false)
		return err == ErrUnprocessed
	})
}

// unreadHTTP2Conn returns a connection that is ready, and the peer's end of it. Nothing reads it.
func unreadHTTP2Conn(t *testing.T) (c *http2Conn, peer net.Conn) {
	t.Helper()
	conn, peer := connected(t)
	raw := verify.Result(conn.SyscallConn()).Must(t)
	c = newHTTP2Conn(startHTTP2(t, hanging), socket.Wire{Conn: conn, Raw: raw}, agreement{}, 0, 0)
	if _, err := c.process(http2.AppendSettings(nil)); err != nil {
		t.Fatal(err)
	}
	return c, peer
}

// A response with a Content-Length waits for its body, as with HTTP/1.1: if the peer fails
// before, the request can still be sent to another one.
func TestHTTP2ResponseWaitsForItsBody(t *testing.T) {
	const length, soon = 4, bodyStartTimeout / 2
	for _, test := range []struct {
		name     string
		happens  func(u *http2Stream)
		bodiless bool
		err      error
		after    time.Duration
	}{
		{"the peer fails", func(u *http2Stream) { u.stream.StopLocked(socket.ErrClosedEarly) }, false, socket.ErrClosedEarly, soon},
		{"the body arrives", func(u *http2Stream) { u.stream.Body.Append(make([]byte, length)) }, false, nil, soon},
		{"the response is too short", func(u *http2Stream) { u.stream.Received = true }, false, nil, soon},
		{"a part arrives", func(u *http2Stream) { u.stream.Body.Append(make([]byte, 1)) }, false, nil, bodyStartTimeout},
		{"nothing happens", func(*http2Stream) {}, false, nil, bodyStartTimeout},
		{"the timeout of the head ends", func(u *http2Stream) {
			u.entry.ArmRead(u.conn.transport.sweeper.Now())
			u.entry.Conn.SetReadDeadline(socket.ALongTimeAgo)
		}, false, nil, soon},
		{"there is no body", func(*http2Stream) {}, true, nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &http2Stream{conn: &http2Conn{transport: &http2Transport{common: &common{sweeper: socket.NewSweeper()}}}}
				u.conn.protocol.Init(http2.ConnOptions{Sweeper: u.conn.transport.sweeper})
				u.stream.Init(&u.conn.protocol, u, &u.entry, 0)
				begin := time.Now()
				var peer sync.WaitGroup
				defer peer.Wait()
				peer.Go(func() {
					time.Sleep(soon)
					u.conn.protocol.Mu.Lock()
					defer u.conn.protocol.Mu.Unlock()
					test.happens(u)
					u.stream.Wake()
				})
				var head http1.ResponseHead
				head.ContentLength = length
				err := u.StartBody(nil, &head, nil, test.bodiless)
				after := time.Since(begin)
				verify.That(t, err == test.err && after == test.after, "%v after %v, want %v after %v", err, after, test.err, test.after)
			})
		})
	}
}
