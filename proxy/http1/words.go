package http1

import "encoding/binary"

// Values and targets are checked eight bytes at a time ("SIMD within a register"):
// a mark is the highest bit of a byte of the word.
const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// marksBelow marks bytes below n, which is at most 128. A borrow may mark a byte above
// a marked one in error.
func marksBelow(word, n uint64) uint64 { return (word - n*ones) &^ word & highs }

// marksOf marks bytes equal to c, with the same error.
func marksOf(word, c uint64) uint64 { return marksBelow(word^c*ones, 1) }

// endsOf returns the first and the last eight bytes of b, which overlap if there are fewer than
// sixteen. Of fewer than eight, both words together have all.
func endsOf(b []byte) (first, last uint64) {
	switch n := len(b); {
	case n >= 8:
		return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:]))
	}
	for _, c := range b {
		first = first<<8 | uint64(c)
	}
	return first, 0
}

// caseOf returns the bits in which upper-case letters differ from the lower-case ones of word.
func caseOf(word uint64) uint64 {
	low := word &^ highs
	return ((low + (0x80-'a')*ones) &^ (low + (0x80-'z'-1)*ones) &^ word & highs) >> 2
}

// IsValue reports whether b is allowed in a field value: consistsOf(b, charValue).
func IsValue(b []byte) bool {
	if len(b) < 8 {
		return consistsOf(b, charValue)
	}
	for i := 0; ; i += 8 {
		i = min(i, len(b)-8) // the last word overlaps the one before
		word := binary.LittleEndian.Uint64(b[i:])
		// Tabs are allowed, and rare.
		if marksBelow(word, ' ')|marksOf(word, 0x7f) != 0 && !consistsOf(b[i:i+8], charValue) {
			return false
		}
		if i == len(b)-8 {
			return true
		}
	}
}

// isTarget reports whether b is allowed in a request target: consistsOf(b, charTarget).
func isTarget(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		word := binary.LittleEndian.Uint64(b)
		if marksBelow(word, ' '+1)|marksOf(word, 0x7f)|marksOf(word, '#') != 0 {
			return false
		}
	}
	return consistsOf(b, charTarget)
}
