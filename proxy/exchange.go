package proxy

import (
	"context"
	"time"

	"sluice/balancer"
	"sluice/proxy/attempt"
	"sluice/proxy/grpc"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/route/places"
)

// An exchange is a request and its response, between a downstream and upstreams: a value of five
// parts. A part knows those before it, and nothing of those after it:
//
//	request → chosenRoute → requestBody → tries → answer
//
// What needs them all is a function of the exchange. It implements [attempt.Exchange].
type exchange struct {
	serving    bool // begin was called, and finish was not
	retargeted bool // the wait for the first peer ended because another target had one

	answer  answer
	tries   tries
	body    requestBody
	route   chosenRoute
	request request // the last one, since most of it has no pointers: the garbage collector does not scan it
}

func newExchange() *exchange {
	x := new(exchange)
	x.link()
	return x
}

// link lets the parts of a new exchange know those before them.
func (x *exchange) link() {
	request, route, body := &x.request, &x.route, &x.body
	route.request, route.sent, route.actions = request, sentFields{request, route}, noActions
	body.request, body.route, body.upload.body = request, route, body
	x.tries.request, x.tries.route, x.tries.body = request, route, body
	x.answer.request, x.answer.route, x.answer.body, x.answer.tries = request, route, body, &x.tries
}

// begin starts the clock of another request, of which nothing is known yet but its head and the
// part of its body that is in the buffer, and decides who has sent it and whom to believe.
func (x *exchange) begin() {
	x.request.client.downstream.begin()
	x.serving, x.retargeted = true, false
	x.request.startTime, x.request.deadline, x.request.steps = time.Now(), time.Time{}, route.Steps{}
	if x.request.deadlineFirst.Load() { // cheaper than a store
		x.request.deadlineFirst.Store(false)
	}
	x.request.decide()
	x.request.chooseRequestID()
	x.request.beginTrace()

	x.route.matched, x.route.divided, x.route.way, x.route.splitter, x.route.service, x.route.actions = nil, nil, nil, nil, nil, noActions
	x.route.unprepare()
	x.route.targetChosen = false
	x.route.query, x.route.newClient, x.route.charged = balancer.Query{}, 0, x.route.charged[:0]

	x.body.upload.reset()
	start := x.request.start + x.request.headLength
	x.body.bytes, x.body.bytesIn = x.request.in[start:start+x.request.bodyLength], int64(x.request.bodyLength)

	x.tries.token, x.tries.attempts, x.tries.lastRefusal = balancer.Token{}, attempt.Loop{}, nil
	x.tries.tried.count = 0 // the peers of the last exchange stay in memory until close
	x.tries.upstreamTime, x.tries.touched, x.tries.mayReplaySent = 0, false, x.request.head.Method.Idempotent()

	x.answer.status, x.answer.bytesOut, x.answer.grpcCode = 0, 0, grpc.Unset
	x.answer.refused, x.answer.interrupted = "", ""
	x.answer.begun, x.answer.answered, x.answer.counted = false, false, false
}

// close releases what the exchange holds.
func (x *exchange) close() {
	x.body.dropBody()
	x.request.client, x.route.matched, x.route.divided, x.route.way, x.route.splitter = nil, nil, nil, nil, nil
	x.route.service, x.route.actions, x.tries.token = nil, noActions, balancer.Token{}
	clear(x.route.charged[:cap(x.route.charged)])
	x.request.routing, x.request.requestID, x.tries.held, x.tries.attempts = nil, nil, nil, attempt.Loop{}
	x.tries.tried = triedPeers{}
	x.request.dropLarge()
	x.body.buffers.GiveBack()
	x.route.query = balancer.Query{}
}

// Try implements [attempt.Exchange].
func (x *exchange) Try(t balancer.Token) balancer.Outcome {
	x.body.buffers.GiveBack() // to open a connection may take long
	x.tries.beginTry(t)
	u, o := x.tries.send(t.Peer.Transport.(upstream.Connector))
	if u != nil {
		o = x.answer.receive(u)
	}
	return x.tries.endTry(o)
}

// Started implements [attempt.Exchange].
func (x *exchange) Started() bool { return x.answer.begun }

// Replayable implements [attempt.Exchange].
func (x *exchange) Replayable() bool { return x.tries.replayable() }

// Block implements [attempt.Exchange].
func (x *exchange) Block() places.Block { return x.request.block() }

// Waiting implements [attempt.Exchange]. The wait for the first peer also ends when another target
// has one: forward goes there.
func (x *exchange) Waiting(timeout time.Duration) (context.Context, context.CancelFunc) {
	var other func() bool
	if x.tries.attempts.Tries == 0 && (x.route.divided != nil || x.route.splitter != nil) {
		other = func() bool {
			x.retargeted = x.route.hasOther()
			return x.retargeted
		}
	}
	return x.tries.waitingUnless(timeout, other)
}
