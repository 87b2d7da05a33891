package proxy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sluice/http1"
)

// An upload sends the body of a request on while it arrives, in a goroutine of
// its own, because the peer may answer before it has got the whole body
// (RFC 9112, section 9.3.2).
type upload struct {
	x       *httpExchange
	up      *upstreamConn
	started bool
	done    chan struct{}
	read    atomic.Bool // the whole body was read from the client: set before its last bytes are sent
	ended   atomic.Bool // the whole body was sent to the peer
	endedAt time.Time   // to be read after ended
	broken  atomic.Bool // the body could not be read: err says why
	err     error       // to be read after broken
	behind  []byte      // what came in one read with the end of the body; to be read after done

	mu sync.Mutex
	// mu guards the fields below, and that the peer's time runs once over is set.
	responding bool // the body of the response is being read
	over       bool // the peer waits for the client no longer
}

func (l *upload) reset(x *httpExchange) {
	*l = upload{x: x}
}

// complete reports whether the whole body has been sent. It is called when the
// response is complete: see endsSoon.
func (l *upload) complete() bool {
	if !l.ended.Load() && l.read.Load() {
		endsSoon(l.done)
	}
	return l.ended.Load()
}

// failed reports whether the body could not be read from the client.
func (l *upload) failed() bool { return l.broken.Load() }

// start sends the head of the request and the body after it, and reads the
// first bytes of the response into response.
func (l *upload) start(u *upstreamConn, head, response []byte) (n int, sent bool, err error) {
	if u.used && !u.quiet() {
		return 0, false, errStale
	}
	if written, err := l.x.peerWriter.write(l.x.peerSide(u), head); err != nil {
		if written > 0 || !u.used {
			u.raw.Control(func(fd uintptr) { n = lastWords(fd, response) })
		}
		if n > 0 {
			l.x.client.linger = true // its body is not read
			u.arm(u.transport.sweeper, l.x.service.Timeouts.ResponseHeader)
			return n, true, nil
		}
		return 0, written > 0, err
	}
	l.up, l.started, l.done = u, true, make(chan struct{})
	go l.run()
	if n, err = u.read(response); err == io.EOF {
		err = errClosedEarly
	}
	if n > 0 {
		err = nil
	}
	return n, true, err
}

// wait ends the upload, whether or not it is complete, and waits for its
// goroutine. The connection to the peer must have been closed unless it is. A
// client's connection whose request has not been read to its end cannot go on.
func (l *upload) wait() {
	if !l.started {
		return
	}
	c := l.x.client
	select {
	case <-l.done:
	default:
		if !l.read.Load() {
			c.interrupt()
			<-l.done
			c.disarm()
			c.resume()
		}
		<-l.done
	}
	if !l.read.Load() {
		l.x.keepClient = false
		c.linger = true
	}
}

func (l *upload) run() {
	defer close(l.done)
	x := l.x
	var err error
	if x.head.Chunked {
		err = l.sendChunked()
	} else {
		err = l.sendLength()
	}
	switch {
	case err == nil:
		l.end(true)
	case err == errPeerWrite:
		// The peer closed: whatever it had to say is read by the other goroutine.
		l.end(false)
	case err == errPeerStalled:
		l.up.interrupt()
	default:
		l.err = err
		l.broken.Store(true)
		// Cut the peer: it must not take what it has got for the whole body.
		l.up.interrupt()
	}
}

// end notes that the peer waits for the client no longer, and whether it has got
// the whole body. Its time begins.
func (l *upload) end(sent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	timeout := l.x.service.Timeouts.ResponseHeader
	if l.responding {
		timeout = l.x.service.Timeouts.Idle
	}
	l.up.arm(l.up.transport.sweeper, timeout)
	l.endedAt = time.Now()
	l.ended.Store(sent)
}

// answering is called when the body of the response is read, and reports whether
// the peer's time runs. If not, it begins with the end of the request's body.
func (l *upload) answering() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.responding = true
	return !l.started || l.over
}

// waitsForClient reports whether the client has yet to send what the peer waits
// for.
func (l *upload) waitsForClient() bool {
	return l.started && !l.read.Load() && l.x.client.deadline.Load() != 0
}

var (
	errPeerWrite   = errors.New("the body could not be written to the peer")
	errPeerStalled = errors.New("the peer does not take the body")
)

