package places

import (
	"hash/maphash"
	"sync/atomic"
)

// Shares bound how much clients have of something that nobody waits for, such as memory. They
// count with a fixed number of counters, which the blocks have by a hash that nobody can
// foresee: the blocks of one counter share one share. They are safe for concurrent use, without
// locks.
type Shares struct {
	seed   maphash.Seed
	all    atomic.Int64
	blocks [4096]atomic.Int64
}

// clientsPerAll is how many shares are all: so many clients can use up everything.
const clientsPerAll = 8

// NewShares returns Shares of which nothing is taken.
func NewShares() *Shares { return &Shares{seed: maphash.MakeSeed()} }

// Take takes n for a client, and reports whether it could: all clients together have at most
// all, and each an eighth of it or 1, except Many. After true the caller must call Give with the
// same block and, in all, the same n.
func (s *Shares) Take(b Block, n, all int64) bool { return s.TakeWhole(b, n, all, 1) }

// TakeWhole is Take of something whose smallest part is least: each client may have that.
func (s *Shares) TakeWhole(b Block, n, all, least int64) bool {
	if s.all.Add(n) > all {
		s.all.Add(-n)
		return false
	}
	if b == Many {
		return true
	}
	if taken := s.of(b); taken.Add(n) > max(all/clientsPerAll, least) {
		taken.Add(-n)
		s.all.Add(-n)
		return false
	}
	return true
}

// Give gives n of a client back.
func (s *Shares) Give(b Block, n int64) {
	if b != Many {
		s.of(b).Add(-n)
	}
	s.all.Add(-n)
}

// of returns the counter of a block.
func (s *Shares) of(b Block) *atomic.Int64 {
	address := b.first.As16()
	return &s.blocks[maphash.Bytes(s.seed, address[:])%uint64(len(s.blocks))]
}

// Taken returns how much all have.
func (s *Shares) Taken() int64 { return s.all.Load() }

// TakenBy returns how much a client, and all that share its counter, have.
func (s *Shares) TakenBy(b Block) int64 { return s.of(b).Load() }
