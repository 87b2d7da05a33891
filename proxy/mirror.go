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
	exchange
	sender     client // what peers learn about the client of the request
	downstream mirrorDownstream
	mirror     *route.Mirror
	incomplete bool         // a part of the body is awaited
	uploader   places.Block // that sends it
}

// copies are unused. The sides of the sender never change, because the sweeper may read them late.
var copies = sync.Pool{New: func() any {
	m := new(mirrored)
	m.link()
	m.sender.downstream, m.sender.Presence = &m.downstream, &m.downstream
	return m
}}

// mirror copies the request to the mirror of the route if it is selected. A body that the client
// still sends is copied as it is forwarded: see upload.
func mirror(x *exchange) *refusal.Refusal {
	to := x.route.way.Mirror
	if to == nil || !to.Copies.Select(to.Share) {
		return nil
	}
	length := x.request.head.ContentLength
	if !x.request.streaming {
		length = int64(len(x.body.bytes))
	}
	switch {
	case x.request.identity.trusted && x.request.head.Has(http1.NameXSluiceMirror):
		to.Copies.Skip(route.DroppedMirrored)
	case x.request.upgrade, x.request.head.ConnectionAuth, x.request.streaming && x.request.identity.grpc:
		to.Copies.Skip(route.DroppedProtocol)
	case length > to.BodyBytes:
		to.Copies.Skip(route.DroppedBodyTooLong)
	case to.Copies.Begin(to.InFlight):
		uploader := x.request.block()
		if x.request.streaming && !to.Copies.Incomplete.Take(uploader, 1, to.InFlight) {
			to.Copies.Drop(route.DroppedInFlight)
			return nil
		}
		m := copyHead(x, to, x.request.bytes())
		if x.request.streaming {
			m.incomplete, m.uploader, x.body.upload.copy = true, uploader, m
			return nil
		}
		m.body.bytes = append(m.body.bytes, x.body.bytes...)
		m.start()
	}
	return nil
}

// copyHead returns a copy of the request without its body.
func copyHead(x *exchange, to *route.Mirror, b []byte) *mirrored {
	m, from := copies.Get().(*mirrored), x.request.client
	c := &m.sender
	c.server, c.listener, c.Shard = from.server, from.listener, from.Shard
	c.remote, c.address, c.certificate, c.session, c.version = from.remote, from.address, from.certificate, from.session, from.version
	m.mirror = to
	m.request.open(c)
	if x.request.headLength > len(m.request.in) {
		m.request.growTo(x.request.headLength)
	}
	m.request.end = copy(m.request.in, b[:x.request.headLength])
	m.request.head, m.request.headLength = x.request.head, m.request.end
	c.options = from.options
	m.begin()
	m.request.endpoint = x.request.endpoint
	m.request.identity = x.request.identity // whatever an earlier copy in this memory was
	m.request.requestID, m.body.bytes = append(m.request.ownRequestID[:0], x.request.requestID...), nil
	m.request.span = tracing.Span{} // the copy is not a part of the answer
	m.route.service, m.route.actions = to.Service, to.Actions
	m.route.decideFor(m.route.service)
	m.route.target, m.route.stripped = append(m.route.target, x.route.target...), x.route.stripped
	m.route.authorized, m.route.user, m.request.deadline = slices.Clone(x.route.authorized), x.route.user, x.request.deadline
	if to.Group != nil {
		m.route.query.Group = to.Group.ID()
	}
	if a := to.Service.Affinity; a != nil {
		m.route.query.Hash = affinity(&m.request, a, m.route.service.Pool.Snapshot().All, m.request.in[:m.request.end])
	}
	return m
}

// add adds a piece of the body, and starts the copy after the last one. It returns m, or nil
// if m is started or dropped.
func (m *mirrored) add(p transfer.Piece) *mirrored {
	if int64(len(m.body.bytes))+p.Length > m.mirror.BodyBytes {
		m.drop(route.DroppedBodyTooLong)
		return nil
	}
	if m.body.bytes = append(m.body.bytes, p.Text...); p.Last {
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
	m.body.bytes, m.mirror = nil, nil
	copies.Put(m)
}

// run makes one attempt.
func (m *mirrored) run() {
	defer m.sender.server.copies.Done()
	defer panics.Contain(panics.Mirror, m.fail)
	t, err := m.route.service.Pool.PickMirror(m.route.query)
	if err != nil {
		m.drop(route.DroppedNoPeer)
		return
	}
	m.downstream = mirrorDownstream{left: maxMirrorAnswer, until: time.Now().Add(m.route.service.Timeouts.ResponseHeader + m.route.service.Timeouts.Idle)}
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
	case m.tries.lastRefusal != nil:
		return m.tries.lastRefusal.Status, false
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
	streamSide
	left  int64     // bytes to read
	until time.Time // when to read no more
}

func (f *mirrorDownstream) appendHead(out, _ []byte) []byte { return out }
func (f *mirrorDownstream) writeAnswer(_, _ []byte) error   { return nil }
func (f *mirrorDownstream) waited() bool                    { return false }
func (f *mirrorDownstream) isWhole(int64) bool              { return false }
func (f *mirrorDownstream) tunnel(*socket.Tunnel) (socket.TunnelEnd, []byte) { // a copy asks for no upgrade
	return socket.TunnelEnd{}, nil
}
func (f *mirrorDownstream) IsGone() bool                { return false }
func (f *mirrorDownstream) Parties() (client, peer any) { return nil, nil }
func (f *mirrorDownstream) TakesCoded() bool            { return true }
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
