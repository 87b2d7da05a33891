package proxy

import (
	"errors"
	"os"
	"sync"
	"time"

	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

// Limits of an HTTP/2 connection of a client.
const (
	// http2Streams is the number of requests in flight: SETTINGS_MAX_CONCURRENT_STREAMS.
	http2Streams = 100
	// http2Window is how many bytes of bodies a client may send before they are
	// forwarded. They are the memory of a connection for bodies.
	http2Window = 1 << 20
	// http2StreamWindow is the maximum of that for a stream, which grows from the
	// initial window if the body is long.
	http2StreamWindow = http2Window / 2
	// http2ListBytes is the limit of a field list if that of heads is not higher, and
	// http2Continuations that of the frames of a field block.
	http2ListBytes     = 32 << 10
	http2Continuations = 8
	// http2Resets is how many more streams may end early by the client's act or fault
	// than end well. Canceled requests cost the peers work. One is forgotten in each
	// http2ResetTime.
	http2Resets    = 2 * http2Streams
	http2ResetTime = time.Second
	// http2OverheadBytes and http2OverheadRatio bound the bytes of a client's frames
	// beside heads and bodies, absolutely and in relation to these. A byte is forgotten in
	// each http2OverheadTime.
	http2OverheadBytes = 1 << 20
	http2OverheadRatio = 8
	http2OverheadTime  = time.Millisecond
	// http2EarlyReset is the age of a request after which its end counts no more in
	// http2Resets: a client that waits so long gives up, and does not flood.
	http2EarlyReset = time.Second
	// http2GoAwayTimeout bounds the wait for the client's answer to a GOAWAY, and
	// http2GoAwaySettle is how long streams may arrive after it: a client with threads may
	// have chosen the connection for a request, and send that after the answer.
	http2GoAwayTimeout = 5 * time.Second
	http2GoAwaySettle  = 500 * time.Millisecond
)

// maxListBytes returns the limit of a field list for heads with these limits.
func maxListBytes(headBytes, fields int) int {
	const overhead = 32 // of a field: RFC 9113, section 6.5.2
	return max(http2ListBytes, headBytes+overhead*fields)
}

var frameBuffers = socket.BufferPool(2 * http2.MaxFrameBytes) // for received frames

// An http2ClientConn is the HTTP/2 protocol of a clientConn. One goroutine reads frames and
// waits for nothing else; each stream has a goroutine that serves its request, and
// another one, as long as there are bytes, sends the frames of all streams.
type http2ClientConn struct {
	conn       *clientConn
	onReadable func(fd uintptr) bool // readable as a value: creating it allocates
	onFlush    func()                // flush as a value
	writer     socket.Writer         // of the goroutine that sends

	// The fields of the reading goroutine.
	in         *socket.Buffer // nil while the connection waits without a part of a frame
	start, end int            // of the unprocessed bytes in in
	stage      http2Stage
	decoder    *http2.Decoder
	fields     http2.Fields
	block      http2.FieldBlock
	progressed bool              // the last part of a frame or a field block has arrived since park
	overhead   http2.LeakyBucket // bytes of frames, less the allowed ratio of heads and bodies
	waits      bool              // in has a frame that must wait until paused is closed
	ended      bool              // the client has closed the connection, or it is broken
	failure    *http2.Error      // of the client

	work sync.WaitGroup // streams and flush

	mu stateMutex
	// mu guards the fields below, and those of the streams that say so.
	streams   map[uint32]*http2Stream // that are being served
	free      []*http2Stream          // to be reused
	last      uint32                  // the highest id of a stream
	open      int                     // streams that count as open for the client
	receiving int                     // streams whose request has not arrived completely
	resets    http2.LeakyBucket       // see http2Resets
	canceled  []uint32                // ids of the last http2Streams streams that ended before their request did
	cancels   int                     // number of them so far
	output    http2.Output
	flushing  bool          // flush runs
	broken    bool          // no stream can send or receive
	moved     int64         // bytes of bodies in output so far
	received  int64         // bytes of bodies that the client may still send
	owed      int64         // bytes of bodies that were forwarded, not yet granted again
	sentBytes int64         // of bodies, not yet in overhead
	partial   bool          // a part of a frame, of a field block or of the preface has arrived
	idle      bool          // without a stream for idleSetDelay
	paused    chan struct{} // not nil: it is closed, and set to nil, when a stream ends
	goAway    goAwayPhase
	// goAwayUntil is the coarse time when goAwayAnnounced ends.
	goAwayUntil int64
}

type http2Stage uint8

const (
	stagePreface  http2Stage = iota // the preface is awaited
	stageSettings                   // the first SETTINGS is awaited
	stageFrames
)

type goAwayPhase uint8

const (
	goAwayNone      goAwayPhase = iota
	goAwayAnnounced             // the client was told to open no more streams; those on the way are served
	goAwayFinal                 // later streams are ignored
)

// startHTTP2 begins HTTP/2 on c. received are the bytes that have arrived.
func (c *clientConn) startHTTP2(received []byte) {
	listBytes := maxListBytes(c.options.Limits.HeadBytes, c.options.Limits.Fields)
	h := &http2ClientConn{
		conn: c, decoder: http2.NewDecoder(max(listBytes, http2.UsualListBytes)),
		block:  http2.FieldBlock{MaxBytes: listBytes, MaxFrames: http2Continuations},
		output: http2.NewOutput(), received: http2Window, partial: true,
	}
	h.onReadable, h.onFlush = h.readable, h.flush
	h.in = frameBuffers.Get().(*socket.Buffer)
	h.end = copy(h.in.Bytes, received)
	if c.TLS != nil && !c.TLS.SuitsHTTP2() {
		h.failure = errInadequateTLS
	}
	c.http2 = h
	c.dropExchange()
	h.output.Frames = http2.AppendSettings(h.output.Frames,
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Value: http2Streams},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Value: uint32(listBytes)},
		http2.Setting{ID: http2.SettingEnableConnectProtocol, Value: 1},
		http2.Setting{ID: http2.SettingNoPriorities, Value: 1})
	h.output.Frames = http2.AppendWindowUpdate(h.output.Frames, 0, http2Window-http2.InitialWindow)
	c.Arm(c.server.sweeper, c.options.Timeouts.Head)
}

