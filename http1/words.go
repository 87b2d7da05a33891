package http1

import "encoding/binary"

// Most octets of a head stand in values and targets, and nearly all of them are
// beyond doubt. So they are looked at eight at a time ("SIMD within a register"):
// a word is eight octets, and marks are the highest bits of those of them that
// something is true of.
const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// marksBelow marks octets that are less than n, which is at most 128. To
// subtract n borrows from the highest bit of an octet that is less. Where a
// borrow goes on, an octet above a marked one may be marked in error.
func marksBelow(word, n uint64) uint64 { return (word - n*ones) &^ word & highs }

// marksOf marks octets that are c, in the same way.
func marksOf(word, c uint64) uint64 { return marksBelow(word^c*ones, 1) }

// isValue reports whether b may stand in a field value: consistsOf(b, charValue).
func isValue(b []byte) bool {
	if len(b) < 8 {
		return consistsOf(b, charValue)
	}
	for i := 0; ; i += 8 {
		i = min(i, len(b)-8) // the last word overlaps the one before
		word := binary.LittleEndian.Uint64(b[i:])
		// A tab is allowed, and rare.
		if marksBelow(word, ' ')|marksOf(word, 0x7f) != 0 && !consistsOf(b[i:i+8], charValue) {
			return false
		}
		if i == len(b)-8 {
			return true
		}
	}
}

// isTarget reports whether b may stand in a request target: consistsOf(b, charTarget).
func isTarget(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		word := binary.LittleEndian.Uint64(b)
		if marksBelow(word, ' '+1)|marksOf(word, 0x7f)|marksOf(word, '#') != 0 {
			return false
		}
	}
	return consistsOf(b, charTarget)
}
