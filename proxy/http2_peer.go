package proxy

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"sluice/certificates"
	"sluice/proxy/http2"
)

// Limits of an HTTP/2 connection to a peer.
const (
	// http2PeerStreams is the maximum number of streams; SETTINGS may lower it.
	http2PeerStreams = 100
	// http2PeerWindow is how many bytes of bodies the peer may send on a connection.
	// They are granted again when they arrive, so that a slow client delays only its
	// own stream.
	http2PeerWindow = 1 << 30
	// http2PeerStall bounds each pause in which the peer takes no bytes at all.
	http2PeerStall = 30 * time.Second
	// http2PeerSilence is how long a peer may send nothing on a connection with an
	// unanswered stream, or not answer a PING, until it is in doubt.
	http2PeerSilence = time.Second
	// http2PeerPingTimeout bounds the wait for the answer to a PING.
	http2PeerPingTimeout = 15 * time.Second
	// http2PeerPings is the number of PINGs without HEADERS or DATA of the peer between
	// them. gRPC servers close a connection after more.
	http2PeerPings = 2
	// http2PeerUnsent is the number of unsent bytes above which a connection gets no more
	// streams: the peer does not read.
	http2PeerUnsent = 4 * http2OutputBytes
	// http2LastID is the id of a stream after which a connection drains.
	http2LastID = 1 << 30
)

// An http2PeerConn is an HTTP/2 connection to a peer. One goroutine reads frames, and
// another one, as long as there are bytes, sends the frames of all streams.
type http2PeerConn struct {
	sweepEntry
	transport *http2Transport
	wire      wire
	secure    *certificates.Client // the settings of wire.tls
	writer    writer               // of the goroutine that sends
	onCheck   func(fd uintptr)     // checkLocked as a value: creating it allocates
	work      sync.WaitGroup       // flush
	settled   chan struct{}        // closed when the first SETTINGS has arrived, or the connection has failed

	// The fields of the reading goroutine.
	reader  bufferedReader
	decoder *http2.Decoder
	fields  http2.Fields
	block   fieldBlock

	mu sync.Mutex
	// mu guards the fields below, and those of the streams that say so.
	streams  map[uint32]*http2Upstream
	lent     int              // streams of exchanges, and reserved ones
	changed  int64            // coarse time when lent became 0 or more than 0
	next     uint32           // the id of the next stream
	limit    int              // of streams; 0 before the first SETTINGS
	ready    bool             // the first SETTINGS has arrived
	goAway   bool             // by the peer: it processes no new streams
	retired  bool             // no stream is reserved any more
	unheard  bool             // nothing has arrived since a time without a stream
	pinged   int64            // coarse time of the PING that waits for its answer; 0: none
	pings    int              // since HEADERS or DATA last arrived
	err      error            // the connection has failed or was closed
	out      []byte           // frames to send
	spare    []byte           // memory for out
	flushing bool             // flush runs
	queue    []*http2Upstream // streams with bytes to send
	window   int64            // bytes of bodies that the peer accepts
	initial  int64            // window of a new stream
	received int64            // bytes of bodies to grant on the connection
	heard    int64            // coarse time when bytes last arrived
}

// newHTTP2PeerConn returns a connection that has sent its preface. Its user calls read. The
// first SETTINGS must arrive before the coarse time deadline.
func newHTTP2PeerConn(t *http2Transport, w wire, secure *certificates.Client, deadline int64, shard uint32) *http2PeerConn {
	now := t.sweeper.now()
	c := &http2PeerConn{
		transport: t, wire: w, secure: secure, decoder: http2.NewDecoder(), streams: make(map[uint32]*http2Upstream),
		settled: make(chan struct{}), next: 1, window: http2.InitialWindow, initial: http2.InitialWindow, changed: now, heard: now,
	}
	c.onCheck = c.checkLocked
	t.sweeper.add(&c.sweepEntry, w.conn, shard)
	c.armRead(deadline)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, http2.Preface...)
	c.out = http2.AppendSettings(c.out, http2.Setting{ID: http2.SettingEnablePush}, http2.Setting{ID: http2.SettingMaxHeaderListSize, Value: http2.MaxListBytes})
	c.out = http2.AppendWindowUpdate(c.out, 0, http2PeerWindow-http2.InitialWindow)
	c.flushLocked()
	return c
}

