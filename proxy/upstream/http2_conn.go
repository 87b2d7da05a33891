package upstream

import (
	"cmp"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/fields"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

// Limits of an HTTP/2 connection to a peer.
const (
	// http2Streams is the maximum number of streams; SETTINGS may lower it.
	http2Streams = 100
	// http2Window is how many bytes of bodies the peer may send on a connection.
	// Its streams use little of that, so that a slow client delays only its own stream.
	http2Window = 1 << 30
	// http2Stall bounds each pause in which the peer takes no bytes at all.
	http2Stall = 30 * time.Second
	// http2Silence is how long a peer may send nothing on a connection with an
	// unanswered stream, or not answer a PING, until it is in doubt.
	http2Silence = time.Second
	// http2PingTimeout bounds the wait for the answer to a PING.
	http2PingTimeout = 15 * time.Second
	// http2Pings is the number of PINGs without HEADERS or DATA of the peer between
	// them. gRPC servers close a connection after more.
	http2Pings = 2
	// http2Unsent is the number of unsent bytes above which a connection gets no more
	// streams: the peer does not read.
	http2Unsent = 4 * http2.MaxOutputBytes
	// http2BodyRoom is how many bytes of bodies the peer must accept on a connection that gets a
	// new stream with a body. It may accept fewer as long as it does not take the bodies of other
	// streams.
	http2BodyRoom = http2.MaxFrameBytes
	// http2Replacements is how often a request is sent again because the peer has ended the
	// connection after other streams: then there are no more connections than requests that
	// are served. Without such streams, or if the peer refuses the stream, it is sent again
	// up to http2Refusals times: a peer that stops may do both.
	http2Replacements = http2Streams
	http2Refusals     = 2
	// http2BlockBytes and http2Continuations are the limits of a field block. One within
	// them fails no stream but its own, however long the list is.
	http2BlockBytes    = 1 << 20
	http2Continuations = 1 << 8
	// http2Resets is the number of streams that sluice resets on a connection, after which
	// new ones use another connection. The streams that are left then may be reset too. Servers
	// close a connection with more than 200 (Netty, in 30 s) or 1,000 (nghttp2, Node), and the
	// streams of all clients with it.
	http2Resets = 100
	// http2LastID is the id of a stream after which a connection drains.
	http2LastID = 1 << 30
)

// An http2Conn is an HTTP/2 connection to a peer, an [http2.Conn] in the role of the client.
type http2Conn struct {
	protocol  http2.Conn
	entry     socket.SweepEntry
	transport *http2Transport
	wire      socket.Wire
	agreed    agreement
	reader    socket.BufferedReader // of the reading goroutine
	onCheck   func(fd uintptr)      // checkLocked as a value: creating it allocates
	settled   chan struct{}         // closed when the first SETTINGS has arrived, or the connection has failed
	maxUnread int                   // bytes of the heads of a stream that were not read

	// Mu guards the fields below.
	ready    bool  // settled is closed
	lent     int   // streams of exchanges, and reserved ones
	changed  int64 // coarse time when lent became 0 or more than 0
	goAway   bool  // by the peer: it processes no new streams
	served   bool  // with goAway: the peer has processed streams
	retired  bool  // no stream is reserved any more
	unheard  bool  // nothing has arrived since a time without a stream
	pinged   int64 // coarse time of the PING that waits for its answer; 0: none
	pings    int   // since HEADERS or DATA last arrived
	heard    int64 // coarse time when bytes last arrived
	lifetime socket.Lifetime
	resets   int // streams that were reset by us
}

// newHTTP2Conn returns a connection that has sent its preface. Its user calls read. The
// first SETTINGS must arrive before the coarse time deadline.
func newHTTP2Conn(t *http2Transport, w socket.Wire, agreed agreement, deadline int64, shard uint32) *http2Conn {
	now := t.sweeper.Now()
	listBytes := max(fields.UsualListBytes, fields.ListBytes(int(t.options.HeadBytes), t.options.Fields))
	c := &http2Conn{
		transport: t, wire: w, agreed: agreed, maxUnread: listBytes,
		settled: make(chan struct{}), changed: now, heard: now,
		lifetime: socket.NewLifetime(t.sweeper, shard),
	}
	c.protocol.Init(http2.ConnOptions{
		Role: c, Client: true, Sweeper: t.sweeper, Place: panics.Peer,
		ListBytes: listBytes, BlockBytes: http2BlockBytes, Continuations: http2Continuations,
		Window: http2Window, Slack: http2Window / 2, StreamWindow: http2.InitialWindow,
		Settings: []http2.Setting{{ID: http2.SettingEnablePush}, {ID: http2.SettingMaxHeaderListSize, Value: uint32(listBytes)}},
	})
	c.onCheck = c.checkLocked
	c.entry.Owner = c
	t.sweeper.Add(&c.entry, w.Conn, shard)
	c.entry.ArmRead(deadline)
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	c.protocol.FlushLocked()
	return c
}

// Parties and OnSweep implement sweepOwner of package socket.
func (c *http2Conn) Parties() (client, peer any) { return nil, c.transport }
func (c *http2Conn) OnSweep(int64) int64         { return socket.Never }

// limitLocked returns how many streams the peer accepts; 0: not known yet.
func (c *http2Conn) limitLocked() int {
	if !c.protocol.Settled {
		return 0
	}
	return int(min(c.protocol.StreamLimit, http2Streams))
}

// isExhausted reports whether the ids of streams are used up.
func (c *http2Conn) isExhausted() bool { return c.protocol.Last > http2LastID }

// hasRoomLocked reports whether a new stream can send a body: see http2BodyRoom.
func (c *http2Conn) hasRoomLocked() bool { return c.protocol.Output.Window >= http2BodyRoom }

// reserve reserves a stream, for a request with a body or without, and reports whether there was a
// free one on a connection with the agreement agreed. private: the stream is the only one of the
// connection.
func (c *http2Conn) reserve(agreed agreement, body, private bool) bool {
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	if c.agreed != agreed && c.ready {
		c.retireLocked()
	}
	now := c.transport.sweeper.Now()
	switch {
	case c.protocol.Err != nil, c.goAway, c.retired, c.lent >= c.limitLocked(), c.isExhausted(), len(c.protocol.Output.Frames) > http2Unsent, body && !c.hasRoomLocked():
		return false
	case private && (c.lent > 0 || c.protocol.Last > 0):
		return false
	case c.pinged != 0 && now-c.pinged > int64(http2Silence):
		return false
	case c.protocol.Open > 0:
		if c.silentSinceLocked(c.changed) && c.pings < http2Pings {
			c.pingLocked()
		}
	case c.protocol.Last > 0: // all streams have ended, also if the last exchange has not released its own yet
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
	if c.lifetime.Begin(c.transport.sweeper, &c.transport.options.ConnectionLimits) != socket.LimitNone || private {
		c.retired = true // the stream is the last one
	}
	return true
}

// checkLocked notes if the peer has ended the connection, and the reading goroutine does not know
// yet.
func (c *http2Conn) checkLocked(fd uintptr) { c.goAway = socket.Ended(fd, c.wire.TLS != nil) }

// releasedLocked ends the reservation of a stream.
func (c *http2Conn) releasedLocked() {
	if c.lent--; c.lent > 0 {
		return
	}
	c.changed = c.transport.sweeper.Now()
	if c.ready && c.protocol.StreamLimit == 0 {
		c.retired = true
	}
	if c.goAway || c.retired || c.isExhausted() {
		c.wire.Conn.CloseRead() // ends read
	}
}

// silentSinceLocked reports whether nothing has arrived for http2Silence, of the time
// since the coarse time start.
func (c *http2Conn) silentSinceLocked(start int64) bool {
	return c.transport.sweeper.Now()-max(c.heard, start) > int64(http2Silence)
}

// pingLocked sends a PING, unless one waits for its answer.
func (c *http2Conn) pingLocked() {
	if c.pinged != 0 {
		return
	}
	c.pinged = c.transport.sweeper.Now()
	c.pings++
	c.protocol.Output.Frames = http2.AppendPing(c.protocol.Output.Frames, 0, make([]byte, 8))
	c.entry.Arm(c.transport.sweeper, http2PingTimeout)
	c.protocol.FlushLocked()
}

// doubtLocked is called when a stream has ended without an answer, and nothing has arrived
// on the connection meanwhile.
func (c *http2Conn) doubtLocked() {
	if c.pinged == 0 && c.pings >= http2Pings {
		c.retired = true
		return
	}
	c.pingLocked()
}

// retireLocked lets the streams end and then closes the connection.
func (c *http2Conn) retireLocked() {
	if !c.ready { // it will be used
		return
	}
	if c.retired = true; c.lent == 0 {
		c.wire.Conn.CloseRead()
	}
}

// abandon ends a connection for whose first SETTINGS nobody waits any more. If they have arrived,
// others may use it by now, and it stays.
func (c *http2Conn) abandon(err error) {
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	if !c.ready {
		c.failLocked(err)
		c.wire.Conn.CloseRead() // ends read
	}
}

// failLocked ends the connection and its streams with err. Those whose requests have not
// been written end with ErrUnprocessed: another peer can have them, also with methods that
// are not idempotent. Those whose requests are being written are left to flush.
func (c *http2Conn) failLocked(err error) {
	c.protocol.Err = cmp.Or(c.protocol.Err, err)
	if !c.ready {
		c.ready = true
		close(c.settled)
	}
	for id, s := range c.protocol.Streams {
		switch {
		case id <= c.protocol.Written:
			s.StopLocked(err)
		case id > c.protocol.Taken:
			s.StopLocked(ErrUnprocessed)
		}
	}
}

// scheme returns http or https.
func (c *http2Conn) scheme() string {
	if c.wire.TLS != nil {
		return "https"
	}
	return "http"
}
