package proxy

import (
	"errors"
	"fmt"
	"os"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/fields"
	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/http3"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
	"sluice/proxy/upstream"
	"sluice/route/places"
)

// An http3Stream is a stream of an http3ClientConn, and the downstream of its exchange. It is
// reused for later streams of the connection, all of which but one count as connections for the
// limits of the server.
type http3Stream struct {
	streamSide
	client   client
	stream   http3.Stream
	conn     *http3ClientConn
	exchange *exchange

	onServe func() // serve as a value: creating it allocates
	opened  int64  // coarse time
	// expected is how many bytes that Content-Length announces have not arrived; -1: unknown.
	expected int64
	answered bool  // a final response has begun
	failed   bool  // it has panicked, and is not used again
	overdue  bool  // the client has not taken the response in time
	holds    bool  // see http3ClientConn.hold
	fault    error // of the client: an http3.Error or StreamError; nil: none
	inTunnel *socket.Tunnel
	// unwatch ends the watch of a tunnel's client; nil: there is none.
	unwatch func()
}

func newHTTP3Stream(h *http3ClientConn) *http3Stream {
	c := &h.client
	s := &http3Stream{
		client: client{
			Client: upstream.Client{Shard: c.Shard}, server: c.server, listener: c.listener, remote: c.remote, address: c.address,
			version: version3, certificate: c.certificate, session: c.session,
		},
		conn: h,
	}
	s.client.downstream, s.client.Presence, s.client.Entry.Owner, s.onServe = s, s, s, s.serve
	s.stream.Init(h.conn, &s.client.Entry, c.server.sweeper, c.Shard, maxTrailerBytes, s.patience)
	return s
}

// prepare makes s ready for another request. The client may have another address than the one that
// was admitted (RFC 9000, section 9).
func (s *http3Stream) prepare(stream http3.Incoming) {
	if remote := s.conn.conn.Remote(); remote != s.client.remote {
		s.client.remote, s.client.address, s.client.options = remote, addressText(remote), nil
	}
	s.opened = s.client.server.sweeper.Now()
	s.expected, s.answered, s.overdue, s.fault, s.inTunnel = -1, false, false, nil, nil
	s.client.Gone.Store(false)
	s.stream.Open(stream)
	s.exchange = streamExchanges.Get().(*exchange)
	s.exchange.request.open(&s.client)
}

// serve serves the request of the stream.
func (s *http3Stream) serve() {
	defer s.conn.work.Done()
	defer panics.Contain(panics.Stream, s.fail)
	http2.GrowStack(nil)
	if err := s.scan(); err == nil {
		s.exchange.serve()
	} else {
		s.refuse(err)
	}
	s.releaseExchange()
	s.end()
}

func (s *http3Stream) releaseExchange() {
	s.exchange.close()
	streamExchanges.Put(s.exchange)
	s.exchange = nil
}

// scan reads and scans the head, and reads a body that fits the buffer of the exchange. What has
// not arrived whole may fill the window of the stream. So without memory for that, only a request
// without a body is served whose head is there.
func (s *http3Stream) scan() error {
	if s.holds = s.conn.hold(); !s.holds && !s.stream.HeadSoon() {
		return errNoStreamMemory
	}
	opens, err := s.readHead()
	switch {
	case err != nil:
		return err
	case s.stream.Received:
		s.release()
	case !s.holds:
		return errNoStreamMemory
	}
	return scanStream(s.exchange, s, opens)
}

// release reverts hold.
func (s *http3Stream) release() {
	if s.holds {
		s.conn.release()
		s.holds = false
	}
}

var errNoStreamMemory = errors.New("no memory for a request that has not arrived")

// readHead reads the head, and writes its text to the buffer of the exchange.
func (s *http3Stream) readHead() (opens bool, err error) {
	x := s.exchange
	limits := &s.client.options.Limits
	s.client.Entry.Arm(s.client.server.sweeper, s.client.options.Timeouts.Head)
	defer s.client.Entry.Disarm()
	listBytes := limits.listBytes()
	head, ends, err := s.stream.ReadHead(listBytes, listBytes)
	if err != nil {
		return false, s.ofHead(err)
	}
	defer head.Release()
	switch bytes := head.Fields.RequestBytes(); {
	case bytes > int(limits.HeadBytes):
		x.request.setKind(head.Fields.Find(":method"), head.Fields.Find("content-type"))
		return false, http1.ErrHeadTooLong
	case bytes > len(x.request.in):
		x.request.growTo(bytes)
	}
	data := false
	if !ends && mayBeBodiless(&head.Fields) {
		ends, data = s.stream.EndsSoon()
	}
	text, length, opens, err := head.Fields.AppendRequest(x.request.in[:0], ends)
	if err != nil {
		return false, s.ofHead(err)
	}
	if length == 0 && data {
		return false, s.recordFault(errHTTP3Length)
	}
	x.request.end, s.expected = len(text), length
	return opens, nil
}

