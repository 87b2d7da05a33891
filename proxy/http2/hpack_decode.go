package http2

// InitialTableBytes is the initial SETTINGS_HEADER_TABLE_SIZE, and the size of the dynamic
// table that a decoder allows.
const InitialTableBytes = 4096

// fieldOverhead counts for each field in the size of a table or a list (RFC 7541,
// section 4.1).
const fieldOverhead = 32

// UsualListBytes is a limit of a field list that is enough for most heads.
const UsualListBytes = 64 << 10

// ListBytes returns the size of the longest field list of a head with these limits.
func ListBytes(headBytes, fields int) int { return headBytes + fieldOverhead*fields }

var (
	errHPACK = &Error{CompressionError, "malformed field block"}
	// ErrListTooLong means that a field list is longer than the decoder accepts. The decoder
	// is in order: the error may be one of the stream only.
	ErrListTooLong = &Error{EnhanceYourCalm, "field list is too long"}

	errExpansion = &Error{EnhanceYourCalm, "names in a field block make far more text than it has"}
)

// maxExpansion bounds the text that names in the dynamic table make of a block, above the limit of
// lists: two bytes may stand for four kilobytes, and what is only to be forgotten is copied all the
// same.
const maxExpansion = 1 << 20

// A Field is a decoded field, as positions in the text of its Fields.
type Field struct {
	start, nameEnd, end uint32
	name                name
	malformed           bool // a character that a name or a value must not have
	malformedName       bool // the name has one
}

// Fields are the fields of a block, in order. Their memory is reused for the next block.
type Fields struct {
	text []byte
	list []Field
	size int

	expanded int // bytes of names that were copied from the dynamic table
}

// A decoder decodes the field blocks of a connection, in their order.
type decoder struct {
	maxListBytes int

	limit int // of size
	size  int // of the dynamic table, with the overhead of its entries
	// The dynamic table: a ring of entries from the oldest to the newest, with positions
	// in store, allocated by the first entry.
	ring         []Field
	first, count int
	store        []byte
}

// newDecoder returns the decoder of a new connection. maxListBytes is the largest field list
// that it accepts, by the size of SETTINGS_MAX_HEADER_LIST_SIZE. Of a larger one it keeps
// nothing: a few indexed fields can make a list of megabytes.
func newDecoder(maxListBytes int) *decoder {
	return &decoder{maxListBytes: maxListBytes, limit: InitialTableBytes}
}

// decode decodes a complete field block into f. After ErrListTooLong f is empty, and after
// another error the decoder is unusable. A malformed field is not an error here: see
// AppendRequest and AppendTrailer.
func (d *decoder) decode(block []byte, f *Fields) *Error {
	f.text, f.list, f.size, f.expanded = f.text[:0], f.list[:0], 0, 0
	updates, tooLong := 0, false
	for len(block) > 0 {
		var ok bool
		switch first := block[0]; {
		case first&0x80 != 0:
			var index int
			if index, block, ok = readInteger(block, 7); !ok || index == 0 || index > staticEntries+d.count {
				return errHPACK
			}
			if tooLong {
				continue
			}
			d.appendIndexed(f, index)
		case first&0xe0 == 0x20:
			// RFC 7541, section 4.2: at most two, at the start.
			var limit int
			if limit, block, ok = readInteger(block, 5); !ok || limit > InitialTableBytes || len(f.list) > 0 || tooLong || updates == 2 {
				return errHPACK
			}
			updates++
			d.limit = limit
			d.evict(0)
			continue
		default:
			prefix := uint8(4) // without indexing, or never
			if first&0x40 != 0 {
				prefix = 6
			}
			if block, ok = d.appendLiteral(f, block, prefix); !ok {
				return errHPACK
			}
			if prefix == 6 {
				d.add(f)
			}
		}
		last := &f.list[len(f.list)-1]
		if f.size += int(last.end-last.start) + fieldOverhead; f.size > d.maxListBytes {
			// The rest matters for the dynamic table only.
			tooLong = true
			f.text, f.list = f.text[:0], f.list[:0]
			if f.expanded > maxExpansion {
				return errExpansion
			}
		}
	}
	if tooLong {
		f.text, f.list = nil, f.list[:0] // a field may have the length of the block
		return ErrListTooLong
	}
	return nil
}