// peerError is what an error of writing to the peer comes to.
func peerError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errPeerStalled
	}
	return errPeerWrite
}

func (l *upload) toPeer(b []byte) error {
	_, err := l.x.peerWriter.write(l.x.peerSide(l.up), b)
	return peerError(err)
}

// inBuffer returns the bytes of the client that are in the exchange's buffer
// after the head.
func (l *upload) inBuffer() []byte {
	x := l.x
	return x.in[x.start+x.headLength : x.end]
}

func (l *upload) fromClient(b []byte) (int, error) {
	n, err := l.x.client.read(b)
	if n > 0 {
		return n, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}

func (l *upload) sendLength() error {
	x := l.x
	left := x.head.ContentLength
	first := l.inBuffer()
	if int64(len(first)) > left {
		first = first[:left]
	}
	x.bodyLength = len(first)
	l.read.Store(int64(len(first)) == left)
	if len(first) > 0 {
		if err := l.toPeer(first); err != nil {
			return err
		}
	}
	left -= int64(len(first))
	x.bytesIn += int64(len(first))
	if left >= spliceMinBytes {
		client := x.client.side(x.client.server.options.Timeouts.Body)
		ok, sourceFailed, err := x.uploadSplicer.splice(x.peerSide(l.up), client, &x.peerWriter.pace, left, &x.bytesIn, &l.read)
		switch {
		case ok && !sourceFailed:
			return peerError(err)
		case ok:
			return err
		}
	}
	b := relayBuffers.Get().(*buffer)
	defer relayBuffers.Put(b)
	for left > 0 {
		n, err := l.fromClient(b.bytes[:min(left, int64(len(b.bytes)))])
		if err != nil {
			return err
		}
		left -= int64(n)
		x.bytesIn += int64(n)
		l.read.Store(left == 0)
		if err := l.toPeer(b.bytes[:n]); err != nil {
			return err
		}
	}
	return nil
}

func (l *upload) sendChunked() error {
	x := l.x
	limit := x.client.server.options.Limits.BodyBytes
	var scanner http1.ChunkScanner
	b := relayBuffers.Get().(*buffer)
	defer relayBuffers.Put(b)
	piece, fromBuffer := l.inBuffer(), true
	for {
		n, length, err := scanToTrailer(&scanner, piece)
		if err != nil {
			return err
		}
		if fromBuffer {
			x.bodyLength = n
		}
		if x.bytesIn += length; limit > 0 && x.bytesIn > limit {
			return http1.ErrBodyTooLong
		}
		if scanner.InTrailer() {
			return l.endChunked(&scanner, b, piece, n, fromBuffer)
		}
		if n > 0 {
			if err := l.toPeer(piece[:n]); err != nil {
				return err
			}
		}
		// No more than so much that what is behind the body fits the exchange's
		// buffer.
		most := min(scanner.Remaining()+requestBufferBytes, int64(len(b.bytes)))
		got, err := l.fromClient(b.bytes[:most])
		if err != nil {
			return err
		}
		piece, fromBuffer = b.bytes[:got], false
	}
}

// endChunked sends the last chunk, with which piece[:n] ends, and the trailer
// section, which follows as far as it has arrived. fromBuffer: piece is in the
// exchange's buffer.
func (l *upload) endChunked(scanner *http1.ChunkScanner, b *buffer, piece []byte, n int, fromBuffer bool) error {
	last := bytes.Clone(piece[:n])
	piece = piece[n:]
	var section []byte
	for {
		taken, _, err := scanner.Next(piece)
		if err != nil {
			return err
		}
		section = append(section, piece[:taken]...)
		if fromBuffer {
			l.x.bodyLength += taken
		}
		if scanner.Done() {
			if !fromBuffer {
				l.behind = bytes.Clone(piece[taken:])
			}
			break
		}
		got, err := l.fromClient(b.bytes[:requestBufferBytes])
		if err != nil {
			return err
		}
		piece, fromBuffer = b.bytes[:got], false
	}
	l.read.Store(true)
	return l.toPeer(append(appendTrailer(last, section), "\r\n"...))
}

// quiet reports whether an idle connection is fit for use: see the function quiet.
func (u *upstreamConn) quiet() bool {
	fit := false
	err := u.raw.Control(func(fd uintptr) { fit = quiet(fd) })
	return err == nil && fit
}
