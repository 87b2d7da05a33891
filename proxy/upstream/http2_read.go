package upstream

import (
	"errors"
	"io"
	"os"

	"sluice/observe/panics"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

// read reads frames until the connection ends. It returns after all goroutines of the
// connection.
func (c *http2Conn) read() {
	defer panics.Contain(panics.Peer, nil)
	defer c.protocol.Work.Wait()
	defer c.wire.Conn.Close()
	defer c.entry.Remove()
	defer c.transport.forget(c)
	var b socket.Buffers
	err := panics.Err
	func() {
		defer panics.Contain(panics.Peer, nil)
		err = c.readFrames(&b)
		b.GiveBack()
	}()
	c.endStreams(err)
}

// endStreams ends the streams, and tells the peer why: err.
func (c *http2Conn) endStreams(err error) {
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	if !c.ready && err != io.EOF {
		if rejects(err) { // which says more than a write that has failed
			c.protocol.Err = err
		}
		c.failLocked(err) // dial returns it
	}
	c.failLocked(socket.ErrClosedEarly)
	c.sendGoAwayLocked(err)
}

func (c *http2Conn) readFrames(b *socket.Buffers) error {
	for end := 0; ; {
		n, err := c.reader.Read(c.wire, b, end, socket.RelayBufferBytes)
		switch {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded) && !c.entry.Expired(c.transport.sweeper):
			continue
		default:
			return err
		}
		end += n
		taken, failure := c.process(b.From[:end])
		if failure != nil {
			return failure
		}
		end = copy(b.From, b.From[taken:end])
	}
}

// process processes the frames in b, and returns their length.
func (c *http2Conn) process(b []byte) (taken int, err *http2.Error) {
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	c.heard, c.unheard = c.transport.sweeper.Now(), false
	if c.pinged != 0 {
		c.pinged = 0
		c.entry.Disarm()
	}
	return c.protocol.ProcessLocked(b, c.heard)
}

// sendGoAwayLocked sends GOAWAY if it fits the socket buffer. err is why the connection ends.
func (c *http2Conn) sendGoAwayLocked(err error) {
	if c.protocol.Flushing || len(c.protocol.Output.Frames) > 0 {
		return
	}
	code := http2.NoError
	if failure, ok := errors.AsType[*http2.Error](err); ok {
		code = failure.Code
	}
	frame := http2.AppendGoAway(nil, 0, code)
	if c.wire.TLS != nil {
		records := socket.SealBuffers.Get().(*socket.Buffer)
		defer socket.SealBuffers.Put(records)
		if frame, err = c.wire.TLS.Seal(frame, records); err != nil {
			return
		}
	}
	c.wire.Raw.Control(func(fd uintptr) { socket.Send(fd, frame) })
}
