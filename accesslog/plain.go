package accesslog

import (
	"encoding/binary"
	"unsafe"
)

// plainOctet marks the octets that stand for themselves in a quoted string of
// either format: printable ASCII without the quote and the backslash.
var plainOctet = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// plainPrefix returns how many octets at the start of s are plain.
func plainPrefix(s []byte) int {
	n := 0
	for n+8 <= len(s) && eightPlain(binary.LittleEndian.Uint64(s[n:])) {
		n += 8
	}
	for n < len(s) && plainOctet[s[n]] {
		n++
	}
	return n
}

// eightPlain reports whether all octets of x are plain. Borrows and carries
// begin only at an octet that is not, so they cannot make the answer wrong.
func eightPlain(x uint64) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	quote, backslash := x^ones*'"', x^ones*'\\'
	// An octet's top bit is set in x-ones*n if it is below n, in x+ones if it
	// is 0x7f, and in x if it is above.
	odd := (x - ones*' ') | (quote - ones) | (backslash - ones) | (x + ones) | x
	return odd&tops == 0
}

// octets returns the octets of s, which must not be changed, without a copy.
func octets(s string) []byte {
	return unsafe.Slice(unsafe.StringData(s), len(s))
}
