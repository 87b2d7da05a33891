package proxy

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"sluice/balancer"
	"sluice/observe/panics"
	"sluice/observe/tracing"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
	"sluice/route"
	"sluice/route/places"
)

// A mirrored is a copy of a request on its way to a mirror. It is an exchange of its own, in
// its own goroutine, whose client is nobody: no request waits for it, or shares memory with
// it.
type mirrored struct {
	httpExchange
	sender     client // what peers learn about the client of the request
	downstream mirrorDownstream
	mirror     *route.Mirror
	incomplete bool         // a part of the body is awaited
	uploader   places.Block // that sends it
}

// copies are unused. The sides of the sender never change, because the sweeper may read them late.
var copies = sync.Pool{New: func() any {
	m := new(mirrored)
	m.sender.downstream, m.sender.Presence = &m.downstream, &m.downstream
	return m
}}

// mirror copies the request to the mirror of the route if it is selected. A body that the client still sends is copied as
// it is forwarded: see upload.
func (x *httpExchange) mirror() *refusal.Refusal {
	to := x.way.Mirror
	if to == nil || !to.Copies.Select(to.Share) {
		return nil
	}
	length := x.head.ContentLength
	if !x.streaming {
		length = int64(len(x.body))
	}
	switch {
	case x.standing.trusted && x.head.Has(http1.NameXSluiceMirror):
		to.Copies.Skip(route.DroppedMirrored)
	case x.upgrade, x.head.ConnectionAuth, x.streaming && x.standing.grpc:
		to.Copies.Skip(route.DroppedProtocol)
	case length > to.BodyBytes:
		to.Copies.Skip(route.DroppedBodyTooLong)
	case to.Copies.Begin(to.InFlight):
		uploader := x.client.block()
		if x.streaming && !to.Copies.Incomplete.Take(uploader, 1, to.InFlight) {
			to.Copies.Drop(route.DroppedInFlight)
			return nil
		}
		m := x.copyHead(to, x.bytes())
		if x.streaming {
			m.incomplete, m.uploader, x.upload.copy = true, uploader, m
			return nil
		}
		m.body = append(m.body, x.body...)
		m.start()
	}
	return nil
}

// copyHead returns a copy of the request without its body.
func (x *httpExchange) copyHead(to *route.Mirror, b []byte) *mirrored {
	m, from := copies.Get().(*mirrored), x.client
	c := &m.sender
	c.server, c.listener, c.Shard = from.server, from.listener, from.Shard
	c.remote, c.address, c.certificate, c.session, c.isHTTP2 = from.remote, from.address, from.certificate, from.session, from.isHTTP2
	m.mirror = to
	m.open(c)
	if x.headLength > len(m.in) {
		m.growTo(x.headLength)
	}
	m.end = copy(m.in, b[:x.headLength])
	m.head, m.headLength = x.head, m.end
	c.options = from.options
	m.begin()
	m.endpoint = x.endpoint
	m.standing = x.standing // whatever an earlier copy in this memory was
	m.requestID, m.body = append(m.ownRequestID[:0], x.requestID...), nil
	m.span = tracing.Span{} // the copy is not a part of the answer
	m.service, m.actions = to.Service, to.Actions
	m.decideFor(m.service)
	m.target, m.stripped = append(m.target, x.target...), x.stripped
	m.authorized, m.user, m.deadline = slices.Clone(x.authorized), x.user, x.deadline
	if to.Group != nil {
		m.query.Group = to.Group.ID()
	}
	if a := to.Service.Affinity; a != nil {
		m.query.Hash = m.affinity(a, m.service.Pool.Snapshot().All, m.in[:m.end])
	}
	return m
}

// add adds a piece of the body, and starts the copy after the last one. It returns m, or nil
// if m is started or dropped.
func (m *mirrored) add(p transfer.Piece) *mirrored {
	if int64(len(m.body))+p.Length > m.mirror.BodyBytes {
		m.drop(route.DroppedBodyTooLong)
		return nil
	}
	if m.body = append(m.body, p.Text...); p.Last {
		m.start()
		return nil
	}
	return m
}

// start sends the copy. The client's connection must be open still, so that Shutdown waits.
func (m *mirrored) start() {
	m.complete()
	m.sender.server.copies.Add(1)
	go m.run()
}

// drop releases a copy that is not sent.
func (m *mirrored) drop(why route.Dropped) {
	m.complete()
	m.mirror.Copies.Drop(why)
	m.release()
}

