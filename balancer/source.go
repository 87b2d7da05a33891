package balancer

import (
	"math/bits"
	"math/rand/v2"
)

// source is where random choices come from: Options.Random, or the generator of
// math/rand/v2 if it is nil.
type source func() uint64

func (s source) uint64() uint64 {
	if s == nil {
		return rand.Uint64()
	}
	return s()
}

// below returns a number from 0 to n-1, for n of at least 1. Each is as likely
// as any other but for one part in 2⁶⁴/n.
func (s source) below(n int) int {
	high, _ := bits.Mul64(s.uint64(), uint64(n))
	return int(high)
}
