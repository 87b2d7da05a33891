package proxy

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/panics"
	"sluice/proxy/attempt"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
)

// patience returns the wait for the first peer before a hedge; 0: no hedge. An upgrade opens
// a session, of which there must not be two, and only one peer has the session of a sticky cookie.
func (x *sentRequest) patience() time.Duration {
	if x.streaming || x.upgrade || x.onOwnConnection() || x.head.HasBody() || x.head.Method != http1.MethodGet && x.head.Method != http1.MethodHead {
		return 0
	}
	if x.query.Hash != 0 && x.query.Hash == x.token.Peer.StickyID() {
		return 0
	}
	return attempt.Patience(x.service, x.tries, x.client.server.sweeper.Now())
}

// onOwnConnection reports whether the request belongs on the connection on which its client has
// authenticated itself, or does so. A peer that is asked on another one does not know the client.
func (x *sentRequest) onOwnConnection() bool { return x.head.ConnectionAuth || x.client.HasOwned }

// leavable reports whether the exchange may move to another peer when the health
// checks of its peer begin to fail.
func (x *sentRequest) leavable() bool {
	return x.mayReplaySent && !x.streaming && !x.onOwnConnection() && attempt.MayLeave(x.service, x.tries)
}

// until returns what ends a wait for a peer, for every kind of try.
func (x *sentRequest) until() upstream.Until {
	return upstream.Until{Patience: x.patience(), Suspicion: x.leavable()}
}

// A contender is a peer that was asked, and whose answer the exchange waits for together
// with the answers of others, or with a reason to leave it. While Await waits, the goroutine of
// run owns all fields but the request's.
type contender struct {
	x         *sentRequest
	token     balancer.Token
	ctx       context.Context // ends when the contender is left
	cancel    context.CancelFunc
	suspected bool          // Await has said so
	waiting   bool          // run runs
	woke      chan struct{} // gets a value when run returns

	// The request; not used by Try.
	head     []byte
	headErr  error // of writing head
	required upstream.Requirements
	timing   tryTiming

	socket.Buffers
	until       upstream.Until
	up          upstream.Conn // nil: there is no connection
	sent        bool          // the request was sent on up
	connectTime time.Duration
	err         error             // of the wait
	denial      *discovery.Denial // why the mesh has ended it; nil: it has not
}

