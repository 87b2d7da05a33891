package ratelimit

import (
	"sync/atomic"
	"time"
)

// Round is the time between two exchanges of counts with the other replicas.
const Round = time.Second

// Fleet is this process among the replicas that keep limits together.
type Fleet struct{ standing atomic.Pointer[Standing] }

// Standing is what a process knows of the fleet.
type Standing struct {
	Seed     Seed // of the hashes of keys: replicas exchange counts only if they have the same
	Replicas int  // that are known, with this one: at least 1
	Seen     int  // of them, those that exchange counts with this one, with itself: at least 1
}

// NewFleet returns the fleet of one replica.
func NewFleet(seed Seed) *Fleet {
	f := new(Fleet)
	f.Set(Standing{Seed: seed, Replicas: 1, Seen: 1})
	return f
}

// Standing returns what is known.
func (f *Fleet) Standing() Standing { return *f.standing.Load() }

// Set replaces what is known. With another seed all keys get full buckets.
func (f *Fleet) Set(s Standing) { f.standing.Store(&s) }

// Part returns which part of a limit this replica and those that it sees have together. The rest is
// for those that it does not see, which have it whether they see each other or not.
func (s *Standing) Part() float64 { return float64(s.Seen) / float64(s.Replicas) }

// floor returns the least share of a key that this replica has, of its part.
func (s *Standing) floor() float64 {
	if s.Seen == 1 {
		return 1
	}
	return 1 / float64(2*s.Seen)
}
