package balancer

import (
	"slices"
	"time"

	"sluice/discovery"
)

// View is a pool at one moment: snapshot and peers fit together. It is immutable,
// except for the counters of the peers.
type View struct {
	Snapshot *Snapshot
	Peers    []PeerView // Snapshot.All, then Snapshot.Draining
}

// View returns the current view. It locks the pool, so it is for people and metrics,
// not for requests.
func (p *Pool) View() View {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.snapshot.Load()
	v := View{s, make([]PeerView, 0, len(s.All)+len(s.Draining))}
	for _, peer := range slices.Concat(s.All, s.Draining) {
		v.Peers = append(v.Peers, PeerView{peer, peer.condition.Load(), !peer.isQuiesced()})
	}
	return v
}

// PeerView is a peer in a [View]: its methods return what the methods of Peer
// returned at one moment.
type PeerView struct {
	Peer      *Peer // for its identity and counters
	condition *condition
	used      bool
}

func (v PeerView) Instance() discovery.Instance { return v.condition.instance }
func (v PeerView) Weight() int                  { return v.condition.weight() }

func (v PeerView) State() State      { return v.condition.state() }
func (v PeerView) Since() time.Time  { return v.condition.since }
func (v PeerView) Reasons() []string { return v.condition.reasonLines() }
func (v PeerView) Used() bool        { return v.used }