// serveUntilIdle serves streams. It returns true when the connection is idle, false
// when it has ended.
func (h *http2ClientConn) serveUntilIdle() bool {
	c := h.conn
	c.takeOptions()
	if h.stage == stagePreface && !h.processAll() {
		return h.close()
	}
	for {
		if c.draining() {
			h.beginGoAway()
		}
		err := c.Raw.Read(h.onReadable)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			expired := c.Expired(c.server.sweeper)
			if expired {
				c.Conn.SetReadDeadline(time.Time{}) // before isOver: see wakeReader
			}
			if h.isOver() || c.Interrupted.Load() {
				return h.close()
			}
			if expired && h.onDeadline() {
				if h.idleNow() {
					return true
				}
				return h.close()
			}
		case err != nil || h.ended || h.failure != nil:
			return h.close()
		default:
			if h.waits && !h.processAll() {
				return h.close()
			}
		}
	}
}

// isOver reports whether the connection can be closed: it is broken, or the last
// stream after GOAWAY has ended.
func (h *http2ClientConn) isOver() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.broken || h.goAway == goAwayFinal && len(h.streams) == 0 && !h.flushing
}

// idleNow reports whether the connection has no stream for the idle set.
func (h *http2ClientConn) idleNow() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.idle && h.goAway == goAwayNone && len(h.streams) == 0
}

// isBusyLocked reports whether the connection has streams or sends, or ends when it no
// longer does.
func (h *http2ClientConn) isBusyLocked() bool {
	return len(h.streams) > 0 || h.flushing || h.goAway == goAwayFinal
}

// onDeadline handles a timeout of the client. It reports whether serveUntilIdle ends.
func (h *http2ClientConn) onDeadline() bool {
	c := h.conn
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.partial:
		return true
	case h.goAway == goAwayAnnounced: // endGoAwayIfDue ends that, after what has arrived
		return false
	case h.isBusyLocked():
		h.dropFreeLocked()
		c.Disarm()
		return false
	case !h.idle:
		h.idle = true
		h.streams, h.fields = nil, http2.Fields{}
		h.output.Discard()
		h.dropFreeLocked()
		c.Arm(c.server.sweeper, max(c.options.Timeouts.Idle-idleSetDelay, socket.SweepInterval))
		return true
	}
	h.announceGoAwayLocked()
	return false
}

