package proxy

import (
	"cmp"
	"errors"
	"net"
	"os"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/fields"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/route/places"
)

// Limits of an HTTP/2 connection of a client.
const (
	// http2Streams is the number of requests in flight: SETTINGS_MAX_CONCURRENT_STREAMS.
	http2Streams = 100
	// http2Growth is by how much the windows of all streams of a connection grow from the initial
	// one, if their bodies are long, and http2StreamWindow to what that of one may.
	http2Growth       = 1 << 20
	http2StreamWindow = http2Growth / 2
	// http2Window is how many bytes of bodies a client may send before they are forwarded: what the
	// streams that are served, and as many that wait, may have, so that none stops another one.
	// Most of it is never used; Limits.StreamBytes bounds what is.
	http2Window = 2*http2Streams*http2.InitialWindow + http2Growth + http2Slack
	// http2Slack is how much of that was forwarded when the client may send it again.
	http2Slack = 1 << 19
	// http2StreamBytes is the memory of a stream that waits, as Limits.StreamBytes counts it.
	http2StreamBytes = 8 << 10
	// http2FreeBytes are the bytes of bodies of a connection that do not count in StreamBytes, and
	// http2HeldStep the steps in which others do.
	http2FreeBytes = 64 << 10
	http2HeldStep  = 64 << 10
	// http2Continuations is the limit of the frames of a field block.
	http2Continuations = 8
	// http2Resets is how many more streams may end early by the client's act or fault
	// than end well. Canceled requests cost the peers work. One is forgotten in each
	// http2ResetTime.
	http2Resets    = 2 * http2Streams
	http2ResetTime = time.Second
	// http2EarlyReset is the age of a request after which its end counts no more in
	// http2Resets: a client that waits so long gives up, and does not flood.
	http2EarlyReset = time.Second
	// http2GoAwayTimeout bounds the wait for the client's answer to a GOAWAY, and
	// http2GoAwaySettle is how long streams may arrive after it: a client with threads may
	// have chosen the connection for a request, and send that after the answer.
	http2GoAwayTimeout = 5 * time.Second
	http2GoAwaySettle  = 500 * time.Millisecond
)

var frameBuffers = socket.BufferPool(2 * http2.MaxFrameBytes) // for received frames

// An http2ClientConn is the HTTP/2 protocol of a clientConn, an [http2.Conn] in the role of the
// server. One goroutine reads frames and waits for nothing else, least of all for a stream; each
// stream has a goroutine that serves its request.
type http2ClientConn struct {
	protocol   http2.Conn // Work has the streams too
	conn       *clientConn
	block      places.Block
	onReadable func(fd uintptr) bool // readable as a value: creating it allocates

	// The fields of the reading goroutine.
	in         *socket.Buffer // nil while the connection waits without a part of a frame
	start, end int            // of the unprocessed bytes in in
	prefaced   bool           // the preface has arrived
	ended      bool           // the client has closed the connection, or it is broken
	failure    *http2.Error   // of the client

	// Mu guards the fields below.
	free     []*http2Stream    // to be reused
	pending  []*http2Stream    // open, but not yet served: see startLocked
	counted  int               // streams in use or free; all but one count in the limits
	held     int64             // bytes of bodies that count in StreamBytes
	resets   http2.LeakyBucket // see http2Resets
	canceled canceledStreams
	partial  bool // a part of a frame, of a field block or of the preface has arrived
	idle     bool // without a stream for idleSetDelay
	goAway   goAwayPhase
	// goAwayUntil is the coarse time when goAwayAnnounced ends.
	goAwayUntil int64
}

// canceledStreams are the last http2Streams streams that ended before their request did: the
// client, which may have as many open, may have sent more of them before it knows.
type canceledStreams struct {
	ids   []uint32
	count int // so far
}

func (c *canceledStreams) add(id uint32) {
	if len(c.ids) < http2Streams {
		c.ids = append(c.ids, id)
	} else {
		c.ids[c.count%http2Streams] = id
	}
	c.count++
}

