package balancer

import (
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Sizes of a maglev table: primes, as each peer's permutation of the slots
// requires, and the sizes of the paper.
const (
	maglevSize      = 65537
	largeMaglevSize = 655373
	// smallMaglevPeers is the capacity of the smaller table: 16 slots per peer.
	smallMaglevPeers = 4096
)

// maglev assigns hash values to peers in proportion to their weights. When a peer joins
// or leaves, hardly any other value moves. It is the table of Google's load balancer
// (D. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
// NSDI 2016, section 3.4).
//
// It depends on addresses and weights only, so replicas with the same peers have the
// same table. It is immutable.
type maglev struct {
	addresses []string
	weights   []int
	seeds     []uint64 // a hash of each address
	slots     []uint32 // indices of addresses
}

// newMaglev returns a table for at least one address. Replicas agree if they pass
// addresses in the same order.
func newMaglev(addresses []string, weights []int) *maglev {
	size := uint64(maglevSize)
	if len(addresses) > smallMaglevPeers {
		size = largeMaglevSize
	}
	m := &maglev{addresses: addresses, weights: weights, seeds: make([]uint64, len(addresses)), slots: make([]uint32, size)}
	const free = ^uint32(0)
	for i := range m.slots {
		m.slots[i] = free
	}
	type preference struct{ slot, skip uint64 }
	preferences := make([]preference, len(addresses))
	for i, address := range addresses {
		h := xxhash.Sum64String(address)
		m.seeds[i] = h
		preferences[i] = preference{slot: h % size, skip: mix(h)%(size-1) + 1}
	}
	order := maglevOrder(weights)
	for n := range m.slots {
		i := order[n%len(order)]
		p := &preferences[i]
		for m.slots[p.slot] != free {
			p.slot = (p.slot + p.skip) % size
		}
		m.slots[p.slot] = i
	}
	return m
}

// maglevOrder returns the order in which peers take slots, in proportion to weights.
func maglevOrder(weights []int) []uint32 {
	candidates := make([]candidate, len(weights))
	for i, w := range weights {
		candidates[i].weight = w
	}
	return newSchedule(turns(candidates))
}

func (m *maglev) is(addresses []string, weights []int) bool {
	return slices.Equal(m.weights, weights) && slices.Equal(m.addresses, addresses)
}

func (m *maglev) at(hash uint64) uint32 {
	if len(m.slots) == maglevSize {
		return m.slots[hash%maglevSize] // a constant divisor compiles to a multiplication
	}
	return m.slots[hash%largeMaglevSize]
}

// mix is the finalizer of Murmur3 in the variant of D. Stafford ("Better Bit Mixing",
// mix 13).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// maglevs are the tables of a snapshot. The next snapshot reuses them while only health
// has changed, since a table takes milliseconds to build.
type maglevs struct{ before, made []*maglev }

func (t *maglevs) next() maglevs { return maglevs{before: t.made} }

func (t *maglevs) get(addresses []string, weights []int) *maglev {
	i := slices.IndexFunc(t.before, func(m *maglev) bool { return m.is(addresses, weights) })
	var m *maglev
	if i >= 0 {
		m = t.before[i]
	} else {
		m = newMaglev(addresses, weights)
	}
	t.made = append(t.made, m)
	return m
}
