package balancer

import "errors"

// Errors of [Pool.Pick].
var (
	// ErrNoPeers: the pool is empty.
	ErrNoPeers = errors.New("no peers")
	// ErrNoEligible: every peer has a reason against it.
	ErrNoEligible = errors.New("no eligible peer")
	// ErrAllTried: every eligible peer is in Query.Tried.
	ErrAllTried = errors.New("all eligible peers tried")
)

// Query is the input of a pick. The zero value asks for any eligible peer.
type Query struct {
	// Hash identifies the requests that [PolicyHash] sends to one peer; 0 is none.
	// With [PolicySticky] it is the StickyID of the session's peer; 0 is none.
	Hash uint64
	// Tried are the peers that already had this request. None of them is picked.
	Tried TriedSet

	random source // the pool's
	first  bool   // the request is the first in the pool's queue
}

const maxTried = 4

// TriedSet is a set of up to four peers. The zero value is empty.
type TriedSet struct {
	peers [maxTried]*Peer
	added int
}

// Add adds p. A fifth peer replaces the oldest.
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
