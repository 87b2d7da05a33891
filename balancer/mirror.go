package balancer

// PickMirror is [Pool.Pick] for a copy of a request, whose answer nobody waits for. It
// picks from q.Group only, which may be gone by then, among the peers that are below the limits; a
// service at Limits.Requests or in maintenance gets no copy, nor does a tier without room for
// CriticalitySheddable.
//
// A copy takes nothing from requests: it counts in none of the Limits, neither for nor
// against the retry budget, takes no turn of round robin, and does not count as an attempt
// on a group or of its client. It does count for the peer: its requests in
// flight, outcomes, latency and passive health are true, whoever finds out.
func (p *Pool) PickMirror(q Query) (Token, error) {
	q.random = p.random
	now := nanotime()
	s := p.snapshot.Load()
	if p.Maintenance.Load() != nil {
		return Token{}, ErrNoEligible
	}
	if s.terms.counted && p.Admission.inflight.Load() >= int64(s.terms.Requests) {
		return Token{}, ErrSaturated
	}
	part := s.part(q.Group)
	if q.Group != 0 && part.Group == nil {
		return Token{}, ErrNoPeers
	}
	for range maxTried {
		peer := part.picker.pick(q, now, &p.copyCursor)
		if peer == nil || q.full.has(peer) {
			break
		}
		if a := s.terms.adaptive; a != nil && !a.tiers[peer.tier.Load()].hasRoom(CriticalitySheddable) {
			q.full.add(peer)
			continue
		}
		if peer.acquireCopy(s.terms.perPeer) {
			t := Token{Peer: peer, start: now, marks: marks{held: countsCopy}}
			if s.terms.witnessed {
				t = s.mark(t, &q)
			}
			return t, nil
		}
		q.Tried.Add(peer)
	}
	if q.full != 0 {
		return Token{}, ErrOverload
	}
	if q.Tried.Len() > 0 {
		return Token{}, limitErrors[s.terms.perPeerKind]
	}
	return Token{}, part.refusal()
}

// acquireCopy counts a copy in flight; false if the peer is quiesced or, with all of its
// copies, at its limit.
func (p *Peer) acquireCopy(limit int) bool {
	if p.load.Add(1+oneCopy)&inflightMask <= int64(limit) {
		return true
	}
	p.releaseCopy()
	return false
}

// releaseCopy undoes acquireCopy.
func (p *Peer) releaseCopy() {
	if p.load.Add(-1-oneCopy) == quiesced {
		p.pool.onIdle(p)
	}
}
