package balancer

import (
	"errors"
	"slices"
	"time"

	"sluice/route/places"
)

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
	// Own is picked if it is eligible: the client has a connection of its own to it. nil: none.
	Own *Peer
	// Tried are the peers that already had this request. None of them is picked.
	Tried TriedSet
	// Resort: if all eligible peers were tried, one may be picked that only active checks or an
	// ejection take out of use, unless Options.PanicThreshold is 0. They may be wrong, or late.
	Resort bool
	// Block is the client of a retry, which has a share of the reserve where the retry budget is
	// used up. The zero one, places.Many, has none.
	Block places.Block
	// Waited is how long the request has waited for a peer, in whichever pool. A pick does not look
	// at it.
	Waited time.Duration

	random source // the pool's
	// Group is where to pick; 0 is the whole pool.
	Group GroupID
	// Fallback is picked from where Group has no eligible peer that is not in Tried; 0
	// is none.
	Fallback GroupID
	// Client identifies the client that a split has assigned to Group, and how, for
	// [Group.OnDone]; 0 if none has.
	Client uint32
	// Tries is how many tries the request has had that are no reason to try their peers again; a
	// Witness compares it with Tried, a pick does not look at it.
	Tries uint8
	// Criticality says whether the request is among the first that are refused in an overload.
	Criticality Criticality
	// Refused: a limit has refused a peer to the request before, which goes on with the one that it
	// has, and asks again. Such a refusal is counted once.
	Refused bool
	first   bool // the request is the first in its line of the pool's queue
	full    fullTiers
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
	return slices.Contains(s.peers[:s.Len()], p)
}

// Remove removes p.
func (s *TriedSet) Remove(p *Peer) {
	if i := slices.Index(s.Peers(), p); i >= 0 {
		s.added = len(slices.Delete(s.Peers(), i, i+1))
	}
}

// Peers returns the peers in the set.
func (s *TriedSet) Peers() []*Peer { return s.peers[:s.Len()] }

// Len returns the number of peers in the set.
func (s *TriedSet) Len() int { return min(s.added, maxTried) }