// mayBeBodiless reports whether a head may be all of a request whose end was not seen.
func mayBeBodiless(f *fields.Fields) bool {
	length := f.Find("content-length")
	return (length == nil || string(length) == "0") && string(f.Find(":method")) != "CONNECT"
}

// ofHead returns err, of a head, as refuse knows it.
func (s *http3Stream) ofHead(err error) error {
	switch err {
	case fields.ErrListTooLong:
		return http1.ErrHeadTooLong
	case fields.ErrMalformed:
		return s.recordFault(&http3.StreamError{Code: http3.MessageError, Reason: "malformed head"})
	case os.ErrDeadlineExceeded, socket.ErrClosedEarly:
		return err
	}
	return s.recordFault(err)
}

// recordFault records a fault of the client, and returns what the exchange knows of it.
func (s *http3Stream) recordFault(err error) error {
	s.fault = err
	return socket.ErrClosedEarly
}

// refuse answers a request that scan has refused.
func (s *http3Stream) refuse(err error) {
	if err == errNoStreamMemory {
		s.client.server.http3.refusedConnections.Add(1)
		s.exchange.begin()
		s.exchange.refuse(refusal.TooManyConnections)
		return
	}
	late := refusal.BodyTimeout
	if s.exchange.request.headLength == 0 {
		late = refusal.HeadTimeout
	}
	s.exchange.refuseUnscanned(err, late)
}

// end ends the stream after its request was served.
func (s *http3Stream) end() {
	s.client.Entry.Disarm()
	s.release()
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
	counts := &s.client.server.http3
	canceled := !s.overdue && !s.stream.Sent.Load() && s.stream.Canceled()
	early := s.fault != nil || canceled && !s.answered && s.client.server.sweeper.Now()-s.opened < int64(http2EarlyReset)
	code := http3.NoError
	ofStream, _ := s.fault.(*http3.StreamError)
	switch {
	case ofStream != nil:
		code = ofStream.Code
	case canceled:
		counts.resetsReceived.Add(1)
		code = http3.RequestCancelled
	case s.overdue:
		code = http3.RequestCancelled
	case s.stream.IsGone(): // with its connection
	case s.inTunnel != nil && !(s.stream.Sent.Load() && s.stream.Received):
		code = http3.RequestCancelled // RFC 9220, with RFC 8441, section 5
	case !s.stream.Sent.Load(): // the response is incomplete
		code = http3.InternalError
	}
	if code != http3.NoError {
		if !canceled {
			counts.resetsSent.Add(1)
		}
		s.stream.Reset(code)
	}
	s.inTunnel = nil
	s.stream.Close()
	h, ofConnection := s.conn, s.fault
	if err := h.ended(s, early, s.failed); err != nil { // s is another request's from now on
		ofConnection = err
	}
	if fault, ok := ofConnection.(*http3.Error); ok {
		h.conn.CloseWith(fault)
	}
}

// awaitBody implements streamBody.
func (s *http3Stream) awaitBody(b *socket.Buffers, timeout time.Duration) error {
	b.GiveBack()
	s.client.Entry.Arm(s.client.server.sweeper, timeout)
	defer s.client.Entry.Disarm()
	err := s.stream.Await()
	if err == nil && s.expected >= 0 && s.stream.Left() > uint64(s.expected) {
		err = errHTTP3Length
	}
	return s.ofBody(err)
}

var errHTTP3Length = &http3.StreamError{Code: http3.MessageError, Reason: "a body of another length than announced"}

// takeBody implements streamBody. The body has as many bytes as Content-Length announces.
func (s *http3Stream) takeBody(b []byte) (n int, last bool, trailer []byte, err error) {
	n, last, err = s.stream.Take(b)
	if s.expected >= 0 && err == nil {
		switch s.expected -= int64(n); {
		case last && s.expected > 0:
			err = errHTTP3Length
		case n > 0 && s.expected == 0 && !last:
			// The peer may answer what is whole before the end comes.
			last, _ = s.stream.EndsSoon()
		}
	}
	return n, last, s.stream.Trailer, s.ofBody(err)
}

// wholeBody implements streamBody, for a call of gRPC, as [http2Stream.wholeBody] does.
func (s *http3Stream) wholeBody() int64 { return s.stream.WholeSoon() }

// ofBody returns err, of a body, as the exchange knows it.
func (s *http3Stream) ofBody(err error) error {
	if err == nil || err == os.ErrDeadlineExceeded || err == socket.ErrClosedEarly {
		return err
	}
	return s.recordFault(err)
}

