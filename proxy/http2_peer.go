package proxy

import (
	"sync"
	"time"

	"sluice/certificates"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
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
	http2PeerUnsent = 4 * http2.MaxOutputBytes
	// http2Replacements is how often a request is sent again because the peer has ended the
	// connection after other streams: then there are no more connections than requests that
	// are served. Without such streams, or if the peer refuses the stream, it is sent again
	// up to http2Refusals times: a peer that stops may do both.
	http2Replacements = http2PeerStreams
	http2Refusals     = 2
	// http2PeerBlockBytes and http2PeerContinuations are the limits of a field block. One within
	// them fails no stream but its own, however long the list is.
	http2PeerBlockBytes    = 1 << 20
	http2PeerContinuations = 1 << 8
	// http2PeerResets is the number of streams that sluice resets on a connection, after which
	// new ones use another connection. The streams that are left then may be reset too. Servers
	// close a connection with more than 200 (Netty, in 30 s) or 1,000 (nghttp2, Node), and the
	// streams of all clients with it.
	http2PeerResets = 100
	// http2LastID is the id of a stream after which a connection drains.
	http2LastID = 1 << 30
)

// An http2PeerConn is an HTTP/2 connection to a peer. One goroutine reads frames, and
// another one, as long as there are bytes, sends the frames of all streams.
type http2PeerConn struct {
	socket.SweepEntry
	transport *http2Transport
	wire      socket.Wire
	secure    *certificates.Client // the settings of wire.tls
	writer    socket.Writer        // of the goroutine that sends
	onCheck   func(fd uintptr)     // checkLocked as a value: creating it allocates
	work      sync.WaitGroup       // flush
	settled   chan struct{}        // closed when the first SETTINGS has arrived, or the connection has failed

	// The fields of the reading goroutine.
	reader    socket.BufferedReader
	decoder   *http2.Decoder
	fields    http2.Fields
	block     http2.FieldBlock
	maxUnread int // bytes of the heads of a stream that were not read

	mu stateMutex
	// mu guards the fields below, and those of the streams that say so.
	streams  map[uint32]*http2Upstream
	lent     int    // streams of exchanges, and reserved ones
	changed  int64  // coarse time when lent became 0 or more than 0
	next     uint32 // the id of the next stream
	limit    int    // of streams; 0 before the first SETTINGS
	ready    bool   // the first SETTINGS has arrived
	goAway   bool   // by the peer: it processes no new streams
	served   bool   // with goAway: the peer has processed streams
	retired  bool   // no stream is reserved any more
	unheard  bool   // nothing has arrived since a time without a stream
	pinged   int64  // coarse time of the PING that waits for its answer; 0: none
	pings    int    // since HEADERS or DATA last arrived
	err      error  // the connection has failed or was closed
	output   http2.Output
	flushing bool   // flush runs
	written  uint32 // the peer can know streams below this id only
	taken    uint32 // flush writes the requests of the streams from written to below this id
	received int64  // bytes of bodies to grant on the connection
	heard    int64  // coarse time when bytes last arrived
	lifetime socket.Lifetime
	resets   int // streams that were reset by us
}