// beginGoAway tells the client to open no more streams, once.
func (h *http2ClientConn) beginGoAway() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.announceGoAwayLocked()
}

var goAwayPing = []byte("goaway..")

// announceGoAwayLocked announces the end of the connection. A client may have sent
// requests before it gets that; PING finds out when it has (RFC 9113, section 6.8).
func (h *http2ClientConn) announceGoAwayLocked() {
	if h.goAway != goAwayNone {
		return
	}
	h.goAway = goAwayAnnounced
	h.goAwayUntil = h.conn.server.sweeper.Now() + int64(http2GoAwayTimeout)
	h.conn.server.http2.goAways.Add(1)
	h.output.Frames = http2.AppendGoAway(h.output.Frames, http2.MaxWindow, http2.NoError)
	h.output.Frames = http2.AppendPing(h.output.Frames, 0, goAwayPing)
	h.flushLocked()
	h.armLocked()
}

// settleGoAwayLocked notes that the client knows of the end.
func (h *http2ClientConn) settleGoAwayLocked() {
	h.goAwayUntil = min(h.goAwayUntil, h.conn.server.sweeper.Now()+int64(http2GoAwaySettle))
	h.armLocked()
}

// endGoAwayIfDue names the last stream when the time for others is over. All frames that have
// arrived must have been processed; a part of one may be of another stream.
func (h *http2ClientConn) endGoAwayIfDue() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.goAway != goAwayAnnounced || h.partial || h.conn.server.sweeper.Now() < h.goAwayUntil {
		return
	}
	h.goAway = goAwayFinal
	h.output.Frames = http2.AppendGoAway(h.output.Frames, h.last, http2.NoError)
	h.flushLocked()
	h.armLocked()
}

// armLocked sets the deadline of the connection.
func (h *http2ClientConn) armLocked() {
	c := h.conn
	sweeper, timeouts := c.server.sweeper, &c.options.Timeouts
	switch {
	case h.partial: // it runs from the first byte
	case h.goAway == goAwayAnnounced:
		c.Arm(sweeper, max(time.Duration(h.goAwayUntil-sweeper.Now()), socket.SweepInterval))
	case h.isBusyLocked():
		h.idle = false
		c.Disarm()
	default:
		h.idle = false
		c.Arm(sweeper, min(idleSetDelay, timeouts.Idle))
	}
}

// wakeReader makes the reading goroutine check whether the connection is over.
func (h *http2ClientConn) wakeReader() { h.conn.Conn.SetReadDeadline(socket.ALongTimeAgo) }

// close ends the connection: it tells the client why, and waits for the streams.
// It returns false.
func (h *http2ClientConn) close() bool {
	h.announceEnd()
	c := h.conn
	if h.failure != nil {
		c.server.log.Debug().Err(h.failure).Str("listener", c.listener.name).Str("client", c.address).Msg("HTTP/2 connection closed")
	}
	c.Disarm()
	h.work.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = true
	h.dropFreeLocked()
	h.releaseInput()
	return false
}

// announceEnd ends the streams, and tells the client why.
func (h *http2ClientConn) announceEnd() {
	c := h.conn
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.streams {
		s.abortLocked()
	}
	switch {
	case h.ended || h.broken:
	case h.failure != nil:
		c.server.http2.errors.Add(1)
		h.output.Frames = http2.AppendGoAway(h.output.Frames, h.last, h.failure.Code)
		c.linger = true
	case h.goAway != goAwayFinal: // a timeout
		h.output.Frames = http2.AppendGoAway(h.output.Frames, h.last, http2.NoError)
		c.linger = true
	default:
		c.linger = true
	}
	h.flushLocked()
}

// releaseInput gives the memory of received frames back.
func (h *http2ClientConn) releaseInput() {
	if h.in != nil {
		frameBuffers.Put(h.in)
		h.in, h.start, h.end = nil, 0, 0
	}
}

// flushLocked starts to send output.
func (h *http2ClientConn) flushLocked() {
	if h.flushing || len(h.output.Frames) == 0 || h.broken {
		return
	}
	h.flushing = true
	h.work.Add(1)
	go h.onFlush()
}
