package proxy

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/proxy/http1"
	"sluice/proxy/reserved"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
	"sluice/proxy/upstream"
	"sluice/route"
)

// An upload forwards the body of a request while it arrives, in its own goroutine,
// because the peer may respond before it has the whole body (RFC 9112, section
// 9.3.2).
type upload struct {
	body    *requestBody
	up      upstream.Conn
	started bool
	copy    *mirrored // that gets the body too; nil: none
	buffers socket.Buffers
	unkept  transfer.Piece // that was read in buffers, behind the part of the body that is kept; empty: none
	kept    atomic.Bool    // all that was read is kept, so that it can be sent again
	again   bool           // what is kept is to be sent again
	done    chan struct{}
	begun   atomic.Bool // a part of the body was read
	read    atomic.Bool // the whole body was read from the client; set before its last bytes are sent
	ended   atomic.Bool // the whole body was sent to the peer
	endedAt time.Time   // valid if ended is set
	broken  atomic.Bool // the body could not be read
	err     error       // valid if broken is set
	// continued: the client was told to send the body. Of the goroutine of the exchange.
	continued bool
	unasked   bool // the peer has neither asked for the body nor answered; as continued

	mu sync.Mutex
	// mu guards the fields below, and the start of the peer's timeout with over.
	responding bool // the body of the response is being read
	over       bool // the peer no longer waits for the client
}

func (l *upload) reset() { *l = upload{body: l.body} }

// complete reports whether the whole body was sent. It is called when the response is
// complete: see transfer.EndsShortly.
func (l *upload) complete() bool {
	if !l.ended.Load() && l.read.Load() {
		transfer.EndsShortly(l.done)
	}
	return l.ended.Load()
}

// awaitEnd waits for the end of the upload, and reports whether the whole body was sent.
func (l *upload) awaitEnd() bool {
	if l.started {
		<-l.done
	}
	return l.ended.Load()
}

// longestUpload is no timeout, but in a wait with one the client is looked after.
const longestUpload = 365 * 24 * time.Hour

// failed reports whether the body could not be read from the client.
func (l *upload) failed() bool { return l.broken.Load() }

// start sends x.out, the head of the request, starts to send the body, and waits for
// the response.
func (l *upload) start(u upstream.Conn) (sent bool, err error) {
	x := l.body
	u.WaitAtMost(x.request.withinDeadline(longestUpload)) // the client may leave, or its deadline pass, while it sends
	answered, sent, err := u.SendHead(&x.buffers, x.request.head.Chunked)
	switch {
	case answered:
		x.request.client.downstream.closeAfterAnswer()
		u.WaitAtMost(x.request.withinDeadline(x.route.service.Timeouts.ResponseHeader))
		return sent, nil
	case err != nil:
		return sent, err
	}
	l.up, l.started, l.done = u, true, make(chan struct{})
	if !l.begun.Load() {
		l.kept.Store(x.request.head.ContentLength <= int64(x.route.service.Retry.BodyBytes) && x.route.service.Retry.BodyBytes > 0 && l.unkept.Length == 0)
		l.beginWithStart()
	}
	go l.run()
	err = l.await(u)
	return err != upstream.ErrUnprocessed, err
}

// beginWithStart begins with what readStart has kept of the body, if it has.
func (l *upload) beginWithStart() {
	x := l.body
	switch {
	case len(x.bytes) == 0 && !l.read.Load():
	case !l.kept.Load() && !l.read.Load():
		x.bytesIn = 0 // take counts it
	default:
		l.kept.Store(true)
		if l.copy != nil {
			l.copy = l.copy.add(transfer.Piece{Text: x.bytes, Length: int64(len(x.bytes)), Last: l.read.Load()})
		}
		l.again = true
		l.begun.Store(true)
	}
}

// await waits for the response. A client that waits for a 100 gives the peer half of its own time
// for that. Then l is unasked, and there is no error.
func (l *upload) await(u upstream.Conn) error {
	x := l.body
	var until upstream.Until // a request with such a body does not leave its peer
	if l.expectant() && !l.begun.Load() {
		half := make(chan struct{})
		timer := time.AfterFunc(x.request.client.options.Timeouts.Body/2, func() {
			defer panics.Contain(panics.Exchange, nil)
			close(half)
		})
		defer timer.Stop()
		until.Changed = half
	}
	err := u.Await(&x.buffers, until)
	if err == upstream.ErrSuspected {
		l.unasked, err = true, nil
	}
	return err
}

// withdraw ends the upload, and what was read is sent again by the next one, unless it is not kept.
// The peer has not processed the request, or it may be sent twice. It reports whether it did.
func (l *upload) withdraw() bool {
	if !l.started || l.broken.Load() || !l.kept.Load() && l.begun.Load() {
		return false
	}
	l.interrupt()
	if !l.kept.Load() && l.begun.Load() || l.err != nil && !errors.Is(l.err, os.ErrDeadlineExceeded) {
		return false
	}
	l.started, l.over, l.up, l.done, l.err = false, false, nil, nil, nil
	l.broken.Store(false)
	l.ended.Store(false)
	l.again = l.begun.Load()
	return true
}

// expectant reports whether the client may wait for a 100 before it sends the body.
func (l *upload) expectant() bool { return l.body.request.head.ExpectContinue && !l.continued }

