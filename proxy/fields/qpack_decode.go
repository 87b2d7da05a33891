package fields

// The dynamic table has the capacity 0, as is the default of SETTINGS_QPACK_MAX_TABLE_CAPACITY. So
// a section refers to the static table only, waits for no other stream, and is decoded by itself.

// DecodeQPACK decodes a complete field section into f (RFC 9204, section 4.5). maxListBytes is the
// largest field list that it accepts, by the size of SETTINGS_MAX_FIELD_SECTION_SIZE. Of a larger
// one it keeps nothing. After an error f is empty. A malformed field is not an error here: see
// AppendRequest and AppendTrailer.
func (f *Fields) DecodeQPACK(section []byte, maxListBytes int) error {
	f.reset()
	section, ok := cutQPACKPrefix(section)
	for ok && len(section) > 0 {
		if section, ok = f.appendQPACK(section); ok && !f.count(maxListBytes) {
			f.forget()
			return ErrListTooLong
		}
	}
	if !ok {
		f.forget()
		return ErrCompression
	}
	return nil
}

// cutQPACKPrefix returns what follows the prefix of a section (RFC 9204, section 4.5.1). A section
// that needs no insertion may have any Base, which nothing refers to, but no negative one.
func cutQPACKPrefix(section []byte) (rest []byte, ok bool) {
	const negative = 0x80
	insertions, base, ok := readInteger(section, 8)
	if !ok || insertions != 0 {
		return nil, false
	}
	_, rest, ok = readInteger(base, 7)
	return rest, ok && base[0]&negative == 0
}

// appendQPACK appends the field that begins section. What is left is a literal or an index that
// refers to the dynamic table.
func (f *Fields) appendQPACK(section []byte) (rest []byte, ok bool) {
	field := Field{start: uint32(len(f.text))}
	switch first := section[0]; {
	case first&0x80 != 0: // indexed
		index, rest, ok := readStaticIndex(section, 6)
		if ok {
			f.appendStatic(&qpackTable[index], qpackNames[index])
		}
		return rest, ok
	case first&0x40 != 0: // literal with a name of the table
		index, rest, ok := readStaticIndex(section, 4)
		if !ok {
			return nil, false
		}
		f.text = append(f.text, qpackTable[index].name...)
		field.name = qpackNames[index]
		return f.appendValue(field, rest)
	case first&0x20 != 0: // literal with a literal name
		if rest, ok = f.appendName(&field, section, 3); !ok {
			return nil, false
		}
		return f.appendValue(field, rest)
	}
	return nil, false
}

// readStaticIndex reads an index with a prefix of that many bits, behind the bit that says that it
// is one of the static table.
func readStaticIndex(b []byte, prefix uint8) (index int, rest []byte, ok bool) {
	index, rest, ok = readInteger(b, prefix)
	return index, rest, ok && b[0]>>prefix&1 == 1 && index < len(qpackTable)
}
