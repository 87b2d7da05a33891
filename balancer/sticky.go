package balancer

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
)

// sticky sends a request that names a peer to that peer as long as it is
// eligible, in whichever tier, and leaves all other requests to another picker. If
// the tier came first, a session would leave a peer whose tier gets a part of the
// requests, or none any more, though nothing is wrong with it.
type sticky struct {
	named map[uint64]*Peer // eligible peers by Peer.StickyID
	other picker
}

func newSticky(eligible []*Peer, other picker) picker {
	s := &sticky{named: make(map[uint64]*Peer, len(eligible)), other: other}
	for _, p := range eligible {
		s.named[p.StickyID()] = p
	}
	return s
}

func (s *sticky) pick(q Query, now int64, cursor *atomic.Uint64) *Peer {
	if q.Hash != 0 {
		if p := s.named[q.Hash]; p != nil && !q.Tried.Has(p) {
			return p
		}
		q.Hash = 0 // it belongs to nobody any more
	}
	return s.other.pick(q, now, cursor)
}

// StickyID returns the name of the peer for clients, to be sent back as
// Query.Hash with [PolicySticky]. It is never 0. It tells nothing of the peer to
// those who do not have Options.StickyKey, and is the same in every replica that
// has the same key.
func (p *Peer) StickyID() uint64 { return p.stickyID.Load() }

// name gives the peer its StickyID.
func (p *Peer) name(key string) {
	mac := hmac.New(sha256.New, []byte(key))
	for _, part := range []string{p.ID.Service, p.ID.ID, p.ID.Address, p.ID.Machine} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		mac.Write(length[:])
		mac.Write([]byte(part))
	}
	p.stickyID.Store(max(1, binary.BigEndian.Uint64(mac.Sum(nil))))
}

func (p *Pool) stickyKey() string { return cmp.Or(p.options.StickyKey, p.name) }
