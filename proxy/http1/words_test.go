package http1

import (
	"math/rand/v2"
	"testing"

	"sluice/test/long"
	"sluice/test/verify"
)

// What looks at eight octets at a time says the same as what looks at one: for
// each octet at each place of each length, and for random ones.
func TestWordsAgreeWithOctets(t *testing.T) {
	long.Sequential(t)
	check := func(b []byte) {
		got, want := IsValue(b), consistsOf(b, charValue)
		verify.Require(t, got == want, "IsValue(%q): got %v", b, got)
		got, want = isTarget(b), consistsOf(b, charTarget)
		verify.Require(t, got == want, "isTarget(%q): got %v", b, got)
	}
	for length := range 34 {
		for at := range length {
			for c := range 256 {
				for _, filler := range []byte{'a', '!', '~', 0x80, 0xff} {
					b := make([]byte, length)
					for i := range b {
						b[i] = filler
					}
					b[at] = byte(c)
					check(b)
				}
			}
		}
	}
	check(nil)
	// Names that are known, with each octet at each place.
	for length := range namesByLength {
		for _, known := range namesByLength[length] {
			for at := range length {
				for c := range 256 {
					name := []byte(known.lower)
					name[at] = byte(c)
					first, last := endsOf(name)
					got, want := known.is(name, first, last), EqualFold(name, known.lower)
					verify.Require(t, got == want, "%q is %q: got %v", name, known.lower, got)
				}
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 1))
	for range 100_000 {
		b := make([]byte, random.IntN(40))
		for i := range b {
			// Near the bounds of the sets, where a borrow could do harm.
			b[i] = []byte{'\t', 0x1f, ' ', '!', '"', '#', '$', 0x7e, 0x7f, 0x80, 0xff, 0, 'a', 'a', 'a', 'a'}[random.IntN(16)]
			if random.IntN(2) == 0 {
				b[i] = 'a'
			}
		}
		check(b)
	}
}
