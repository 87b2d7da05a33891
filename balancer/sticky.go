package balancer

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"

	"sluice/discovery"
)

// sticky sends a request of a session to the session's peer while it is eligible, in
// whichever tier, and other requests to another picker. Tiers come second, or a session
// would lose a healthy peer when the share of its tier changes.
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
		if p := s.named[q.Hash]; p != nil && !q.Tried.Has(p) && !q.full.has(p) {
			return p
		}
		q.Hash = 0
	}
	return s.other.pick(q, now, cursor)
}

// StickyID returns the peer's name for clients, to be sent back as Query.Hash with
// [PolicySticky]. It is never 0, reveals nothing without Options.StickyKey, and is the
// same in replicas with the same key.
func (p *Peer) StickyID() uint64 { return p.stickyID.Load() }

// stickyIDOf returns the StickyID of a peer in replicas with this key.
func stickyIDOf(id discovery.Key, key string) uint64 {
	mac := hmac.New(sha256.New, []byte(key))
	for _, part := range []string{id.Service, id.ID, id.Address, id.Machine} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		mac.Write(length[:])
		mac.Write([]byte(part))
	}
	return max(1, binary.BigEndian.Uint64(mac.Sum(nil)))
}

func (o *Options) stickyKey(pool string) string { return cmp.Or(o.StickyKey.Reveal(), pool) }