func newContender(x *sentRequest, t balancer.Token) *contender {
	c := &contender{x: x, token: t, woke: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(x.client.server.ctx)
	x.contenders = append(x.contenders, c)
	return c
}

// unanswered makes u, the upstream of the last try, a contender.
func (x *sentRequest) unanswered(u upstream.Conn) {
	c := newContender(x, x.token)
	c.up, c.sent, c.connectTime, c.timing = u, true, x.connectTime, x.timing
	x.held = nil
}

// Ask implements [attempt.Racer].
func (x *sentRequest) Ask(t balancer.Token) {
	x.beginTry(t)
	c := newContender(x, t)
	c.required = x.requirements(t.Picked())
	c.timing = x.tryTiming()
	c.headErr = x.writeRequestHead(&x.Buffers, t.Peer)
	c.head = bytes.Clone(x.Out)
	x.GiveBack()
	x.tries++
}

// Await implements [attempt.Racer].
func (x *sentRequest) Await(changed <-chan struct{}) (balancer.Token, attempt.Result) {
	for _, c := range x.contenders {
		if c.waiting {
			continue
		}
		if c.until = x.until(); c.suspected {
			c.until = upstream.Until{Changed: changed}
		}
		c.waiting = true
		go c.run()
	}
	c := x.firstAwake()
	c.waiting = false
	if c.up != nil && x.staysWith(c.token.Peer, c.up, &c.timing, c.err) {
		return x.Await(changed)
	}
	switch x.wakeOf(c.err) {
	case wakeAnswer:
		return c.token, attempt.Result{Kind: attempt.Answered}
	case wakeSuspicion:
		c.suspected = true
		return c.token, attempt.Result{Kind: attempt.Suspected}
	}
	x.follow(c)
	var o balancer.Outcome
	switch {
	case c.err == errPanicked:
		o.Class, x.lastRefusal = balancer.OutcomeLocal, refusal.Internal
	case c.up == nil && c.headErr == nil:
		o = x.connectFailed(c.err, c)
	default:
		o, _ = x.sendFailed(c.up, c.err, c)
	}
	c.end()
	return c.token, attempt.Ended(x.endTry(c.token, o))
}

// firstAwake waits until run of a contender returns. There are at most two.
func (x *sentRequest) firstAwake() *contender {
	first := x.contenders[0]
	if len(x.contenders) == 1 {
		<-first.woke
		return first
	}
	second := x.contenders[1]
	select {
	case <-first.woke:
		return first
	case <-second.woke:
		return second
	}
}

// contender returns the contender of a token.
func (x *sentRequest) contender(t balancer.Token) *contender {
	return x.contenders[slices.IndexFunc(x.contenders, func(c *contender) bool { return c.token.Peer == t.Peer })]
}

// follow makes the contender's peer the peer of the exchange.
func (x *sentRequest) follow(c *contender) {
	x.token, x.picked, x.connectTime = c.token, c.token.Picked(), c.connectTime
	x.upstreamTime, x.upstreamStatus, x.lastRefusal = 0, 0, nil
}

// Leave implements [attempt.Racer].
func (x *sentRequest) Leave(t balancer.Token) balancer.Outcome {
	c := x.contender(t)
	c.abandon()
	o := balancer.Outcome{Class: balancer.OutcomeSuperseded, Latency: time.Since(t.Picked())}
	return x.endTry(t, o)
}

// end releases what the contender holds.
func (c *contender) end() {
	c.cancel()
	if c.up != nil {
		c.up.Finish(false)
	}
	c.GiveBack()
	c.leaveList()
}

// leaveList removes the contender from the exchange's list.
func (c *contender) leaveList() {
	x := c.x
	x.contenders = slices.DeleteFunc(x.contenders, func(other *contender) bool { return other == c })
}

// run sends the request, if it was not sent, and waits for a response. It also asks why there is none: that may take a
// moment, in which another contender may answer.
func (c *contender) run() {
	defer func() { c.woke <- struct{}{} }()
	defer panics.Contain(panics.Exchange, func() { c.err = errPanicked })
	if c.err = c.wait(); c.err == nil {
		return
	}
	if c.GiveBack(); c.err != upstream.ErrSuspected {
		c.denial = denial(c.token, c.err, c.whileWanted)
	}
}

// whileWanted is [sentRequest.Waiting] for the wait of a contender, and its context also ends when the contender is left.
func (c *contender) whileWanted(timeout time.Duration) (context.Context, context.CancelFunc) {
	x := c.x
	ctx, cancel := context.WithTimeout(c.ctx, timeout)
	r := upstream.Requirements{Client: &x.client.Client, Deadline: x.deadline, KeepForGone: x.client.options.KeepForGoneClients}
	ctx, end := r.WhileThere(ctx)
	return ctx, func() {
		end()
		cancel()
	}
}

// abandonContenders gives back what the contenders of an exchange that has panicked hold.
func (x *sentRequest) abandonContenders() {
	for _, c := range slices.Clone(x.contenders) {
		c.abandon()
	}
}

// abandon ends the wait for the contender, and the contender.
func (c *contender) abandon() {
	if c.waiting {
		c.cancel()
		<-c.woke
	}
	c.end()
}

// wait is run, and returns why it ends. It replaces a stale connection by a new one.
func (c *contender) wait() error {
	for c.headErr == nil {
		if !c.sent {
			stale := c.up
			c.up = nil // connect takes it
			u, connectTime, err := c.token.Peer.Transport.(upstream.Connector).Connect(c.ctx, c.required, stale)
			if err != nil {
				return err
			}
			c.up, c.connectTime = u, connectTime
		}
		stop := context.AfterFunc(c.ctx, c.up.Interrupt)
		err := c.waitOn(c.up)
		if !stop() || err == nil || err == upstream.ErrSuspected || errors.Is(err, os.ErrDeadlineExceeded) { // the last: nobody has closed it
			return err
		}
		if stale, _ := c.up.ClosedIdle(err); !stale || len(c.head) == 0 {
			return err
		}
		c.sent = false
	}
	return c.headErr
}

func (c *contender) waitOn(u upstream.Conn) error {
	if c.sent {
		return u.Await(&c.Buffers, c.until)
	}
	c.Borrow()
	c.Out = append(c.Out[:0], c.head...)
	u.WaitAtMost(c.timing.left(c.x.client.server.sweeper))
	c.sent = true
	_, err := u.Send(&c.Buffers, c.x.body, c.x.bodyTrailer, c.until)
	return err
}