// entry returns the entry of the dynamic table with that index, from 1 for the newest.
func (d *decoder) entry(index int) *Field {
	return &d.ring[(d.first+d.count-index)%len(d.ring)]
}

// appendIndexed appends the field with that index in the tables, which have it.
func (d *decoder) appendIndexed(f *Fields, index int) {
	start := uint32(len(f.text))
	if index <= staticEntries {
		s := &staticTable[index]
		f.text = append(append(f.text, s.name...), s.value...)
		f.list = append(f.list, Field{start: start, nameEnd: start + uint32(len(s.name)), end: uint32(len(f.text)), name: staticNames[index]})
		return
	}
	e := *d.entry(index - staticEntries)
	f.text = append(f.text, d.store[e.start:e.end]...)
	e.start, e.nameEnd, e.end = start, start+e.nameEnd-e.start, uint32(len(f.text))
	f.list = append(f.list, e)
}

// appendLiteral appends the literal field that begins block. prefix is the number of
// bits of the index of its name.
func (d *decoder) appendLiteral(f *Fields, block []byte, prefix uint8) (rest []byte, ok bool) {
	index, block, ok := readInteger(block, prefix)
	if !ok || index > staticEntries+d.count {
		return nil, false
	}
	field := Field{start: uint32(len(f.text))}
	switch {
	case index == 0:
		if f.text, block, ok = appendString(f.text, block); !ok {
			return nil, false
		}
		field.name, field.malformedName = classify(f.text[field.start:])
	case index <= staticEntries:
		f.text = append(f.text, staticTable[index].name...)
		field.name = staticNames[index]
	default:
		e := d.entry(index - staticEntries)
		f.text = append(f.text, d.store[e.start:e.nameEnd]...)
		f.expanded += int(e.nameEnd - e.start)
		field.name, field.malformedName = e.name, e.malformedName
	}
	field.nameEnd = uint32(len(f.text))
	if f.text, block, ok = appendString(f.text, block); !ok {
		return nil, false
	}
	field.end = uint32(len(f.text))
	field.malformed = field.malformedName || !validValue(f.text[field.nameEnd:])
	f.list = append(f.list, field)
	return block, true
}

// add adds the last field of f to the dynamic table.
func (d *decoder) add(f *Fields) {
	e := f.list[len(f.list)-1]
	text := f.text[e.start:e.end]
	need := len(text) + fieldOverhead
	d.evict(need)
	if need > d.limit {
		return
	}
	if d.ring == nil {
		d.ring = make([]Field, InitialTableBytes/fieldOverhead)
	}
	if len(d.store)+len(text) > 2*InitialTableBytes {
		d.compact()
	}
	e.nameEnd -= e.start
	e.start = uint32(len(d.store))
	e.nameEnd += e.start
	d.store = append(d.store, text...)
	e.end = uint32(len(d.store))
	d.ring[(d.first+d.count)%len(d.ring)] = e
	d.count++
	d.size += need
}

// evict removes the oldest entries until there is room for an entry of need bytes, or
// none is left.
func (d *decoder) evict(need int) {
	for d.count > 0 && d.size+need > d.limit {
		e := &d.ring[d.first]
		d.size -= int(e.end-e.start) + fieldOverhead
		d.first = (d.first + 1) % len(d.ring)
		d.count--
	}
	if d.count == 0 {
		d.store = d.store[:0]
	}
}

// compact removes the bytes of evicted entries from the store.
func (d *decoder) compact() {
	if d.count == 0 {
		return
	}
	base := d.ring[d.first].start
	d.store = d.store[:copy(d.store, d.store[base:])]
	for i := range d.count {
		e := &d.ring[(d.first+i)%len(d.ring)]
		e.start, e.nameEnd, e.end = e.start-base, e.nameEnd-base, e.end-base
	}
}

// readInteger reads an integer with a prefix of that many bits (RFC 7541, section 5.1).
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

// appendString appends the string that begins b (RFC 7541, section 5.2).
func appendString(out, b []byte) (text, rest []byte, ok bool) {
	length, rest, ok := readInteger(b, 7)
	if !ok || length > len(rest) {
		return out, nil, false
	}
	if b[0]&0x80 == 0 {
		return append(out, rest[:length]...), rest[length:], true
	}
	out, ok = appendHuffman(out, rest[:length])
	return out, rest[length:], ok
}
