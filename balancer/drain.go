package balancer

import (
	"fmt"
	"time"
)

// leave takes a peer out of the set and starts its drain.
func (p *Pool) leave(peer *Peer) {
	delete(p.peers, peer.ID)
	p.draining[peer.ID] = peer
	p.change(peer, func(c *condition) { c.leaving = true })
	peer.departures++
	departure, timeout := peer.departures, p.options.DrainTimeout
	peer.cutTimer = time.AfterFunc(timeout, func() { p.cut(peer, departure, timeout) })
	p.note(peer, EventRemoved, "")
}

// idle hears that a quiesced peer may have no request in flight any more. It
// takes mu.
func (p *Pool) idle(peer *Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle(peer)
	p.flush()
}

// settle ends the drain of those peers that have no request in flight.
func (p *Pool) settle(peers ...*Peer) {
	retired := false
	for _, peer := range peers {
		if !peer.idle() {
			continue
		}
		c := peer.condition.Load()
		switch {
		case c.leaving && p.draining[peer.ID] == peer:
			p.retire(peer, EventDrained, "")
			retired = true
		case !c.leaving && c.reasons&ReasonDrain != 0 && !peer.drained:
			peer.drained = true
			p.note(peer, EventDrained, "")
		}
	}
	if retired {
		p.forgetRetired()
	}
}

// cut ends a drain that takes too long. departure tells it from a later one of
// the same peer. It takes mu.
func (p *Pool) cut(peer *Peer, departure int32, timeout time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining[peer.ID] != peer || peer.departures != departure {
		return // it drained or returned just before
	}
	p.retire(peer, EventCut, fmt.Sprintf("%d in flight after %s", peer.Inflight(), timeout))
	p.forgetRetired()
	p.flush()
}

// retire ends a peer's time in the pool.
func (p *Pool) retire(peer *Peer, kind EventKind, detail string) {
	delete(p.draining, peer.ID)
	peer.cutTimer.Stop()
	if peer.Transport != nil {
		peer.Transport.Close()
	}
	p.note(peer, kind, detail)
}

// forgetRetired stores a snapshot without the peers that were retired.
func (p *Pool) forgetRetired() {
	p.store(p.snapshot.Load().withDraining(sorted(p.draining)))
	p.endIfDrained()
}

// endIfDrained closes p.drained if the pool is closed and nothing drains.
func (p *Pool) endIfDrained() {
	if !p.closed || len(p.draining) > 0 {
		return
	}
	select {
	case <-p.drained:
	default:
		close(p.drained)
	}
}
