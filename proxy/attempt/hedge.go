package attempt

import (
	"slices"
	"time"

	"sluice/balancer"
	"sluice/observe/panics"
	"sluice/route"
)

// Patience returns after how long Try returns [Impatient]; 0 is never. tries is
// how many tries there were before. now is coarse time in nanoseconds. Only an
// exchange that reads, and has no body, is hedged: it may be sent twice at a time.
func Patience(service *route.Service, tries int, now int64) time.Duration {
	if service.Retry.Hedge == nil || tries > 0 {
		return 0
	}
	return service.Retry.Hedge.Delay(now, service.Pool.Requests())
}

// MayLeave reports whether Try returns [Suspected] when checks of its peer begin
// to fail: long before a timeout, where the peer hangs. tries is how many tries
// there were before. Only an exchange that may be sent twice leaves its peer.
func MayLeave(service *route.Service, tries int) bool {
	return service.Retry.Attempts > 1 && tries+1 < MaxTries
}

// contend continues after a Try that has returned before its peer, first, has answered: it
// is the one wait for peers that were asked. A contender without an answer in time gets
// company, one whose checks fail is left, each if another peer can be picked; if not, it is
// asked again when the pool has changed or, where the others are full, soon. The first answer ends the wait. The result is the
// outcome of the last contender.
func (r *run) contend(x Racer, first balancer.Token, result Result) balancer.Outcome {
	t, contenders := first, append(make([]balancer.Token, 0, 2), first)
	r.query.Tried.Add(first.Peer)
	defer func() { r.query.Refused = false }()
	for {
		changed := r.service.Pool.Changed()
		switch result.Kind {
		case Impatient, Suspected:
			if r.tries >= MaxTries {
				break
			}
			other, err := r.pickNow()
			r.query.Refused = err != nil && (r.query.Refused || isFull(err))
			if err != nil {
				if result.Kind == Suspected && isFull(err) {
					changed = soon()
				}
				break
			}
			r.held.take(other)
			r.query.Tried.Add(other.Peer)
			if result.Kind == Suspected {
				r.leave(x, []balancer.Token{t})
				contenders = without(contenders, t)
			}
			x.Ask(other)
			r.tries++
			contenders = append(contenders, other)
		case Answered:
			r.leave(x, without(contenders, t))
			o := x.Receive(t)
			r.held.done(t, o)
			return o
		case Done:
			r.held.done(t, result.Outcome)
			contenders = without(contenders, t)
			// The others do no better if the client has gone, for example. But where one is denied, another may be of another service.
			if !retryable(result.Outcome) && result.Outcome.Class != balancer.OutcomeDenied {
				r.leave(x, contenders)
				contenders = nil
			}
			if len(contenders) == 0 {
				return result.Outcome
			}
		}
		t, result = x.Await(changed)
	}
}

// isFull reports whether a pick has failed by a limit, of which no change of the pool tells when it allows more.
func isFull(err error) bool {
	return err != balancer.ErrAllTried && !lacksPeer(err)
}

// soon returns a channel that is closed after a moment.
func soon() <-chan struct{} {
	over := make(chan struct{})
	time.AfterFunc(250*time.Millisecond, func() {
		defer panics.Contain(panics.Exchange, nil)
		close(over)
	})
	return over
}

// leave abandons contenders, which have not failed.
func (r *run) leave(x Racer, contenders []balancer.Token) {
	for _, t := range contenders {
		r.held.done(t, x.Leave(t))
		r.left.Add(t.Peer)
	}
}

// without returns contenders without t.
func without(contenders []balancer.Token, t balancer.Token) []balancer.Token {
	return slices.DeleteFunc(contenders, func(other balancer.Token) bool { return other.Peer == t.Peer })
}