// ReadBody implements source.
func (s *http3Stream) ReadBody(b *socket.Buffers, _ bool) (transfer.Piece, error) {
	return readStreamBody(s.exchange, s, b)
}

// TakesCoded implements sink.
func (s *http3Stream) TakesCoded() bool { return false }

// WriteBody implements sink. It forwards the trailer section to clients that accept one, as in
// HTTP/1.1.
func (s *http3Stream) WriteBody(b *socket.Buffers, p transfer.Piece) error {
	out := b.Out
	b.Out = out[:0]
	if len(p.Text) > 0 {
		out = http3.AppendData(out, len(p.Text))
		if len(out)+len(p.Text) > cap(out) {
			if err := s.send(out, false); err != nil {
				return err
			}
			if err := s.send(p.Text, false); err != nil {
				return err
			}
			out = out[:0]
		} else {
			out = append(out, p.Text...)
		}
	}
	if p.Last && s.exchange.request.head.TETrailers && len(p.Trailer) > 0 {
		begin := len(out)
		out = fields.AppendQPACKPrefix(http3.BeginHeaders(out))
		for line := range http1.Lines(p.Trailer) {
			out = fields.AppendQPACKLine(out, line)
		}
		out = http3.EndHeaders(out, begin)
	}
	return s.send(out, p.Last)
}

// send sends b, and the end of the response if ends.
func (s *http3Stream) send(b []byte, ends bool) error {
	s.answered = s.answered || len(b) > 0 && !s.exchange.answer.response.Interim()
	err := s.stream.Write(b, ends)
	if err == os.ErrDeadlineExceeded {
		s.overdue = true
		s.stream.Reset(http3.RequestCancelled)
		return socket.ErrClosedEarly
	}
	return err
}

// patience is how long a write may wait from now on.
func (s *http3Stream) patience(moved bool) time.Duration {
	return s.client.writePatience(s.inTunnel, moved)
}

// appendHead implements downstream.
func (s *http3Stream) appendHead(out, text []byte) []byte {
	begin := len(out)
	out = fields.AppendQPACKPrefix(http3.BeginHeaders(out))
	return http3.EndHeaders(s.exchange.appendHeadFields(out, text, qpackCoding), begin)
}

// writeAnswer implements downstream.
func (s *http3Stream) writeAnswer(text, body []byte) error {
	x := s.exchange
	x.answer.response.Reset(http1.UsualFields)
	n, err := x.answer.response.Scan(text)
	if err != nil {
		return fmt.Errorf("an answer of sluice: %w", err)
	}
	if len(body) == 0 {
		body = text[n:]
	}
	out := fields.AppendQPACKPrefix(http3.BeginHeaders(text[len(text):]))
	out = http3.EndHeaders(x.appendFields(out, text, true, qpackCoding), 0)
	if len(body) > 0 {
		out = append(http3.AppendData(out, len(body)), body...)
	}
	return s.send(out, true)
}

// waited implements downstream.
func (s *http3Stream) waited() bool { return s.stream.Delayed }

// isWhole implements downstream.
func (s *http3Stream) isWhole(sent int64) bool { return s.exchange.isWhole(sent) }

// Parties implements sweepOwner of package socket, and downstream.
func (s *http3Stream) Parties() (client, peer any) { return places.BlockOf(s.conn.client.remote), nil }

// IsGone implements downstream. What sluice cuts waits no longer.
func (s *http3Stream) IsGone() bool {
	if s.client.Gone.Load() {
		return true
	}
	gone := s.stream.IsGone() || s.client.listener.cut.Load() || s.client.isRevoked()
	if gone {
		s.client.Gone.Store(true)
	}
	return gone
}

// A tunnel over HTTP/3 (RFC 9220): the DATA frames of a stream in both directions are its bytes.

// tunnel implements downstream.
func (s *http3Stream) tunnel(t *socket.Tunnel) (end socket.TunnelEnd, early []byte) {
	s.inTunnel, s.stream.OnlyData = t, true
	s.unwatch = s.stream.OnStopped(t.BreakClient)
	return socket.TunnelEnd{Stream: s, Entry: &s.client.Entry}, nil
}

// SendTunnel implements tunnelStream.
func (s *http3Stream) SendTunnel(b []byte, ends bool) error {
	if len(b) > 0 {
		var header [16]byte
		if err := s.send(http3.AppendData(header[:0], len(b)), false); err != nil {
			return err
		}
	}
	return s.send(b, ends)
}

// AwaitTunnel implements tunnelStream.
func (s *http3Stream) AwaitTunnel() error {
	defer s.client.Entry.Disarm()
	return s.ofBody(s.stream.Await())
}

// TakeTunnel implements tunnelStream.
func (s *http3Stream) TakeTunnel(b []byte) (n int, last bool) {
	n, last, _, err := s.takeBody(b)
	return n, last || err != nil
}
