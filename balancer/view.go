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

// View returns the current view, without shares. It locks the pool, so it is for people and
// metrics, not for requests.
func (p *Pool) View() View {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.snapshot.Load()
	p.lately.note(s.All, time.Now())
	return p.viewLocked(s, nil)
}

// ViewWithShares returns the current view. What View has noted until then tells which part of
// the requests each peer gets.
func (p *Pool) ViewWithShares() View {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, now := p.snapshot.Load(), time.Now()
	p.lately.note(s.All, now)
	return p.viewLocked(s, p.sharesLocked(s, now))
}

func (p *Pool) viewLocked(s *Snapshot, shares map[*Peer]Share) View {
	v := View{s, make([]PeerView, 0, len(s.All)+len(s.Draining))}
	for _, peer := range slices.Concat(s.All, s.Draining) {
		share, known := shares[peer]
		if !known {
			share.Is = -1
		}
		v.Peers = append(v.Peers, PeerView{peer, peer.condition.Load(), !peer.isQuiesced(), share})
	}
	return v
}

// PeerView is a peer in a [View]: its methods return what the methods of Peer
// returned at one moment.
type PeerView struct {
	Peer      *Peer // for its identity and counters
	condition *condition
	used      bool
	share     Share
}

func (v PeerView) Instance() discovery.Instance { return v.condition.instance }
func (v PeerView) Weight() int                  { return v.condition.weight() }

func (v PeerView) State() State      { return v.condition.state() }
func (v PeerView) Since() time.Time  { return v.condition.since }
func (v PeerView) Reasons() []string { return v.condition.reasonLines() }
func (v PeerView) Used() bool        { return v.used }

// Share returns which part of the requests the peer should get and gets.
func (v PeerView) Share() Share { return v.share }
