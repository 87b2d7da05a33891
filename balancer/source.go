package balancer

import (
	"math/bits"
	"math/rand/v2"
)

// source is Options.Random.
type source func() uint64

func (s source) uint64() uint64 {
	if s == nil {
		return rand.Uint64()
	}
	return s()
}

// below returns a uniform number from 0 to n-1, for n of at least 1.
func (s source) below(n int) int {
	high, _ := bits.Mul64(s.uint64(), uint64(n))
	return int(high)
}
