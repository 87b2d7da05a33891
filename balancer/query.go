package balancer

import "errors"

// Errors of [Pool.Pick].
var (
	// ErrNoPeers: the pool is empty. A first peer may be waited for with
	// [Pool.Changed].
	ErrNoPeers = errors.New("no peers")
	// ErrNoEligible: there are peers, but a reason against each.
	ErrNoEligible = errors.New("no eligible peer")
	// ErrAllTried: every eligible peer is in Query.Tried.
	ErrAllTried = errors.New("all eligible peers tried")
)

// Query is what a pick may take into account. The zero value asks for any
// eligible peer.
type Query struct {
	// Hash is the same for requests that belong together, and evenly spread over
	// others. [PolicyHash] keeps those on one peer. 0: it belongs to no other.
	//
	// With [PolicySticky] it is the Peer.StickyID of the peer that answered what it
	// belongs to. 0, or a number that names no peer, is none.
	Hash uint64
	// Tried are the peers that this request was already sent to: none of them
	// is picked.
	Tried TriedSet

	random source // the pool's
}

// maxTried is how many peers a TriedSet holds.
const maxTried = 4

// TriedSet is a small set of peers, a value without a pointer to memory of
// its own. The zero value is empty.
type TriedSet struct {
	peers [maxTried]*Peer
	added int
}

// Add puts p into the set, which holds four peers: beyond that, p takes the
// place of the one that was added first.
func (s *TriedSet) Add(p *Peer) {
	if !s.Has(p) {
		s.peers[s.added%maxTried] = p
		s.added++
	}
}

// Has reports whether p is in the set.
func (s *TriedSet) Has(p *Peer) bool {
	for _, tried := range s.peers[:s.Len()] {
		if tried == p {
			return true
		}
	}
	return false
}

// Len returns the number of peers in the set.
func (s *TriedSet) Len() int { return min(s.added, maxTried) }