// interrupt ends the wait for the client, and waits for the goroutine.
func (l *upload) interrupt() {
	c := l.body.request.client
	c.Entry.Interrupt()
	<-l.done
	c.Entry.Disarm()
	c.Entry.Resume()
	if c.cutBy() != nil {
		c.Entry.Interrupt() // Resume has reverted the cut too
	}
}

// wait ends the upload and waits for its goroutine. If the upload is incomplete, the
// connection to the peer must be closed. If the request was not read to its end, the
// client's connection is closed after the response.
func (l *upload) wait() {
	if l.started {
		if !l.read.Load() && !wake.Closed(l.done) {
			l.interrupt()
		}
		<-l.done
	} else {
		l.buffers.GiveBack()
	}
	l.dropCopy()
	if (l.started || l.again) && !l.read.Load() {
		l.body.request.client.downstream.closeAfterAnswer()
	}
}

// dropCopy drops the copy of a request whose body was not forwarded to its end.
func (l *upload) dropCopy() {
	if l.copy != nil {
		l.copy.drop(route.DroppedBodyIncomplete)
		l.copy = nil
	}
}

func (l *upload) run() {
	defer close(l.done)
	defer panics.Contain(panics.Exchange, l.fail)
	defer l.buffers.GiveBack()
	err := l.forward()
	switch {
	case err == nil:
		l.end(true)
	case err == errPeerWrite:
		// The peer closed. The other goroutine reads what it sent before.
		l.end(false)
	case err == errPeerStalled:
		l.up.Interrupt()
	default:
		l.err = err
		l.broken.Store(true)
		// The peer must not process an incomplete body.
		l.up.Interrupt()
	}
}

// end records that the peer no longer waits for the client, and whether the whole
// body was sent. It starts the peer's timeout.
func (l *upload) end(sent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	timeout := l.body.request.withinDeadline(l.body.route.service.Timeouts.ResponseHeader)
	if l.responding {
		timeout = l.body.route.bodyPause()
	}
	l.up.WaitAtMost(timeout)
	l.endedAt = time.Now()
	l.ended.Store(sent)
}

// answering is called when the body of the response is read, and reports whether the
// peer's timeout runs. If not, end starts it.
func (l *upload) answering() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.responding = true
	return !l.started || l.over
}

// waitsForClient reports whether the upload waits for bytes of the client.
func (l *upload) waitsForClient() bool {
	return l.started && !l.read.Load() && l.body.request.client.Entry.Deadline.Load() != 0
}

var (
	errPeerWrite   = errors.New("write to peer")
	errPeerStalled = errors.New("write to peer: timeout")
)

// peerError converts an error of writing to the peer.
func peerError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errPeerStalled
	}
	return errPeerWrite
}

// next returns the next piece of the body: first what an earlier try has sent, or what was read
// before the memory for bodies was used up.
func (l *upload) next(coded bool) (p transfer.Piece, err error) {
	switch x := l.body; {
	case l.again:
		return transfer.Piece{Text: x.bytes, Length: int64(len(x.bytes)), Last: l.read.Load(), Trailer: x.trailer}, nil
	case len(x.bytes) > 0 && !l.kept.Load():
		p = transfer.Piece{Text: x.bytes, Length: int64(len(x.bytes))}
		x.bytes = nil
		return p, nil
	case l.unkept.Length > 0:
		x.dropBody() // it was sent
		p, l.unkept = l.unkept, transfer.Piece{}
		return p, nil
	}
	return l.body.request.client.downstream.ReadBody(&l.buffers, coded)
}

// take takes account of a piece that was read, and keeps it as long as the body is short enough to
// be sent again.
func (l *upload) take(p transfer.Piece, limit int64) (transfer.Piece, error) {
	x := l.body
	if x.bytesIn += p.Length; limit > 0 && x.bytesIn > limit {
		return p, http1.ErrBodyTooLong
	}
	if l.copy != nil {
		l.copy = l.copy.add(p)
	}
	p.Trailer = x.route.filterTrailer(p.Trailer, reserved.ToPeers)
	if l.kept.Load() {
		most := int64(x.route.service.Retry.BodyBytes)
		fits := !l.hasAnswer() && int64(len(x.bytes)+len(p.Text)) <= most
		if fits && len(p.Text) > 0 {
			fits = x.keep(p.Text, most)
		}
		if x.trailer = bytes.Clone(p.Trailer); !fits {
			l.kept.Store(false) // before the memory is another's
			x.dropBody()
		}
	}
	l.begun.Store(true)
	l.read.Store(p.Last)
	return p, nil
}

// hasAnswer reports whether the body of the response is read: the request is not sent again.
func (l *upload) hasAnswer() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.responding
}

// forward sends the body.
func (l *upload) forward() error {
	x, from := l.body, l.body.request.client.downstream
	limit := x.route.bodyLimit()
	coded := l.up.TakesCoded() && l.copy == nil
	for {
		p, err := l.next(coded && !l.kept.Load())
		if err != nil {
			return err
		}
		if l.again {
			l.again = false
		} else if p, err = l.take(p, limit); err != nil {
			return err
		}
		if err := l.up.WriteBody(&l.buffers, p); err != nil || p.Last {
			return peerError(err)
		}
		if l.copy != nil || l.unkept.Length > 0 || l.kept.Load() { // splice would give it back, or not keep it
			continue
		}
		switch done, sourceFailed, err := transfer.Splice(&l.buffers, l.up, from, &x.bytesIn, &l.read); {
		case sourceFailed:
			return err
		case done:
			return peerError(err)
		}
	}
}