// newHTTP2PeerConn returns a connection that has sent its preface. Its user calls read. The
// first SETTINGS must arrive before the coarse time deadline.
func newHTTP2PeerConn(t *http2Transport, w socket.Wire, secure *certificates.Client, deadline int64, shard uint32) *http2PeerConn {
	now := t.sweeper.Now()
	listBytes := max(http2.UsualListBytes, maxListBytes(t.options.HeadBytes, t.options.Fields))
	c := &http2PeerConn{
		transport: t, wire: w, secure: secure, decoder: http2.NewDecoder(listBytes), maxUnread: listBytes, streams: make(map[uint32]*http2Upstream),
		block:   http2.FieldBlock{MaxBytes: http2PeerBlockBytes, MaxFrames: http2PeerContinuations},
		settled: make(chan struct{}), next: 1, output: http2.NewOutput(), changed: now, heard: now,
		lifetime: socket.NewLifetime(t.sweeper, shard),
	}
	c.onCheck = c.checkLocked
	t.sweeper.Add(&c.SweepEntry, w.Conn, shard)
	c.ArmRead(deadline)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.output.Frames = append(c.output.Frames, http2.Preface...)
	c.output.Frames = http2.AppendSettings(c.output.Frames, http2.Setting{ID: http2.SettingEnablePush}, http2.Setting{ID: http2.SettingMaxHeaderListSize, Value: uint32(listBytes)})
	c.output.Frames = http2.AppendWindowUpdate(c.output.Frames, 0, http2PeerWindow-http2.InitialWindow)
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
	now := c.transport.sweeper.Now()
	switch {
	case c.err != nil, c.goAway, c.retired, c.lent >= c.limit, c.next > http2LastID, len(c.output.Frames) > http2PeerUnsent:
		return false
	case c.pinged != 0 && now-c.pinged > int64(http2PeerSilence):
		return false
	case c.lent > 0:
		if c.silentSinceLocked(c.changed) && c.pings < http2PeerPings {
			c.pingLocked()
		}
	case c.next > 1:
		// The peer may have closed it, and the reading goroutine not know yet.
		if c.wire.Raw.Control(c.onCheck); c.goAway {
			return false
		}
		c.unheard = true
		fallthrough
	default:
		c.changed = now
	}
	c.lent++
	if c.lifetime.Begin(c.transport.sweeper, &c.transport.options.Connections) != socket.LimitNone {
		c.retired = true // the stream is the last one
	}
	return true
}

// checkLocked checks an idle connection.
func (c *http2PeerConn) checkLocked(fd uintptr) { c.goAway = socket.Ended(fd, c.wire.TLS != nil) }

// releasedLocked ends the reservation of a stream.
func (c *http2PeerConn) releasedLocked() {
	if c.lent--; c.lent > 0 {
		return
	}
	c.changed = c.transport.sweeper.Now()
	if c.goAway || c.retired || c.next > http2LastID {
		c.wire.Conn.CloseRead() // ends read
	}
}

// silentSinceLocked reports whether nothing has arrived for http2PeerSilence, of the time
// since the coarse time start.
func (c *http2PeerConn) silentSinceLocked(start int64) bool {
	return c.transport.sweeper.Now()-max(c.heard, start) > int64(http2PeerSilence)
}

// pingLocked sends a PING, unless one waits for its answer.
func (c *http2PeerConn) pingLocked() {
	if c.pinged != 0 {
		return
	}
	c.pinged = c.transport.sweeper.Now()
	c.pings++
	c.output.Frames = http2.AppendPing(c.output.Frames, 0, make([]byte, 8))
	c.ArmRead(c.pinged + int64(http2PeerPingTimeout))
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
		c.wire.Conn.CloseRead()
	}
}

// resetLocked resets u, whose exchange ends with err.
func (c *http2PeerConn) resetLocked(u *http2Upstream, code http2.ErrorCode, err error) {
	c.output.Frames = http2.AppendResetStream(c.output.Frames, u.id, code)
	if c.resets++; c.resets >= http2PeerResets {
		c.retired = true
	}
	u.failLocked(err)
	c.flushLocked()
}

// failLocked ends the connection and its streams with err. Those whose requests have not
// been written end with errUnprocessed: another peer can have them, also with methods that
// are not idempotent. Those whose requests are being written are left to flush.
func (c *http2PeerConn) failLocked(err error) {
	if c.err == nil {
		c.err = err
	}
	if !c.ready {
		c.ready = true
		close(c.settled)
	}
	for id, u := range c.streams {
		switch {
		case id < c.written:
			u.failLocked(err)
		case id >= c.taken:
			u.failLocked(errUnprocessed)
		}
	}
}

// scheme returns http or https.
func (c *http2PeerConn) scheme() string {
	if c.wire.TLS != nil {
		return "https"
	}
	return "http"
}
