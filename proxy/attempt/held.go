package attempt

import "sluice/balancer"

// held has the tokens of [Run] that have no outcome yet: at most two contenders, and one that
// takes the place of another. So each gets one, also if the exchange panics.
type held struct {
	tokens   [3]balancer.Token
	exchange Exchange
}

func (h *held) take(t balancer.Token) {
	for i := range h.tokens {
		if h.tokens[i].Peer == nil {
			h.tokens[i] = t
			return
		}
	}
}

// done reports the outcome of t. Once a peer answers, its token is the only one.
func (h *held) done(t balancer.Token, o balancer.Outcome) {
	for i := range h.tokens {
		if h.tokens[i] == t {
			h.tokens[i].Peer = nil
			break
		}
	}
	o.Answered = h.exchange.Answered()
	t.Done(o)
}

// release gives the remaining tokens back. That is no failure of their peers.
func (h *held) release() {
	for i := range h.tokens {
		if t := &h.tokens[i]; t.Peer != nil {
			t.Done(balancer.Outcome{Class: balancer.OutcomeLocal, Details: balancer.Details{Answered: h.exchange.Answered()}})
		}
	}
}
