package proxy

import (
	"context"
	"time"

	"sluice/balancer"
	"sluice/proxy/attempt"
	"sluice/proxy/http1"
)

// patience returns the wait for the first peer before a hedge; 0: no hedge.
func (x *httpExchange) patience() time.Duration {
	if x.streaming || x.head.HasBody() || x.head.Method != http1.MethodGet && x.head.Method != http1.MethodHead {
		return 0
	}
	return attempt.Patience(x.service, x.tries, x.client.server.sweeper.now())
}

// leavable reports whether the exchange may move to another peer when the health
// checks of its peer begin to fail.
func (x *httpExchange) leavable() bool {
	return x.mayReplaySent && !x.streaming && attempt.MayLeave(x.service, x.tries)
}

// Await implements [attempt.Racer].
func (x *httpExchange) Await() balancer.Outcome {
	u, t := x.takeUnanswered(), x.token
	o := x.receiveFirst(u, u.await(&x.buffers))
	x.endTry(t, o)
	return o
}

// Leave implements [attempt.Racer].
func (x *httpExchange) Leave() balancer.Outcome {
	x.takeUnanswered().finish(false)
	o := x.superseded(x.picked)
	x.endTry(x.token, o)
	return o
}

// takeUnanswered returns the connection of the last try, which waits for a response.
func (x *httpExchange) takeUnanswered() upstream {
	u := x.unanswered
	x.unanswered = nil
	return u
}

// superseded returns the outcome of a try that another peer replaced.
func (x *httpExchange) superseded(picked time.Time) balancer.Outcome {
	return balancer.Outcome{Class: balancer.OutcomeSuperseded, Latency: time.Since(picked)}
}

// receiveFirst continues with the first peer.
func (x *httpExchange) receiveFirst(u upstream, err error) balancer.Outcome {
	if err == nil {
		return x.receive(u)
	}
	u.finish(false)
	o, _ := x.sendFailed(u, err)
	return o
}

// Race implements [attempt.Racer].
func (x *httpExchange) Race(second balancer.Token) (firstOutcome, secondOutcome balancer.Outcome) {
	first := x.token
	x.beginTry(second)
	firstOutcome, secondOutcome = x.race(second)
	x.endTry(first, firstOutcome)
	x.endTry(second, secondOutcome)
	return firstOutcome, secondOutcome
}

func (x *httpExchange) race(second balancer.Token) (firstOutcome, secondOutcome balancer.Outcome) {
	u, first := x.takeUnanswered(), x.token
	r := newRival(x, second)
	go r.run()

	answered := make(chan error, 1)
	go func() { answered <- u.await(&x.buffers) }()

	select {
	case err := <-answered:
		if err == nil {
			r.drop()
			return x.receive(u), x.superseded(r.picked)
		}
		firstOutcome = x.receiveFirst(u, err)
		<-r.done
		return firstOutcome, r.receive()
	case <-r.done:
		if r.err != nil {
			secondOutcome = r.receive()
			err := <-answered
			x.token, x.picked, x.connectTime = first, first.Picked(), 0
			return x.receiveFirst(u, err), secondOutcome
		}
		u.interrupt()
		<-answered
		u.finish(false)
		firstOutcome = x.superseded(x.picked)
		return firstOutcome, r.receive()
	}
}

// A rival sends the request to a second peer, in its own goroutine.
type rival struct {
	x      *httpExchange
	token  balancer.Token
	picked time.Time
	ctx    context.Context // ends when the rival is dropped
	cancel context.CancelFunc
	buffers

	// The result: valid after done is closed.
	up          upstream // nil: connect failed
	err         error
	connectTime time.Duration
	done        chan struct{}
}

func newRival(x *httpExchange, t balancer.Token) *rival {
	r := &rival{x: x, token: t, picked: t.Picked(), done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(x.client.server.ctx)
	return r
}

// run sends the request and waits for a response. It replaces a stale connection by a
// new one.
func (r *rival) run() {
	defer close(r.done)
	x, required := r.x, r.x.requirements(r.picked)
	for {
		if r.up, r.connectTime, r.err = r.token.Peer.Transport.(connector).connect(r.ctx, required, r.up); r.err != nil {
			return
		}
		stop := context.AfterFunc(r.ctx, r.up.interrupt)
		x.writeRequestHead(&r.buffers, r.token.Peer)
		r.up.waitAtMost(x.tryTimeout())
		_, r.err = r.up.send(&r.buffers, nil, 0, false)
		if !stop() || r.err == nil {
			return
		}
		if stale, _ := r.up.closedIdle(r.err); !stale {
			return
		}
	}
}

// drop cancels the rival and waits for run.
func (r *rival) drop() {
	r.cancel()
	<-r.done
	if r.up != nil {
		r.up.finish(false)
	}
	r.giveBack()
	r.x.tries++
}

// receive makes the rival's peer the peer of the exchange and reads its response. It
// is called after run.
func (r *rival) receive() balancer.Outcome {
	defer r.cancel()
	x, u := r.x, r.up
	x.tries++
	x.token, x.picked, x.connectTime = r.token, r.picked, r.connectTime
	x.upstreamTime, x.upstreamStatus = 0, 0
	switch {
	case u == nil:
		return x.connectFailed(r.err)
	case r.err != nil:
		u.finish(false)
		o, _ := x.sendFailed(u, r.err)
		return o
	}
	x.giveBack()
	x.buffers = r.buffers
	return x.receive(u)
}
