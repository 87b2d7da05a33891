package balancer

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Subset makes a pool use some of its peers only, so that many replicas in front of
// many peers do not each keep connections to all ("Load Balancing in the Datacenter" in
// B. Beyer et al., "Site Reliability Engineering", O'Reilly 2016).
//
// All replicas place the peers on the same circle, by a hash of the address. The
// replicas start at points of equal distance, and each uses the next Size eligible
// peers. So the numbers of replicas that use two peers differ by at most one. One peer
// more or less changes at most two peers of a subset. The algorithm of the book can
// change whole subsets (P. Ward, P. Wankadia, K. Guliani,
// "Reinventing Backend Subsetting at Google", ACM Queue 20(2), 2022).
type Subset struct {
	// Size is the number of peers to use. 0: all.
	Size int `key:"size" default:"0" min:"0" max:"100000"`
	// Replica is the number of this replica, from 0 to Replicas-1. In a configuration -1 stands for
	// the number at the end of the host name.
	Replica int `key:"replica" default:"-1" min:"-1" max:"100000"`
	// Replicas is the number of replicas; required with Size.
	Replicas int `key:"replicas" default:"0" min:"0" max:"100000"`
}

// of returns the peers to use, in the order of all.
func (s *Subset) of(t tierPeers) []*Peer {
	if s.Size == 0 || len(t.eligible) <= s.Size {
		return t.eligible
	}
	circle := slices.Clone(t.all)
	place := make(map[*Peer]uint64, len(circle))
	for _, p := range circle {
		place[p] = mix(xxhash.Sum64String(p.ID.Address))
	}
	slices.SortFunc(circle, func(a, b *Peer) int {
		return cmp.Or(cmp.Compare(place[a], place[b]), comparePeers(a, b))
	})
	eligible := make(map[*Peer]bool, len(t.eligible))
	for _, p := range t.eligible {
		eligible[p] = true
	}
	start := s.Replica * len(circle) / s.Replicas
	subset := make([]*Peer, 0, s.Size)
	for i := 0; len(subset) < s.Size; i++ {
		if p := circle[(start+i)%len(circle)]; eligible[p] {
			subset = append(subset, p)
		}
	}
	slices.SortFunc(subset, comparePeers)
	return subset
}