type goAwayPhase uint8

const (
	goAwayNone      goAwayPhase = iota
	goAwayAnnounced             // the client was told to open no more streams; streams on the way are served
	goAwayFinal                 // later streams are ignored
)

// startHTTP2 begins HTTP/2 on c. received are the bytes that have arrived.
func startHTTP2(c *clientConn, received []byte) {
	listBytes := c.client.options.Limits.listBytes()
	h := &http2ClientConn{conn: c, block: c.client.block(), partial: true}
	h.protocol.Init(http2.ConnOptions{
		Role: h, Sweeper: c.client.server.sweeper, Place: panics.Connection,
		ListBytes: max(listBytes, fields.UsualListBytes), BlockBytes: listBytes, Continuations: http2Continuations,
		Window: http2Window, StreamWindow: http2StreamWindow, Growth: http2Growth, Slack: http2Slack,
		Settings: []http2.Setting{
			{ID: http2.SettingMaxConcurrentStreams, Value: http2Streams},
			{ID: http2.SettingMaxHeaderListSize, Value: uint32(listBytes)},
			{ID: http2.SettingEnableConnectProtocol, Value: 1},
			{ID: http2.SettingNoPriorities, Value: 1},
		},
	})
	h.onReadable = h.readable
	h.in = frameBuffers.Get().(*socket.Buffer)
	h.end = copy(h.in.Bytes, received)
	if c.wire.TLS != nil && !c.wire.TLS.SuitsHTTP2() {
		h.failure = errInadequateTLS
	}
	c.http2 = h
	c.dropExchange()
	c.client.Entry.Arm(c.client.server.sweeper, c.client.options.Timeouts.Head)
}

// serveUntilIdle serves streams. It returns true when the connection is idle, false
// when it has ended.
func (h *http2ClientConn) serveUntilIdle() bool {
	c := h.conn
	c.client.takeOptions()
	if !h.prefaced && !h.process() {
		return h.close()
	}
	for {
		if c.client.draining() {
			h.beginGoAway()
		}
		err := c.wire.Raw.Read(h.onReadable)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			expired := c.client.Entry.Expired(c.client.server.sweeper)
			if expired {
				c.wire.Conn.SetReadDeadline(time.Time{}) // before isOver: see Wire.WakeReader
			}
			if h.isOver() || c.client.Entry.Interrupted.Load() {
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
		}
	}
}

// isOver reports whether the connection can be closed: it is broken, or the last
// stream after GOAWAY has ended.
func (h *http2ClientConn) isOver() bool {
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	return h.protocol.Err != nil || h.goAway == goAwayFinal && len(h.protocol.Streams) == 0 && !h.protocol.Flushing
}

// idleNow reports whether the connection has no stream for the idle set.
func (h *http2ClientConn) idleNow() bool {
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	return h.idle && h.goAway == goAwayNone && len(h.protocol.Streams) == 0
}

// isBusyLocked reports whether the connection has streams or sends, or ends when it no
// longer does.
func (h *http2ClientConn) isBusyLocked() bool {
	return len(h.protocol.Streams) > 0 || h.protocol.Flushing || h.goAway == goAwayFinal
}

// onDeadline handles a timeout of the client. It reports whether serveUntilIdle ends.
func (h *http2ClientConn) onDeadline() bool {
	c := h.conn
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	switch {
	case h.partial:
		return true
	case h.goAway == goAwayAnnounced: // endGoAwayIfDue ends that, after what has arrived
		return false
	case h.isBusyLocked():
		h.dropFreeLocked()
		c.client.Entry.Disarm()
		return false
	case !h.idle:
		h.idle = true
		h.protocol.DiscardLocked()
		h.dropFreeLocked()
		c.client.Entry.Arm(c.client.server.sweeper, max(c.client.options.Timeouts.Idle-idleSetDelay, socket.SweepInterval))
		return true
	}
	h.announceGoAwayLocked()
	return false
}

