package fields

// Huffman decoding (RFC 7541, section 5.2). A table of ten bits gives the codes of most
// text; longer ones are found by their length, since the code is canonical.

const (
	huffmanTableBits = 10
	huffmanMinBits   = 5
	huffmanMaxBits   = 30 // of EOS, which must not occur
)

var (
	huffmanTable   [1 << huffmanTableBits]uint16 // symbol<<8 | bits; 0: a longer code
	huffmanFirst   [huffmanMaxBits + 1]uint32    // the first code of a length
	huffmanSymbols [huffmanMaxBits + 1][]byte    // the symbols of a length, in the order of their codes
)

func init() {
	code := uint32(0)
	for bits := uint8(huffmanMinBits); bits <= huffmanMaxBits; bits++ {
		code <<= 1
		huffmanFirst[bits] = code
		for symbol := range huffmanCodeBits {
			if huffmanCodeBits[symbol] != bits {
				continue
			}
			huffmanSymbols[bits] = append(huffmanSymbols[bits], byte(symbol))
			if bits <= huffmanTableBits {
				free := huffmanTableBits - bits
				for i := range uint32(1) << free {
					huffmanTable[code<<free+i] = uint16(symbol)<<8 | uint16(bits)
				}
			}
			code++
		}
	}
}

// appendHuffman appends the decoded src. It reports false for an invalid code or
// padding.
func appendHuffman(out, src []byte) ([]byte, bool) {
	var word uint64
	bits := 0 // in word, at its low end
	for {
		for bits <= 56 && len(src) > 0 {
			word = word<<8 | uint64(src[0])
			src = src[1:]
			bits += 8
		}
		if bits == 0 {
			return out, true
		}
		index := word << (huffmanTableBits - min(bits, huffmanTableBits)) // zeros after the last bits
		if bits > huffmanTableBits {
			index = word >> (bits - huffmanTableBits)
		}
		entry := huffmanTable[index&(1<<huffmanTableBits-1)]
		if length := int(entry & 0xff); entry != 0 && length <= bits {
			out = append(out, byte(entry>>8))
			bits -= length
			continue
		}
		if bits < 8 { // padding: the start of EOS, which is all ones
			ones := uint64(1)<<bits - 1
			return out, word&ones == ones
		}
		symbol, length, ok := longCode(word, bits)
		if !ok {
			return out, false
		}
		out = append(out, symbol)
		bits -= length
	}
}

// longCode returns the symbol of the code that begins word, whose low bits are valid.
func longCode(word uint64, bits int) (symbol byte, length int, ok bool) {
	for length = huffmanTableBits + 1; length <= min(bits, huffmanMaxBits); length++ {
		code := uint32(word >> (bits - length) & (1<<length - 1))
		if i := code - huffmanFirst[length]; i < uint32(len(huffmanSymbols[length])) {
			return huffmanSymbols[length][i], length, true
		}
	}
	return 0, 0, false
}

// huffmanCodeBits is the length in bits of the Huffman code of each byte (RFC 7541, appendix B).
// The code is canonical: the codes follow from the lengths.
var huffmanCodeBits = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}
