package balancer

import (
	"fmt"
	"time"

	"sluice/discovery"
)

// leave takes a peer out of the set and starts its drain.
func (p *Pool) leave(i discovery.Instance) {
	id := i.Key()
	peer := p.peers[id]
	delete(p.peers, id)
	p.draining[id] = peer
	p.change(peer, func(c *condition) { c.leaving = true })
	peer.departures++
	departure := peer.departures
	peer.cutTimer = time.AfterFunc(p.options.DrainTimeout, func() { p.cut(peer, departure) })
	p.note(peer, EventRemoved, "")
}

// idle is called when the last request in flight of a closed peer is done.
func (p *Pool) idle(peer *Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle(peer)
	p.flush()
}

// settle ends the drain of a peer if no request is in flight any more.
func (p *Pool) settle(peer *Peer) {
	if peer.load.Load() != closed {
		return
	}
	switch c := peer.condition.Load(); {
	case c.leaving && p.draining[peer.ID] == peer:
		p.retire(peer, EventDrained, "")
	case !c.leaving && c.reasons&ReasonDrain != 0 && !peer.drained:
		peer.drained = true
		p.note(peer, EventDrained, "")
	}
}

// cut ends a drain that takes too long.
func (p *Pool) cut(peer *Peer, departure int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining[peer.ID] != peer || peer.departures != departure {
		return // it drained or returned just now
	}
	p.retire(peer, EventCut, fmt.Sprintf("%d requests in flight", peer.Inflight()))
	p.flush()
}

// retire drops a draining peer and closes its transport.
func (p *Pool) retire(peer *Peer, kind EventKind, detail string) {
	peer.cutTimer.Stop()
	delete(p.draining, peer.ID)
	if peer.Transport != nil {
		peer.Transport.Close()
	}
	p.note(peer, kind, detail)
	prev := p.snapshot.Load()
	next := *prev
	next.Draining = sorted(p.draining)
	next.superseded = make(chan struct{})
	p.store(prev, &next)
	p.endIfDrained()
}

// endIfDrained closes p.drained when the pool is closed and nothing drains.
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
