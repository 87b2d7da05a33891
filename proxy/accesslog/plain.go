package accesslog

import (
	"encoding/binary"
	"unsafe"
)

// plainOctet marks the characters that need no escape in any format: printable ASCII
// without quote and backslash.
var plainOctet = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// plainPrefix returns the number of plain characters at the start of s.
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

// eightPlain reports whether all bytes of x are plain. Borrows and carries start only
// at a byte that is not, so they cannot change the result.
func eightPlain(x uint64) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	quote, backslash := x^ones*'"', x^ones*'\\'
	// The top bit of a byte is set in x-ones*n if it is below n, in x+ones if it is
	// 0x7f, and in x if it is above.
	odd := (x - ones*' ') | (quote - ones) | (backslash - ones) | (x + ones) | x
	return odd&tops == 0
}

// octets returns the bytes of s without a copy. They must not be changed.
func octets(s string) []byte {
	return unsafe.Slice(unsafe.StringData(s), len(s))
}
