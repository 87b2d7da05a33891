package socket

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/route/places"
)

const (
	// MaxHandshakes is the maximum number of TLS handshakes in progress. One takes about
	// 40 KiB until the client has sent its last part.
	MaxHandshakes = 1024
	// MaxHandshakesPerBlock is how many of them one address block may have.
	MaxHandshakesPerBlock = MaxHandshakes / 8
	// scarcePatience bounds a wait for the next part of a client while more than half of
	// the places are taken.
	scarcePatience = time.Second
)

// Handshakes bounds the TLS handshakes of clients, and counts them. A handshake is in
// progress from the arrival of the whole ClientHello on. While it computes it also has
// one of few turns, so that open connections keep their share of the processors when many
// clients connect at once. It is safe for concurrent use.
type Handshakes struct {
	ctx     context.Context // ends when connections are cut
	sweeper *Sweeper

	Places, Turns *places.Places

	full, resumed, failed atomic.Uint64
	unverified            atomic.Int64 // of QUIC, by clients that have not proven their address
}

func NewHandshakes(ctx context.Context, s *Sweeper) *Handshakes {
	processors := runtime.GOMAXPROCS(0)
	return &Handshakes{ctx: ctx, sweeper: s, Places: places.New(MaxHandshakes, MaxHandshakesPerBlock), Turns: places.New(processors, processors)}
}

// A handshake is one of handshakes: its waits for the client, and what it has meanwhile.
type handshake struct {
	all      *Handshakes
	block    places.Block
	raw      syscall.RawConn
	entry    *SweepEntry
	deadline int64 // coarse time when it must have ended

	placed, running bool

	long  *Buffer // the ClientHello, if it was read by awaitLongHello, until it was used
	hello []byte  // the unused part of it

	// Of the present read or write.

	onReadable, onWritable func(fd uintptr) bool
	bytes                  []byte
	n                      int // of bytes, that were read or written
	err                    error
}

func newHandshake(all *Handshakes, raw syscall.RawConn, entry *SweepEntry, block places.Block) *handshake {
	h := &handshake{all: all, block: block, raw: raw, entry: entry, deadline: entry.Deadline.Load()}
	h.onReadable, h.onWritable = h.readable, h.writable
	return h
}

// awaitLongHello reads a ClientHello that is too long to be left in the socket: at most
// maxLongHelloBytes.
func (h *handshake) awaitLongHello() (err error) {
	h.long = BodyBuffers.Get().(*Buffer)
	n, next := 0, 1 // bytes; what to look at next
	onReadable := func(fd uintptr) bool {
		for {
			var got int
			got, err = Receive(fd, h.long.Bytes[n:])
			switch {
			case err == ErrWouldBlock:
				err = nil
				return false
			case err == nil && got == 0:
				err = io.EOF
			}
			if err != nil {
				return true
			}
			if n += got; n < next {
				continue
			}
			var missing int
			if missing, err = missingOfClientHello(h.long.Bytes[:n]); missing == 0 || err != nil {
				return true
			}
			if next = n + missing; next > maxLongHelloBytes {
				err = ErrTooLong
				return true
			}
		}
	}
	if waitErr := h.entry.read(h.all.sweeper, h.raw, onReadable); waitErr != nil {
		return waitErr
	}
	h.hello = h.long.Bytes[:n]
	return err
}

// dropHello gives the memory of a long ClientHello back.
func (h *handshake) dropHello() {
	if h.long != nil {
		BodyBuffers.Put(h.long)
		h.long, h.hello = nil, nil
	}
}

// read waits for a part of the handshake.
func (h *handshake) read(b []byte) (int, error) {
	if len(h.hello) > 0 {
		n := copy(b, h.hello)
		if h.hello = h.hello[n:]; len(h.hello) == 0 {
			h.dropHello()
		}
		return n, nil
	}
	h.bytes, h.n, h.err = b, 0, nil
	err := h.entry.read(h.all.sweeper, h.raw, h.onReadable)
	h.bytes = nil
	switch {
	case err != nil:
		return 0, err
	case h.err != nil:
		return 0, h.err
	case h.n == 0:
		return 0, io.EOF
	}
	if h.running {
		return h.n, nil
	}
	h.entry.ArmRead(h.deadline)
	return h.n, h.proceed()
}

func (h *handshake) readable(fd uintptr) bool {
	if h.n, h.err = Receive(fd, h.bytes); h.err == ErrWouldBlock {
		h.pause()
		h.entry.ArmRead(h.patience())
		return false
	}
	return true
}

