package attempt

import "sluice/balancer"

// held has the tokens of [Run] that have no outcome yet: at most two contenders, and one that
// takes the place of another. So each gets one, also if the exchange panics.
type held [3]balancer.Token

func (h *held) take(t balancer.Token) {
	for i := range h {
		if h[i].Peer == nil {
			h[i] = t
			return
		}
	}
}

// done reports the outcome of t.
func (h *held) done(t balancer.Token, o balancer.Outcome) {
	for i := range h {
		if h[i] == t {
			h[i].Peer = nil
			break
		}
	}
	t.Done(o)
}

// release gives the remaining tokens back. That is no failure of their peers.
func (h *held) release() {
	for i := range h {
		if t := &h[i]; t.Peer != nil {
			t.Done(balancer.Outcome{Class: balancer.OutcomeLocal})
		}
	}
}
