package balancer

import (
	"time"

	"sluice/discovery"
)

// View is a pool at one moment: what it says of a peer is what picks made of
// it then. It is immutable, but for what the peers count.
type View struct {
	Snapshot *Snapshot
	Peers    []PeerView // those of Snapshot.All, then those of Snapshot.Draining
}

// View returns the present view. It waits for writers and they for it, so it is
// for people and metrics, not for requests.
func (p *Pool) View() View {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.snapshot.Load()
	v := View{s, make([]PeerView, 0, len(s.All)+len(s.Draining))}
	for _, peers := range [][]*Peer{s.All, s.Draining} {
		for _, peer := range peers {
			v.Peers = append(v.Peers, PeerView{peer, peer.condition.Load(), !peer.isQuiesced()})
		}
	}
	return v
}

// PeerView is a peer in a [View]. What its methods say fits together, which the
// same of [Peer] need not, one after the other.
type PeerView struct {
	Peer      *Peer // for what never changes, and what is counted
	condition *condition
	used      bool
}

// Instance is as Peer.Instance.
func (v PeerView) Instance() discovery.Instance { return v.condition.instance }

// Weight is as Peer.Weight.
func (v PeerView) Weight() int { return v.condition.weight() }

// State is as Peer.State.
func (v PeerView) State() State { return v.condition.state() }

// Since is as Peer.Since.
func (v PeerView) Since() time.Time { return v.condition.since }

// Reasons is as Peer.Reasons.
func (v PeerView) Reasons() []string { return v.condition.against() }

// Used is as Peer.Used.
func (v PeerView) Used() bool { return v.used }