// write sends b.
func (h *handshake) write(b []byte) (int, error) {
	h.bytes, h.n, h.err = b, 0, nil
	err := h.raw.Write(h.onWritable)
	for errors.Is(err, os.ErrDeadlineExceeded) && !h.entry.WriteExpired(h.all.sweeper) {
		err = h.raw.Write(h.onWritable)
	}
	h.bytes = nil
	switch {
	case err != nil:
		return h.n, err
	case h.err != nil:
		return h.n, h.err
	case h.running:
		return h.n, nil
	}
	h.entry.WriteDeadline.Store(0)
	if !h.entry.ResumeWrite() {
		return h.n, os.ErrDeadlineExceeded
	}
	return h.n, h.proceed()
}

func (h *handshake) writable(fd uintptr) bool {
	for h.n < len(h.bytes) {
		n, err := Send(fd, h.bytes[h.n:])
		h.n += n
		if err == ErrWouldBlock {
			h.pause()
			h.entry.ArmWrite(h.patience())
			return false
		}
		if err != nil {
			h.err = err
			return true
		}
	}
	return true
}

// proceed waits for a place and a turn, after the client has sent bytes. It fails if the
// time of the handshake is over first, or the connections are cut.
func (h *handshake) proceed() error {
	if !h.placed {
		if err := h.all.Places.Take(h.block, h.left); err != nil {
			return err
		}
		h.placed = true
	}
	if err := h.all.Turns.Take(h.block, h.left); err != nil {
		return err
	}
	h.running = true
	return nil
}

// left returns a context that ends with the time of the handshake.
func (h *handshake) left() (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.all.ctx, time.Duration(h.deadline-h.all.sweeper.Exact()))
}

// pause gives the turn back, before a wait for the client. The place stays taken, since
// the memory does.
func (h *handshake) pause() {
	if h.running {
		h.running = false
		h.all.Turns.Give(h.block)
	}
}

// patience returns the coarse time until which a wait for the client may last: short if
// places are scarce.
func (h *handshake) patience() int64 {
	if h.all.Places.Taken() > MaxHandshakes/2 {
		return min(h.deadline, h.all.sweeper.Exact()+int64(scarcePatience))
	}
	return h.deadline
}

// end gives everything back.
func (h *handshake) end() {
	h.pause()
	if h.placed {
		h.placed = false
		h.all.Places.Give(h.block)
	}
}

// AwaitOthers calls wait, which waits for somebody else than the client, in the handshake of
// hello. Meanwhile the handshake has no place and no turn. It fails if it gets none in time.
func AwaitOthers(hello *tls.ClientHelloInfo, wait func()) error {
	socket, ok := hello.Conn.(*tlsSocket)
	if !ok || socket.handshake == nil { // not of a Server
		wait()
		return nil
	}
	socket.handshake.end()
	wait()
	return socket.handshake.proceed()
}

// Begin begins a handshake that QUIC makes, which waits for nothing here. verified: the client has
// proven its address, and takes one of the places. Others could stand in the name of anybody, so
// they take none, and are at most unverified. The caller must call end, with what was agreed on, or
// nil after a failure.
func (h *Handshakes) Begin(block places.Block, verified bool, unverified int64) (end func(*tls.ConnectionState), ok bool) {
	leave := func() { h.unverified.Add(-1) }
	if verified {
		leave = func() { h.Places.Give(block) }
		ok = h.Places.TakeNow(block)
	} else if ok = h.unverified.Add(1) <= unverified; !ok {
		leave()
	}
	if !ok {
		h.failed.Add(1)
		return nil, false
	}
	return func(state *tls.ConnectionState) {
		leave()
		h.count(state)
	}, true
}

// Unverified returns how many handshakes are in progress whose clients have not proven their
// address.
func (h *Handshakes) Unverified() int64 { return h.unverified.Load() }

// count counts a handshake that has ended; nil: it has failed.
func (h *Handshakes) count(state *tls.ConnectionState) {
	switch {
	case state == nil:
		h.failed.Add(1)
	case state.DidResume:
		h.resumed.Add(1)
	default:
		h.full.Add(1)
	}
}

// HandshakeStats are the TLS handshakes of a server's clients.
type HandshakeStats struct {
	Full, Resumed, Failed uint64
	InProgress            int // whose ClientHello has arrived
	Waiting               int // for a place among the ones in progress, or for a processor
}

// Stats returns the TLS handshakes so far.
func (h *Handshakes) Stats() HandshakeStats {
	return HandshakeStats{
		Full: h.full.Load(), Resumed: h.resumed.Load(), Failed: h.failed.Load(),
		InProgress: h.Places.Taken() + int(h.Unverified()), Waiting: h.Places.Waiting() + h.Turns.Waiting(),
	}
}
