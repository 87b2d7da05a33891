package fields

import "sluice/proxy/http1"

// What HPACK and QPACK are made of: integers, strings, and static tables.

// readInteger reads an integer with a prefix of that many bits (RFC 7541, section 5.1). It takes at
// most five bytes: every index and every length in a section is smaller.
func readInteger(b []byte, prefix uint8) (value int, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	mask := 1<<prefix - 1
	if value = int(b[0]) & mask; value < mask {
		return value, b[1:], true
	}
	for i := 1; i < len(b) && i <= 4; i++ {
		value += int(b[i]&0x7f) << (7 * (i - 1))
		if b[i]&0x80 == 0 {
			return value, b[i+1:], true
		}
	}
	return 0, nil, false
}

// appendInteger appends an integer with a prefix of that many bits, after the bits of
// first.
func appendInteger(out []byte, first byte, prefix uint8, value int) []byte {
	mask := 1<<prefix - 1
	if value < mask {
		return append(out, first|byte(value))
	}
	out = append(out, first|byte(mask))
	for value -= mask; value >= 0x80; value >>= 7 {
		out = append(out, byte(value)|0x80)
	}
	return append(out, byte(value))
}

// appendString appends the string that begins b (RFC 7541, section 5.2). Its length has a prefix of
// that many bits, behind a bit that says whether it has the Huffman code.
func appendString(out, b []byte, prefix uint8) (text, rest []byte, ok bool) {
	length, rest, ok := readInteger(b, prefix)
	if !ok || length > len(rest) {
		return out, nil, false
	}
	if b[0]>>prefix&1 == 0 {
		return append(out, rest[:length]...), rest[length:], true
	}
	out, ok = appendHuffman(out, rest[:length])
	return out, rest[length:], ok
}

// appendPlain appends b as a string without the Huffman code.
func appendPlain(out, b []byte) []byte {
	return append(appendInteger(out, 0, 7, len(b)), b...)
}

// appendLowerCase appends b in lower case.
func appendLowerCase(out, b []byte) []byte {
	for _, c := range b {
		out = append(out, http1.Lower(c))
	}
	return out
}

// A staticField is an entry of a static table.
type staticField struct{ name, value string }

// namesOf returns the names of the entries of a static table.
func namesOf(table []staticField) []name {
	names := make([]name, len(table))
	for i := range table {
		names[i], _ = classify([]byte(table[i].name))
	}
	return names
}

// A nameIndex has the names of a static table by their length, without pseudo-header fields.
type nameIndex [len("access-control-allow-credentials") + 1][]indexedName

type indexedName struct {
	name  string
	index int
}

func indexOf(table []staticField) (names nameIndex) {
	for i := range table {
		n := table[i].name
		if n != "" && n[0] != ':' && names.find([]byte(n)) == 0 {
			names[len(n)] = append(names[len(n)], indexedName{n, i})
		}
	}
	return names
}

// find returns the first index of a name, ignoring case; 0: there is none.
func (n *nameIndex) find(name []byte) int {
	if len(name) < len(n) {
		for i := range n[len(name)] {
			if known := &n[len(name)][i]; http1.EqualFold(name, known.name) {
				return known.index
			}
		}
	}
	return 0
}