// complete notes that no more of the body is awaited.
func (m *mirrored) complete() {
	if m.incomplete {
		m.incomplete = false
		m.mirror.Copies.Incomplete.Give(m.uploader, 1)
	}
}

func (m *mirrored) release() {
	m.close()
	m.body, m.mirror = nil, nil
	copies.Put(m)
}

// run makes one attempt.
func (m *mirrored) run() {
	defer m.sender.server.copies.Done()
	defer panics.Contain(panics.Mirror, m.fail)
	t, err := m.service.Pool.PickMirror(m.query)
	if err != nil {
		m.drop(route.DroppedNoPeer)
		return
	}
	m.downstream = mirrorDownstream{left: maxMirrorAnswer, until: time.Now().Add(m.service.Timeouts.ResponseHeader + m.service.Timeouts.Idle)}
	o := m.tryOn(t)
	status, answered := m.result(o)
	m.mirror.Copies.End(m.sender.Shard, status, cmp.Or(o.Latency, time.Since(t.Picked())), answered)
	m.release()
}

// tryOn makes the attempt.
func (m *mirrored) tryOn(t balancer.Token) (o balancer.Outcome) {
	o.Class = balancer.OutcomeLocal // if it panics
	defer func() { t.Done(o) }()
	return m.Try(t)
}

// result returns the status for metrics after the outcome of the attempt.
func (m *mirrored) result(o balancer.Outcome) (status int, answered bool) {
	switch {
	case o.Class == balancer.OutcomeOK, o.Class == balancer.OutcomeServerError:
		return o.Status, true
	case m.lastRefusal != nil:
		return m.lastRefusal.Status, false
	case o.Class == balancer.OutcomeTimeout:
		return refusal.Timeout.Status, false
	}
	return refusal.Reset.Status, false
}

// maxMirrorAnswer bounds the bytes of an answer that are read so that its connection can be
// used again.
const maxMirrorAnswer = 1 << 20

// errAnswerDropped ends the reading of an answer that is long, or takes long.
var errAnswerDropped = errors.New("the rest of the answer is not needed")

// A mirrorDownstream takes the answer to a copy, and drops it.
type mirrorDownstream struct {
	left  int64     // bytes to read
	until time.Time // when to read no more
}

func (f *mirrorDownstream) begin()                          {}
func (f *mirrorDownstream) keepsOpen() bool                 { return true }
func (f *mirrorDownstream) closeAfterAnswer()               {}
func (f *mirrorDownstream) appendHead(out, _ []byte) []byte { return out }
func (f *mirrorDownstream) writeAnswer(_, _ []byte) error   { return nil }
func (f *mirrorDownstream) waited() bool                    { return false }
func (f *mirrorDownstream) isWhole(int64) bool              { return false }
func (f *mirrorDownstream) cut(int64)                       {}
func (f *mirrorDownstream) tunnel(*socket.Tunnel) (socket.TunnelEnd, []byte) { // a copy asks for no upgrade
	return socket.TunnelEnd{}, nil
}
func (f *mirrorDownstream) IsGone() bool                                  { return false }
func (f *mirrorDownstream) TakesCoded() bool                              { return true }
func (f *mirrorDownstream) SinkSocket() (socket.Side, *socket.Pace)       { return socket.Side{}, nil }
func (f *mirrorDownstream) SourceSocket() (socket.Side, *transfer.Reader) { return socket.Side{}, nil }
func (f *mirrorDownstream) ReadBody(*socket.Buffers, bool) (transfer.Piece, error) {
	return transfer.Piece{Last: true}, nil
} // a copy has its body

// WriteBody implements sink.
func (f *mirrorDownstream) WriteBody(b *socket.Buffers, p transfer.Piece) error {
	b.Out = b.Out[:0]
	if f.left -= p.Length; !p.Last && (f.left < 0 || time.Now().After(f.until)) {
		return errAnswerDropped
	}
	return nil
}

// copiesGrace is how long copies may go on when nothing else is left to wait for.
const copiesGrace = time.Second

// awaitCopies waits for the copies in flight, for copiesGrace or until ctx ends. Then it cuts
// them. No connection of a client is open.
func (s *Server) awaitCopies(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer panics.Contain(panics.Task, nil)
		s.copies.Wait()
	}()
	ctx, cancel := context.WithTimeout(ctx, copiesGrace)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
		s.cutPeers()
		<-ended
	}
}
