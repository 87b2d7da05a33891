package proxy

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"

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
	broken  atomic.Bool // the body could not be read: err says why
	err     error       // to be read after broken
	behind  []byte      // what came in one read with the end of the body; to be read after done
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
	u.arm(u.transport.sweeper, l.x.service.Timeouts.Idle)
	if written, err := u.write(head); err != nil {
		if written > 0 || !u.used {
			u.raw.Control(func(fd uintptr) { n = lastWords(fd, response) })
		}
		if n > 0 {
			l.x.client.linger = true // its body is not read
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
		l.up.arm(l.up.transport.sweeper, x.service.Timeouts.ResponseHeader)
		l.ended.Store(true)
	case errors.Is(err, errPeerWrite):
		// The peer closed: whatever it had to say is read by the other goroutine.
	default:
		l.err = err
		l.broken.Store(true)
		// Cut the peer: it must not take what it has got for the whole body.
		l.up.interrupt()
	}
}

// errPeerWrite: the body could not be written to the peer.
var errPeerWrite = errors.New("write to peer")

func (l *upload) toPeer(b []byte) error {
	l.up.arm(l.up.transport.sweeper, l.x.service.Timeouts.Idle)
	if _, err := l.up.write(b); err != nil {
		return errPeerWrite
	}
	return nil
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
		ok, sourceFailed, err := x.uploadSplicer.splice(x.peerSide(l.up), x.clientSide(x.client.server.options.Timeouts.Body), left, &x.bytesIn, &l.read)
		switch {
		case ok && err != nil && !sourceFailed:
			return errPeerWrite
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
