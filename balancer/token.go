package balancer

// Token is a request's hold on the peer that was picked for it. It is a value
// and may be copied; Done must be called exactly once for all copies.
type Token struct {
	// Peer is the peer to use.
	Peer *Peer

	start int64 // by nanotime
}

// Done reports how the attempt went and ends the request's hold on the peer,
// whose transport may be closed from then on. It is called when the whole
// exchange has ended, for a stream when it ends. It takes no lock, unless it
// ends the last request of a peer that drains.
func (t Token) Done(o Outcome) {
	p := t.Peer
	p.outcomes[o.Class].Add(1)
	p.release()
}