// reserve reserves a stream, and reports whether there was a free one on a connection
// with the settings secure.
func (c *http2PeerConn) reserve(secure *certificates.Client) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.secure != secure && c.ready { // the settings have changed
		c.retireLocked()
	}
	now := c.transport.sweeper.now()
	switch {
	case c.err != nil, c.goAway, c.retired, c.lent >= c.limit, c.next > http2LastID, len(c.out) > http2PeerUnsent:
		return false
	case c.pinged != 0 && now-c.pinged > int64(http2PeerSilence):
		return false
	case c.lent > 0:
		if c.silentSinceLocked(c.changed) && c.pings < http2PeerPings {
			c.pingLocked()
		}
	case c.next > 1:
		// The peer may have closed it, and the reading goroutine not know yet.
		if c.wire.raw.Control(c.onCheck); c.goAway {
			return false
		}
		c.unheard = true
		fallthrough
	default:
		c.changed = now
	}
	c.lent++
	return true
}

// checkLocked checks an idle connection.
func (c *http2PeerConn) checkLocked(fd uintptr) { c.goAway = ended(fd, c.wire.tls != nil) }

// releasedLocked ends the reservation of a stream.
func (c *http2PeerConn) releasedLocked() {
	if c.lent--; c.lent > 0 {
		return
	}
	c.changed = c.transport.sweeper.now()
	if c.goAway || c.retired || c.next > http2LastID {
		c.wire.conn.CloseRead() // ends read
	}
}

// silentSinceLocked reports whether nothing has arrived for http2PeerSilence, of the time
// since the coarse time start.
func (c *http2PeerConn) silentSinceLocked(start int64) bool {
	return c.transport.sweeper.now()-max(c.heard, start) > int64(http2PeerSilence)
}

// pingLocked sends a PING, unless one waits for its answer.
func (c *http2PeerConn) pingLocked() {
	if c.pinged != 0 {
		return
	}
	c.pinged = c.transport.sweeper.now()
	c.pings++
	c.out = http2.AppendPing(c.out, 0, make([]byte, 8))
	c.armRead(c.pinged + int64(http2PeerPingTimeout))
	c.flushLocked()
}

// doubtLocked is called when a stream has ended without an answer, and nothing has arrived
// on the connection meanwhile.
func (c *http2PeerConn) doubtLocked() {
	if c.pinged == 0 && c.pings >= http2PeerPings {
		c.retired = true
		return
	}
	c.pingLocked()
}

// retireLocked lets the streams end and then closes the connection.
func (c *http2PeerConn) retireLocked() {
	if !c.ready { // it will be used
		return
	}
	if c.retired = true; c.lent == 0 {
		c.wire.conn.CloseRead()
	}
}

// read reads frames until the connection ends. It returns after all goroutines of the
// connection.
func (c *http2PeerConn) read() {
	var b buffers
	err := c.readFrames(&b)
	b.giveBack()
	c.mu.Lock()
	if !c.ready && err != io.EOF {
		c.failLocked(err) // dial returns it
	}
	c.failLocked(errClosedEarly)
	c.sendGoAwayLocked(err)
	c.mu.Unlock()
	c.transport.forget(c)
	c.remove()
	c.wire.conn.Close()
	c.work.Wait()
}

