package balancer

import (
	"testing"

	"sluice/test/verify"
)

// A request that all eligible peers have failed gets one that only sluice's own verdicts take out
// of use: they may be wrong, or over.
func TestLastResort(t *testing.T) {
	set := instances(4)
	set[3].Status = 2 // critical
	for _, test := range []struct {
		name   string
		change func(o *Options, q *Query)
		judge  func(p *Pool)
		want   bool
	}{
		{name: "a failing peer", want: true},
		{"an ejected one", nil, func(p *Pool) {
			setReason(p, set[0].Key(), ReasonActive, false, "")
			setReason(p, set[0].Key(), ReasonEjected, true, "")
		}, true},
		{name: "nobody asks for it", change: func(_ *Options, q *Query) { q.Resort = false }},
		{name: "another one is left", change: func(_ *Options, q *Query) { q.Tried = TriedSet{} }},
		{name: "sluice believes its checks", change: func(o *Options, _ *Query) { o.PanicThreshold = 0 }},
		{name: "no check has passed yet", change: func(o *Options, _ *Query) { o.MustPassFirst = true }},
		{name: "an operator drains it", judge: func(p *Pool) { setReason(p, set[0].Key(), ReasonDrain, true, "") }},
		{name: "another service has its address", judge: func(p *Pool) {
			p.SetReasons(ReasonActive, Verdict{Peer: peerOf(t, p, set[0]), Down: true, Other: true})
		}},
	} {
		o, q := Options{PanicThreshold: .5, NewTransport: newTestTransport}, Query{Resort: true}
		p := newTestPool(t, o, set...)
		for n := range 3 {
			q.Tried.Add(peerOf(t, p, set[n]))
		}
		q.Tried.Remove(peerOf(t, p, set[0]))
		if test.change != nil {
			tried := q.Tried.Len()
			test.change(&o, &q)
			p.Reconfigure(complete(o))
			if o.MustPassFirst {
				p.Apply(set[1:])
				p.Apply(set)
			}
			verify.That(t, tried == 2, "%d peers tried", tried)
		}
		setReason(p, set[1].Key(), ReasonActive, false, "")
		setReason(p, set[2].Key(), ReasonActive, false, "")
		setReason(p, set[0].Key(), ReasonActive, true, "timed out")
		if test.judge != nil {
			test.judge(p)
		}
		token, err := p.Pick(&q)
		switch {
		case test.want:
			verify.That(t, err == nil && token.Peer == peerOf(t, p, set[0]), "%s: got %v, %v", test.name, token.Peer, err)
			q.Tried.Add(token.Peer)
			_, err = p.Pick(&q)
			verify.Equal(t, err, ErrAllTried, "%s, tried as well", test.name)
			token.Done(Outcome{})
		case q.Tried.Len() == 0:
			verify.That(t, err == nil && token.Peer != peerOf(t, p, set[0]), "%s: got %v, %v", test.name, token.Peer, err)
		default:
			verify.Equal(t, err, ErrAllTried, "%s: %v", test.name, token.Peer)
		}
	}
}

// An attempt on a peer that is out of use counts as any. The peer keeps its transport until the
// end, and gets no more attempts than it may have.
func TestLastResortCounts(t *testing.T) {
	set := instances(2)
	p := newTestPool(t, Options{PanicThreshold: .5, Limits: Limits{PeerRequests: 1}, NewTransport: newTestTransport}, set...)
	failing := peerOf(t, p, set[0])
	setReason(p, failing.ID, ReasonActive, true, "timed out")
	q := Query{Resort: true}
	q.Tried.Add(peerOf(t, p, set[1]))
	token := mustPick(t, p, &q)
	_, err := p.Pick(&q)
	verify.Equal(t, err, ErrAllTried, "beyond the limit")
	p.Apply(set[1:])
	verify.That(t, failing.Inflight() == 1 && transportOf(failing).closes.Load() == 0, "it has left: %d in flight, closed %d times", failing.Inflight(), transportOf(failing).closes.Load())
	token.Done(Outcome{})
	verify.Equal(t, transportOf(failing).closes.Load(), 1, "times closed")
	_, err = p.Pick(&q)
	verify.Equal(t, err, ErrAllTried, "it is gone")
}
