package proxy

import (
	"context"
	"sync/atomic"
	"time"

	"sluice/balancer"
	"sluice/http1"
)

// patience returns how long the first peer is waited for alone; 0 is for ever.
// Only what can be sent twice without a thought is hedged: requests that read,
// without a body.
func (x *httpExchange) patience() time.Duration {
	hedge := x.service.Retry.Hedge
	if hedge == nil || x.tries > 0 || x.streaming || x.head.HasBody() ||
		x.head.Method != http1.MethodGet && x.head.Method != http1.MethodHead {
		return 0
	}
	return hedge.Delay(x.client.server.sweeper.now(), x.service.Pool.Requests())
}

// waiting implements exchange.
func (x *httpExchange) waiting() bool { return x.pending != nil && !x.suspects }

// await implements exchange.
func (x *httpExchange) await(balancer.Token) balancer.Outcome {
	u := x.pending
	x.pending = nil
	n, err := u.read(x.from[:])
	return x.receiveFirst(u, n, err)
}

// receiveFirst goes on with the peer that was asked first.
func (x *httpExchange) receiveFirst(u *upstreamConn, n int, err error) balancer.Outcome {
	if n > 0 {
		return x.receive(u, n)
	}
	u.transport.discard(u)
	o, _ := x.sendFailed(u, err)
	return o
}

// race implements exchange.
func (x *httpExchange) race(first, second balancer.Token) (firstOutcome, secondOutcome balancer.Outcome) {
	u := x.pending
	x.pending = nil
	x.tries++
	r := newRival(x, second)
	go r.run()

	type answer struct {
		n   int
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		n, err := u.read(x.from[:])
		answers <- answer{n, err}
	}()

	select {
	case a := <-answers:
		if a.n > 0 {
			r.drop()
			return x.receive(u, a.n), balancer.Outcome{Class: balancer.OutcomeSuperseded, Latency: time.Since(r.picked)}
		}
		firstOutcome = x.receiveFirst(u, a.n, a.err)
		<-r.done
		return firstOutcome, r.receive()
	case <-r.done:
		if r.err != nil {
			secondOutcome = r.receive()
			a := <-answers
			x.token = first
			return x.receiveFirst(u, a.n, a.err), secondOutcome
		}
		u.interrupt()
		<-answers
		u.transport.discard(u)
		firstOutcome = balancer.Outcome{Class: balancer.OutcomeSuperseded, Latency: time.Since(x.picked)}
		return firstOutcome, r.receive()
	}
}

// A rival asks a second peer, in a goroutine of its own, for what a first one
// has been asked for.
type rival struct {
	x      *httpExchange
	token  balancer.Token
	picked time.Time
	ctx    context.Context // ends when the rival is dropped
	cancel context.CancelFunc
	up     atomic.Pointer[upstreamConn]
	buffer *buffer // the first bytes of the response

	// To be read after done.
	n           int
	err         error
	dialed      bool
	connectTime time.Duration
	done        chan struct{}
}

func newRival(x *httpExchange, t balancer.Token) *rival {
	r := &rival{
		x: x, token: t, picked: t.Picked(),
		buffer: relayBuffers.Get().(*buffer), done: make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(x.client.server.ctx)
	return r
}

// run sends the request, as it stands in x.out, and reads the start of the
// response. A connection that proves stale is replaced by a new one, once.
func (r *rival) run() {
	defer close(r.done)
	x, transport := r.x, r.token.Peer.Transport.(*Transport)
	u := transport.acquire(r.picked)
	for {
		if r.dialed = u == nil; r.dialed {
			if u, r.err = transport.dial(r.ctx, r.picked, x.service.Timeouts.Connect, x.client.shard); r.err != nil {
				return
			}
			r.connectTime = time.Since(r.picked)
		}
		r.up.Store(u)
		if r.ctx.Err() != nil { // dropped before it could be interrupted
			u.interrupt()
		}
		x.watchClient(u)
		u.patience, u.leavable = 0, false
		u.arm(u.transport.sweeper, x.tryTimeout())
		r.n, _, r.err = u.roundTrip(x.out, nil, r.buffer.bytes[:responseBufferBytes])
		if r.err == nil || r.dialed || r.ctx.Err() != nil {
			return
		}
		r.up.Store(nil)
		transport.discard(u)
		u = nil
	}
}

// drop ends the rival, whatever it is at.
func (r *rival) drop() {
	r.cancel()
	if u := r.up.Load(); u != nil {
		u.interrupt()
	}
	<-r.done
	if u := r.up.Load(); u != nil {
		u.transport.discard(u)
	}
	relayBuffers.Put(r.buffer)
}

// receive makes the rival's peer the exchange's and goes on with it. run has
// ended.
func (r *rival) receive() balancer.Outcome {
	defer r.cancel()
	defer relayBuffers.Put(r.buffer)
	x, u := r.x, r.up.Load()
	x.token, x.picked, x.connectTime = r.token, r.picked, r.connectTime
	switch {
	case u == nil:
		return x.dialFailed(r.err)
	case r.err != nil:
		u.transport.discard(u)
		o, _ := x.sendFailed(u, r.err)
		return o
	}
	return x.receive(u, copy(x.from[:], r.buffer.bytes[:r.n]))
}