// beginGoAway tells the client to open no more streams, once.
func (h *http2ClientConn) beginGoAway() {
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
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
	h.goAwayUntil = h.conn.client.server.sweeper.Exact() + int64(http2GoAwayTimeout)
	h.conn.client.server.http2.goAways.Add(1)
	h.protocol.Output.Frames = http2.AppendGoAway(h.protocol.Output.Frames, http2.MaxWindow, http2.NoError)
	h.protocol.Output.Frames = http2.AppendPing(h.protocol.Output.Frames, 0, goAwayPing)
	h.protocol.FlushLocked()
	h.armLocked()
}

// endGoAwayIfDue names the last stream when the time for others is over. All frames that have
// arrived must have been processed; a part of one may be of another stream.
func (h *http2ClientConn) endGoAwayIfDue() {
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	if h.goAway != goAwayAnnounced || h.partial || h.conn.client.server.sweeper.Now() < h.goAwayUntil {
		return
	}
	h.goAway, h.protocol.Final = goAwayFinal, true
	h.protocol.Output.Frames = http2.AppendGoAway(h.protocol.Output.Frames, h.protocol.Last, http2.NoError)
	h.protocol.FlushLocked()
	h.armLocked()
}

// armLocked sets the deadline of the connection.
func (h *http2ClientConn) armLocked() {
	c := h.conn
	sweeper, timeouts := c.client.server.sweeper, &c.client.options.Timeouts
	h.idle = false // also while a part of a frame waits for its rest
	switch {
	case h.partial: // it runs from the first byte
	case h.goAway == goAwayAnnounced:
		c.client.Entry.Arm(sweeper, max(time.Duration(h.goAwayUntil-sweeper.Exact()), socket.SweepInterval))
	case h.isBusyLocked() && len(h.free) > 0:
		// To drop the unused streams: what is open may be a tunnel.
		c.client.Entry.Arm(sweeper, idleSetDelay)
	case h.isBusyLocked():
		c.client.Entry.Disarm()
	default:
		c.client.Entry.Arm(sweeper, min(idleSetDelay, timeouts.Idle))
	}
}

// close ends the connection: it tells the client why, and waits for the streams.
// It returns false.
func (h *http2ClientConn) close() bool {
	h.announceEnd()
	c := h.conn
	if h.failure != nil {
		c.client.server.log.Debug().Err(h.failure).Str("listener", c.client.listener.Name).Str("client", c.client.address).Msg("HTTP/2 connection closed")
	}
	c.client.Entry.Disarm()
	h.protocol.Work.Wait()
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	h.protocol.Err = cmp.Or(h.protocol.Err, net.ErrClosed)
	h.dropFreeLocked()
	h.MayHold(0)
	h.releaseInput()
	return false
}

// announceEnd ends the streams, and tells the client why.
func (h *http2ClientConn) announceEnd() {
	c := h.conn
	h.protocol.Mu.Lock()
	defer h.protocol.Mu.Unlock()
	for _, s := range h.protocol.Streams {
		s.StopLocked(socket.ErrClosedEarly)
	}
	c.linger = !h.ended && h.protocol.Err == nil
	switch {
	case !c.linger:
	case h.failure != nil:
		c.client.server.http2.errors.Add(1)
		h.protocol.Output.Frames = http2.AppendGoAway(h.protocol.Output.Frames, h.protocol.Last, h.failure.Code)
	case h.goAway != goAwayFinal: // a timeout
		h.protocol.Output.Frames = http2.AppendGoAway(h.protocol.Output.Frames, h.protocol.Last, http2.NoError)
	}
	h.protocol.FlushLocked()
}

// releaseInput gives the memory of received frames back.
func (h *http2ClientConn) releaseInput() {
	if h.in != nil {
		frameBuffers.Put(h.in)
		h.in, h.start, h.end = nil, 0, 0
	}
}