// sendGoAwayLocked sends GOAWAY if it fits the socket buffer. err is why the connection ends.
func (c *http2PeerConn) sendGoAwayLocked(err error) {
	if c.flushing || len(c.out) > 0 {
		return
	}
	code := http2.NoError
	var failure *http2.Error
	if errors.As(err, &failure) {
		code = failure.Code
	}
	frame := http2.AppendGoAway(nil, 0, code)
	if c.wire.tls != nil {
		records := sealBuffers.Get().(*buffer)
		defer sealBuffers.Put(records)
		if frame, err = c.wire.tls.seal(frame, records); err != nil {
			return
		}
	}
	c.wire.raw.Control(func(fd uintptr) { send(fd, frame) })
}

func (c *http2PeerConn) readFrames(b *buffers) error {
	for end := 0; ; {
		n, err := c.reader.read(c.wire, b, end, relayBufferBytes)
		switch {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded) && !c.expired(c.transport.sweeper):
			continue
		default:
			return err
		}
		end += n
		taken, failure := c.process(b.from[:end])
		if failure != nil {
			return failure
		}
		end = copy(b.from, b.from[taken:end])
	}
}

// process processes the frames in b, and returns their length.
func (c *http2PeerConn) process(b []byte) (taken int, err *http2.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.unheard = c.transport.sweeper.now(), false
	if c.pinged != 0 {
		c.pinged = 0
		c.disarm()
	}
	for err == nil && len(b)-taken >= http2.FrameHeaderBytes {
		frame := http2.ParseFrameHeader(b[taken:])
		end := taken + http2.FrameHeaderBytes + frame.Length
		if !c.ready && (frame.Type != http2.FrameSettings || frame.Has(http2.FlagAck)) {
			return taken, errNoSettings
		}
		if frame.Length > http2.MaxFrameBytes {
			return taken, errFrameTooLong
		}
		if end > len(b) {
			break
		}
		err = c.frameLocked(&frame, b[taken+http2.FrameHeaderBytes:end])
		taken = end
	}
	if c.received >= http2Window {
		c.out = http2.AppendWindowUpdate(c.out, 0, int(c.received))
		c.received = 0
	}
	c.flushLocked()
	return taken, err
}

func (c *http2PeerConn) frameLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	if open := c.block.header.StreamID; open != 0 && (frame.Type != http2.FrameContinuation || frame.StreamID != open) {
		return errContinuation
	}
	if err := frame.Check(); err != nil {
		return err
	}
	switch frame.Type {
	case http2.FrameData:
		c.pings = 0
		return c.dataLocked(frame, payload)
	case http2.FrameHeaders:
		c.pings = 0
		block, _, err := frame.Unpad(payload)
		switch {
		case err != nil:
			return err
		case frame.Has(http2.FlagEndHeaders):
			return c.blockLocked(frame, block)
		}
		c.block = fieldBlock{bytes: append(c.block.bytes[:0], block...), header: *frame}
	case http2.FrameContinuation:
		block := &c.block
		switch block.frames++; {
		case block.header.StreamID == 0:
			return errContinuation
		case block.frames > http2Continuations || len(block.bytes)+len(payload) > http2BlockBytes:
			return errBlockTooLong
		}
		block.bytes = append(block.bytes, payload...)
		if frame.Has(http2.FlagEndHeaders) {
			complete := c.block
			c.block = fieldBlock{}
			return c.blockLocked(&complete.header, complete.bytes)
		}
	case http2.FrameResetStream:
		c.resetByPeerLocked(frame.StreamID, http2.ErrorCode(binary.BigEndian.Uint32(payload)))
	case http2.FrameSettings:
		return c.settingsLocked(frame, payload)
	case http2.FramePing:
		if !frame.Has(http2.FlagAck) {
			c.out = http2.AppendPing(c.out, http2.FlagAck, payload)
		}
	case http2.FrameGoAway:
		c.goAwayLocked(binary.BigEndian.Uint32(payload) &^ (1 << 31))
	case http2.FrameWindowUpdate:
		return c.windowUpdateLocked(frame.StreamID, int64(binary.BigEndian.Uint32(payload)&^(1<<31)))
	}
	return nil
}

