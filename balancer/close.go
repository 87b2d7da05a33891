package balancer

import (
	"time"

	"sluice/observe/panics"
)

// Close removes every peer, for good. Requests in flight go on until they are done or
// Options.DrainTimeout ends; see Drained.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var leaving []*Peer
	switch {
	case p.retired != nil:
		leaving = p.retired.peers
		p.retired.timer.Stop()
		p.retired = nil
	case p.closed:
		return
	default:
		leaving = p.leaveAllLocked()
	}
	if p.witness != nil {
		p.witness.Changing()
		defer p.witness.Applied(nil, nanotime())
	}
	for _, peer := range leaving {
		p.limitDrainLocked(peer)
	}
	p.publishLocked()
	p.signalDrainedLocked()
}

// retirement is the time in which a closed pool still gives its peers.
type retirement struct {
	peers []*Peer
	timer *time.Timer
}

// Retire is Close for a pool that routes have used until now. A request that was matched to it may have no peer yet, because
// its body arrives, or others are asked whether it may pass: until late has passed, Pick gives it a peer as before, although all
// of them drain. Close ends that time.
func (p *Pool) Retire(late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.retired = &retirement{p.leaveAllLocked(), time.AfterFunc(late, func() {
		defer panics.Contain(panics.Task, nil)
		p.Close()
	})}
	p.storeLocked(p.snapshot.Load().retired(sorted(p.draining)))
	p.flushLocked()
}

// leaveAllLocked closes the pool for sets, and returns its peers, which leave.
func (p *Pool) leaveAllLocked() []*Peer {
	p.closed = true
	leaving := sorted(p.peers)
	for _, peer := range leaving {
		p.leaveLocked(peer)
	}
	p.set = nil
	return leaving
}

// Drained returns a channel that is closed when the pool and all its transports are
// closed.
func (p *Pool) Drained() <-chan struct{} { return p.drained }
