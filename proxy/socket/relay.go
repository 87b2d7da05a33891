package socket

import (
	"errors"
	"io"
	"net"
	"os"

	"sluice/observe/panics"
)

// A relay forwards the bytes of one direction of a tunnel. It has a buffer or a pipe
// only while there are bytes to forward.
type relay struct {
	tunnel     *Tunnel
	from, to   TunnelEnd
	fromClient bool
	copied     *int64

	buffer *Buffer // nil while there are no bytes to forward
	unsent []byte  // a part of buffer
	full   bool    // the last read filled the buffer
	err    error   // of from: io.EOF at its end
	sendTo error   // of to

	splicer relaySplicer

	onReadable, onRoom func(fd uintptr) bool // readable and room as values: creating them allocates
	onSocket           func(fd uintptr)      // sendNow
}

func newRelay(t *Tunnel, from, to TunnelEnd, copied *int64) *relay {
	r := &relay{tunnel: t, from: from, to: to, copied: copied}
	r.onReadable, r.onRoom, r.onSocket = r.readable, r.room, r.sendNow
	return r
}

// forward sends early, which from has sent before, and then forwards until from ends or the
// tunnel is cut.
func (r *relay) forward(early []byte) {
	defer panics.Contain(panics.Tunnel, func() { r.tunnel.cut(panics.Err) })
	if r.write(early) == nil {
		r.run()
	}
}

// run forwards until from ends or the tunnel is cut.
func (r *relay) run() {
	defer r.giveBack()
	if r.from.Stream != nil {
		r.runFromStream()
		return
	}
	plain := r.from.isPlain() && r.to.isPlain()
	for {
		err := r.from.Raw.Read(r.onReadable)
		if errors.Is(err, os.ErrDeadlineExceeded) && r.from.Entry.ResumeRead() {
			continue
		}
		if err != nil {
			r.broken(r.fromClient, err)
			return
		}
		if r.write(r.unsent) != nil {
			return
		}
		r.giveBack()
		switch {
		case r.err == io.EOF:
			r.end()
			return
		case r.err != nil:
			r.broken(r.fromClient, r.err)
			return
		case r.full && plain:
			if client, err := r.splicer.splice(r); err != nil {
				r.broken(client, err)
				return
			}
		}
	}
}

// runFromStream is run where from is a stream.
func (r *relay) runFromStream() {
	for {
		if err := r.awaitStream(); err != nil {
			r.broken(r.fromClient, err)
			return
		}
		r.buffer = RequestBuffers.Get().(*Buffer)
		n, last := r.from.Stream.TakeTunnel(r.buffer.Bytes)
		if r.write(r.buffer.Bytes[:n]) != nil {
			return
		}
		r.giveBack()
		if last {
			r.end()
			return
		}
	}
}

// awaitStream waits until the stream from has bytes or has ended.
func (r *relay) awaitStream() error {
	for {
		if err := r.arm(r.from.Entry.ArmRead); err != nil {
			return err
		}
		err := r.from.Stream.AwaitTunnel()
		if err != os.ErrDeadlineExceeded || r.from.Entry.Interrupted.Load() {
			return err
		}
	}
}

// readable reads and sends until from has no more bytes. It is called inside
// RawConn.Read, and reports whether that ends: there are bytes that to does not take at
// once, a buffer was filled, or from has ended.
func (r *relay) readable(fd uintptr) bool {
	for {
		r.from.Wake() // also before the last read, which finds an end that came with bytes
		if r.buffer == nil {
			r.buffer = RequestBuffers.Get().(*Buffer)
		}
		n, err := r.from.Receive(fd, r.buffer.Bytes)
		switch {
		case err == ErrWouldBlock:
			r.giveBack()
			r.err = r.arm(r.from.Entry.ArmRead)
			return r.err != nil
		case err != nil:
			r.err = err
			return true
		case n == 0:
			r.err = io.EOF
			return true
		}
		r.unsent, r.full = r.buffer.Bytes[:n], n == len(r.buffer.Bytes)
		r.tunnel.Touch()
		if r.to.isPlain() {
			// This does not wait, because closing a connection waits until the
			// calls of its RawConn.Read return.
			r.to.Raw.Control(r.onSocket)
		}
		if len(r.unsent) > 0 || r.full {
			return true
		}
	}
}

