package balancer

import (
	"fmt"
	"time"

	"sluice/observe/panics"
)

// leaveLocked takes a peer out of the set. It drains; see limitDrainLocked.
func (p *Pool) leaveLocked(peer *Peer) {
	delete(p.peers, peer.ID)
	p.draining[peer.ID] = peer
	p.changeLocked(peer, func(c *condition) { c.leaving = true })
	p.notices.queue(peer, EventRemoved, "")
}

// limitDrainLocked cuts the requests of a peer that leaves after Options.DrainTimeout.
func (p *Pool) limitDrainLocked(peer *Peer) {
	peer.departures++
	departure, timeout := peer.departures, p.options.DrainTimeout
	peer.cutTimer = time.AfterFunc(timeout, func() {
		defer panics.Contain(panics.Task, nil)
		p.cut(peer, departure, timeout)
	})
}

// onIdle is called when a quiesced peer may have no request in flight any more.
func (p *Pool) onIdle(peer *Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finishDrainsLocked(peer)
	p.notices.flush()
}

// finishDrainsLocked ends the drain of the peers that have no request in flight.
func (p *Pool) finishDrainsLocked(peers ...*Peer) {
	retired := false
	for _, peer := range peers {
		if !peer.load.idle() {
			continue
		}
		c := peer.condition.Load()
		switch {
		case c.leaving && p.draining[peer.ID] == peer:
			p.retireLocked(peer, EventDrained, "")
			retired = true
		case !c.leaving && c.reasons&ReasonDrain != 0 && !peer.drained:
			peer.drained = true
			p.notices.queue(peer, EventDrained, "")
		}
	}
	if retired {
		p.publishDrainingLocked()
	}
}

// cut ends a drain at its timeout. departure identifies the drain: the peer may have
// returned and left again.
func (p *Pool) cut(peer *Peer, departure uint16, timeout time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining[peer.ID] != peer || peer.departures != departure {
		return // it drained or returned just before
	}
	p.retireLocked(peer, EventCut, fmt.Sprintf("its drain took too long, %d in flight after %s", peer.Inflight(), timeout))
	p.publishDrainingLocked()
	p.notices.flush()
}

func (p *Pool) retireLocked(peer *Peer, kind EventKind, detail string) {
	delete(p.draining, peer.ID)
	if peer.cutTimer != nil { // else the pool has been retired, and limits no drain yet
		peer.cutTimer.Stop()
	}
	if peer.Transport != nil {
		peer.Transport.Close()
	}
	p.notices.queue(peer, kind, detail)
	if p.witness != nil {
		p.witness.Retired(peer, kind == EventCut)
	}
}

// publishDrainingLocked stores a snapshot without the retired peers.
func (p *Pool) publishDrainingLocked() {
	p.snapshot.replace(p.snapshot.Load().withDraining(sorted(p.draining)))
	p.signalDrainedLocked()
}

func (p *Pool) signalDrainedLocked() {
	if !p.closed || p.retired != nil || len(p.draining) > 0 {
		return
	}
	select {
	case <-p.drained:
	default:
		close(p.drained)
		if p.witness != nil {
			p.witness.Closed()
		}
	}
}

// Close removes every peer, for good. Requests in flight go on until they are done or
// Options.DrainTimeout ends; see Drained.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.retired != nil:
		p.retired.Stop()
		p.retired = nil
	case p.closed:
		return
	default:
		p.leaveAllLocked()
	}
	if p.witness != nil {
		p.witness.Changing()
		defer p.witness.Applied(nil, nanotime())
	}
	for _, peer := range sorted(p.draining) {
		if peer.cutTimer == nil { // else it has left before
			p.limitDrainLocked(peer)
		}
	}
	p.publishLocked()
	p.signalDrainedLocked()
}

// Retire is Close for a pool that routes have used until now. A request that was matched to it may
// have no peer yet, because its body arrives, or others are asked whether it may pass: until late
// has passed, Pick gives it a peer as before, although all of them drain. Close ends that time.
func (p *Pool) Retire(late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.leaveAllLocked()
	p.retired = time.AfterFunc(late, func() {
		defer panics.Contain(panics.Task, nil)
		p.Close()
	})
	p.snapshot.replace(p.snapshot.Load().retired(sorted(p.draining)))
	p.notices.flush()
}

// leaveAllLocked closes the pool for sets. Its peers leave.
func (p *Pool) leaveAllLocked() {
	p.closed, p.options.OneLeader = true, false // who leaves from now on has not been demoted
	for _, peer := range sorted(p.peers) {
		p.leaveLocked(peer)
	}
	p.set = nil
}

// Drained returns a channel that is closed when the pool and all its transports are
// closed.
func (p *Pool) Drained() <-chan struct{} { return p.drained }
