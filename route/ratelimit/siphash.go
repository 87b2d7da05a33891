package ratelimit

import (
	"encoding/binary"
	"math/bits"
)

// A Seed is the secret of the hashes of keys. Who does not know it can neither find two keys with
// the same hash nor the key of a hash.
type Seed [16]byte

// hash returns the SipHash-2-4 of a key: a function with a key of its own, made for tables of what
// strangers choose (Aumasson and Bernstein, 2012). hash/maphash differs in each process.
func (s *Seed) hash(key []byte) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(s[:8]), binary.LittleEndian.Uint64(s[8:])
	h := sipState{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	last := uint64(len(key)) << 56
	for ; len(key) >= 8; key = key[8:] {
		h.add(binary.LittleEndian.Uint64(key))
	}
	for i, c := range key {
		last |= uint64(c) << (8 * i)
	}
	h.add(last)
	h.v2 ^= 0xff
	for range 4 {
		h.round()
	}
	return h.v0 ^ h.v1 ^ h.v2 ^ h.v3
}

type sipState struct{ v0, v1, v2, v3 uint64 }

func (h *sipState) add(m uint64) {
	h.v3 ^= m
	h.round()
	h.round()
	h.v0 ^= m
}

func (h *sipState) round() {
	h.v0 += h.v1
	h.v1 = bits.RotateLeft64(h.v1, 13) ^ h.v0
	h.v0 = bits.RotateLeft64(h.v0, 32)
	h.v2 += h.v3
	h.v3 = bits.RotateLeft64(h.v3, 16) ^ h.v2
	h.v0 += h.v3
	h.v3 = bits.RotateLeft64(h.v3, 21) ^ h.v0
	h.v2 += h.v1
	h.v1 = bits.RotateLeft64(h.v1, 17) ^ h.v2
	h.v2 = bits.RotateLeft64(h.v2, 32)
}