// sendNow sends as much of unsent as the socket takes at once. write finds its errors.
func (r *relay) sendNow(fd uintptr) {
	n, _ := Send(fd, r.unsent)
	r.unsent = r.unsent[n:]
	r.moved(n)
}

// write sends b. If that fails, it cuts the tunnel.
func (r *relay) write(b []byte) (err error) {
	if len(b) == 0 {
		return nil
	}
	defer r.to.Entry.WriteDeadline.Store(0)
	for r.unsent = b; len(r.unsent) > 0; {
		switch {
		case r.to.Stream != nil:
			if err = r.to.Stream.SendTunnel(r.unsent, false); err == nil {
				n := len(r.unsent)
				r.unsent = nil
				r.moved(n)
			}
		case r.to.TLS != nil:
			if err = r.arm(r.to.Entry.ArmWrite); err == nil {
				err = r.writeRecords()
			}
		default:
			r.sendTo = nil
			if err = r.to.Raw.Write(r.onRoom); err == nil {
				err = r.sendTo
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && r.to.Entry.ResumeWrite() {
			continue
		}
		if err != nil {
			r.broken(!r.fromClient, err)
			return err
		}
	}
	return nil
}

// writeRecords encrypts and sends a part of unsent.
func (r *relay) writeRecords() error {
	before := len(r.to.TLS.unsent)
	n, err := r.to.write(r.unsent)
	r.unsent = r.unsent[n:]
	r.moved(n)
	if len(r.to.TLS.unsent) != before { // a part of the records was sent
		r.tunnel.Touch()
	}
	return err
}

// room sends unsent. It is called inside RawConn.Write, and reports whether that ends.
func (r *relay) room(fd uintptr) bool {
	for len(r.unsent) > 0 {
		n, err := Send(fd, r.unsent)
		r.unsent = r.unsent[n:]
		r.moved(n)
		switch {
		case err == ErrWouldBlock:
			r.sendTo = r.arm(r.to.Entry.ArmWrite)
			return r.sendTo != nil
		case err != nil:
			r.sendTo = err
			return true
		}
	}
	return true
}

// moved records that n bytes were sent. An attempt that sends none moves nothing: a side
// that takes no bytes times out, however often it is tried.
func (r *relay) moved(n int) {
	if n == 0 {
		return
	}
	t := r.tunnel
	*r.copied += int64(n)
	if r.fromClient {
		t.Requests.Transfer(t.Shard, int64(n), 0)
	} else {
		t.Requests.Transfer(t.Shard, 0, int64(n))
	}
	t.Touch()
}

// arm sets the deadline of a wait. It returns ErrIdle if the tunnel has timed out.
func (r *relay) arm(set func(deadline int64)) error {
	now := r.tunnel.Sweeper.Now()
	for {
		left := r.tunnel.Left(now)
		if left <= 0 {
			return ErrIdle
		}
		set(now + int64(left))
		if r.tunnel.Left(now) >= left {
			return nil
		} // else the other direction has ended meanwhile, which shortens the timeout
	}
}

// end passes on that from has closed its sending side. The other side then has the whole
// timeout to answer that.
func (r *relay) end() {
	t := r.tunnel
	t.Touch()
	t.halfClosed.Store(true)
	if r.to.closeWrite() != nil {
		r.broken(!r.fromClient, net.ErrClosed)
		return
	}
	now := t.Sweeper.Now()
	r.to.Entry.ArmRead(now + int64(t.Left(now)))
}

// broken cuts the tunnel after an error of the client's or the peer's connection.
func (r *relay) broken(client bool, err error) {
	if err != ErrIdle && !errors.Is(err, net.ErrClosed) {
		err = BrokenEnd{client, err}
	}
	r.tunnel.cut(err)
}

func (r *relay) giveBack() {
	if r.buffer != nil {
		RequestBuffers.Put(r.buffer)
		r.buffer, r.unsent = nil, nil
	}
}