// blockLocked processes a complete field block. It is decoded in any case, since later
// ones depend on it.
func (c *http2PeerConn) blockLocked(frame *http2.FrameHeader, block []byte) *http2.Error {
	if err := c.decoder.Decode(block, &c.fields); err != nil {
		return err
	}
	u := c.streams[frame.StreamID]
	switch {
	case frame.StreamID%2 == 0 || frame.StreamID >= c.next:
		return errStreamID
	case u == nil || u.received || u.err != nil: // sent before the peer knew
		return nil
	}
	ends := frame.Has(http2.FlagEndStream)
	var err error
	if u.final {
		if u.trailer, err = c.fields.AppendTrailer(nil); !ends {
			err = http2.ErrMalformed
		}
	} else {
		status := len(u.heads) + len("HTTP/1.1 ")
		u.heads, err = c.fields.AppendResponse(u.heads)
		u.final = err == nil && u.heads[status] != '1'
		if ends && !u.final || len(u.heads) > http2BlockBytes {
			err = http2.ErrMalformed
		}
	}
	if err != nil {
		c.out = http2.AppendResetStream(c.out, frame.StreamID, http2.ProtocolError)
		u.failLocked(http2ResponseError)
		return nil
	}
	u.received = ends
	signal(u.waits.readable)
	return nil
}

func (c *http2PeerConn) dataLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	data, _, err := frame.Unpad(payload)
	if err != nil {
		return err
	}
	c.received += int64(frame.Length)
	u := c.streams[frame.StreamID]
	switch {
	case frame.StreamID >= c.next:
		return errStreamID
	case u == nil || u.err != nil: // sent before the peer knew
		return nil
	case u.received || !u.final:
		return errStreamEnded
	}
	u.body.append(data)
	u.received = frame.Has(http2.FlagEndStream)
	u.grantLocked(frame.Length - len(data))
	signal(u.waits.readable)
	return nil
}

func (c *http2PeerConn) resetByPeerLocked(id uint32, code http2.ErrorCode) {
	u := c.streams[id]
	switch {
	case u == nil:
	case code == http2.RefusedStream && !u.final:
		u.failLocked(errUnprocessed)
	case code == http2.ProtocolError && !u.final:
		u.failLocked(errRejected)
	case u.received:
		u.sent, u.stopped = true, true // sent: the stream is closed
		signal(u.waits.writable)
	default:
		u.failLocked(errClosedEarly)
	}
}

// goAwayLocked handles GOAWAY: the streams above last were not processed.
func (c *http2PeerConn) goAwayLocked(last uint32) {
	c.goAway = true
	for id, u := range c.streams {
		if id > last {
			u.failLocked(errUnprocessed)
		}
	}
	if c.lent == 0 && c.ready {
		c.wire.conn.CloseRead()
	}
}

func (c *http2PeerConn) settingsLocked(frame *http2.FrameHeader, payload []byte) *http2.Error {
	if frame.Has(http2.FlagAck) {
		return nil
	}
	if !c.ready {
		c.disarm()
		c.ready, c.limit = true, http2PeerStreams
		defer close(c.settled)
	}
	for len(payload) > 0 {
		setting, rest, err := http2.NextSetting(payload)
		if payload = rest; err != nil {
			return err
		}
		switch setting.ID {
		case http2.SettingMaxConcurrentStreams:
			c.limit = int(min(setting.Value, http2PeerStreams))
		case http2.SettingInitialWindowSize:
			change := int64(setting.Value) - c.initial
			c.initial += change
			for _, u := range c.streams {
				if u.window += change; u.window > http2.MaxWindow {
					return errWindow
				}
			}
		}
	}
	c.out = http2.AppendSettingsAck(c.out)
	return nil
}

func (c *http2PeerConn) windowUpdateLocked(id uint32, increment int64) *http2.Error {
	window := &c.window
	if id > 0 {
		u := c.streams[id]
		switch {
		case id >= c.next:
			return errStreamID
		case u == nil:
			return nil
		}
		window = &u.window
	}
	if increment == 0 {
		return errNoIncrement
	}
	if *window += increment; *window > http2.MaxWindow {
		return errWindow
	}
	return nil
}

// failLocked ends the connection and its streams with err.
func (c *http2PeerConn) failLocked(err error) {
	if c.err == nil {
		c.err = err
	}
	if !c.ready {
		c.ready = true
		close(c.settled)
	}
	for _, u := range c.streams {
		u.failLocked(err)
	}
}

// queueLocked puts u behind the other streams that send.
func (c *http2PeerConn) queueLocked(u *http2Upstream) {
	u.sending = true
	c.queue = append(c.queue, u)
	c.fillLocked()
	c.flushLocked()
}

func (c *http2PeerConn) dequeueLocked(u *http2Upstream) {
	c.queue = slices.DeleteFunc(c.queue, func(other *http2Upstream) bool { return other == u })
}

// fillLocked moves frames of the streams in the queue to out, one of each in turn, as
// far as there is room and the peer's windows allow.
func (c *http2PeerConn) fillLocked() {
	for moved := true; moved; {
		moved = false
		kept := c.queue[:0]
		for _, u := range c.queue {
			if len(c.out) < http2OutputBytes && c.frameOfLocked(u) {
				moved = true
			}
			if u.sending {
				kept = append(kept, u)
			}
		}
		clear(c.queue[len(kept):])
		c.queue = kept
	}
}

// frameOfLocked moves a frame of u to out, and reports whether it did.
func (c *http2PeerConn) frameOfLocked(u *http2Upstream) bool {
	if u.err != nil || u.stopped {
		return false // the stream is closed
	}
	n := int(min(int64(len(u.data)), http2.MaxFrameBytes, u.window, c.window))
	if n <= 0 && len(u.data) > 0 {
		return false
	}
	last := n == len(u.data)
	if n > 0 || u.ends && len(u.tail) == 0 {
		frame := http2.FrameHeader{Length: n, Type: http2.FrameData, StreamID: u.id}
		if last && u.ends && len(u.tail) == 0 {
			frame.Flags = http2.FlagEndStream
		}
		c.out = append(http2.AppendFrameHeader(c.out, frame), u.data[:n]...)
		u.data = u.data[n:]
		u.window -= int64(n)
		c.window -= int64(n)
	}
	if last {
		c.out = append(c.out, u.tail...)
		u.data, u.tail, u.sending = nil, nil, false
		u.sent = u.sent || u.ends
	}
	signal(u.waits.writable)
	return true
}

// flushLocked starts to send out.
func (c *http2PeerConn) flushLocked() {
	if c.fillLocked(); c.flushing || len(c.out) == 0 || c.err != nil {
		return
	}
	c.flushing = true
	c.work.Go(c.flush)
}

// flush sends out until it is empty. It yields first, so that the streams that can run
// add their frames: one write for many requests.
func (c *http2PeerConn) flush() {
	runtime.Gosched()
	to := side{raw: c.wire.raw, entry: &c.sweepEntry, sweeper: c.transport.sweeper, timeout: http2PeerStall}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && c.err == nil {
		b := c.out
		c.out, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		_, err := c.writer.writeSealed(to, c.wire.tls, b)
		c.mu.Lock()
		if c.spare = b[:0]; err != nil {
			c.failLocked(errClosedEarly)
			c.wire.conn.CloseRead() // ends read
		}
		c.fillLocked()
	}
	c.flushing = false
}

// scheme returns http or https.
func (c *http2PeerConn) scheme() string {
	if c.wire.tls != nil {
		return "https"
	}
	return "http"
}
