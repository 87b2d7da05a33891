package fields

// InitialTableBytes is the initial SETTINGS_HEADER_TABLE_SIZE, and the size of the dynamic
// table that a decoder allows.
const InitialTableBytes = 4096

// maxExpansion bounds the text that names in the dynamic table make of a block, above the limit of
// lists: two bytes may stand for four kilobytes, and what is only to be forgotten is copied all the
// same.
const maxExpansion = 1 << 20

// An HPACKDecoder decodes the field blocks of a connection, in their order.
type HPACKDecoder struct {
	maxListBytes int

	limit int // of size
	size  int // of the dynamic table, with the overhead of its entries
	// The dynamic table: a ring of entries from the oldest to the newest, with positions
	// in store, allocated by the first entry.
	ring         []Field
	first, count int
	store        []byte
}

// NewHPACKDecoder returns the decoder of a new connection. maxListBytes is the largest field list
// that it accepts, by the size of SETTINGS_MAX_HEADER_LIST_SIZE. Of a larger one it keeps
// nothing: a few indexed fields can make a list of megabytes.
func NewHPACKDecoder(maxListBytes int) *HPACKDecoder {
	return &HPACKDecoder{maxListBytes: maxListBytes, limit: InitialTableBytes}
}

// Decode decodes a complete field block into f. After ErrListTooLong f is empty, and after
// another error the decoder is unusable. A malformed field is not an error here: see
// AppendRequest and AppendTrailer.
func (d *HPACKDecoder) Decode(block []byte, f *Fields) error {
	f.reset()
	updates, tooLong := 0, false
	for len(block) > 0 {
		var ok bool
		switch first := block[0]; {
		case first&0x80 != 0:
			var index int
			if index, block, ok = readInteger(block, 7); !ok || index == 0 || index > hpackEntries+d.count {
				return ErrCompression
			}
			if tooLong {
				continue
			}
			d.appendIndexed(f, index)
		case first&0xe0 == 0x20:
			// RFC 7541, section 4.2: at most two, at the start.
			var limit int
			if limit, block, ok = readInteger(block, 5); !ok || limit > InitialTableBytes || len(f.list) > 0 || tooLong || updates == 2 {
				return ErrCompression
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
				return ErrCompression
			}
			if prefix == 6 {
				d.add(f)
			}
		}
		if !f.count(d.maxListBytes) {
			// The rest matters for the dynamic table only.
			tooLong = true
			f.text, f.list = f.text[:0], f.list[:0]
			if f.expanded > maxExpansion {
				return ErrExpansion
			}
		}
	}
	if tooLong {
		f.forget()
		return ErrListTooLong
	}
	return nil
}

// entry returns the entry of the dynamic table with that index, from 1 for the newest.
func (d *HPACKDecoder) entry(index int) *Field {
	return &d.ring[(d.first+d.count-index)%len(d.ring)]
}

// appendIndexed appends the field with that index in the tables, which have it.
func (d *HPACKDecoder) appendIndexed(f *Fields, index int) {
	if index <= hpackEntries {
		f.appendStatic(&hpackTable[index], hpackNames[index])
		return
	}
	start := uint32(len(f.text))
	e := *d.entry(index - hpackEntries)
	f.text = append(f.text, d.store[e.start:e.end]...)
	e.start, e.nameEnd, e.end = start, start+e.nameEnd-e.start, uint32(len(f.text))
	f.list = append(f.list, e)
}

// appendLiteral appends the literal field that begins block. prefix is the number of
// bits of the index of its name.
func (d *HPACKDecoder) appendLiteral(f *Fields, block []byte, prefix uint8) (rest []byte, ok bool) {
	index, block, ok := readInteger(block, prefix)
	if !ok || index > hpackEntries+d.count {
		return nil, false
	}
	field := Field{start: uint32(len(f.text))}
	switch {
	case index == 0:
		if block, ok = f.appendName(&field, block, 7); !ok {
			return nil, false
		}
	case index <= hpackEntries:
		f.text = append(f.text, hpackTable[index].name...)
		field.name = hpackNames[index]
	default:
		e := d.entry(index - hpackEntries)
		f.text = append(f.text, d.store[e.start:e.nameEnd]...)
		f.expanded += int(e.nameEnd - e.start)
		field.name, field.malformedName = e.name, e.malformedName
	}
	return f.appendValue(field, block)
}

// add adds the last field of f to the dynamic table.
func (d *HPACKDecoder) add(f *Fields) {
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
func (d *HPACKDecoder) evict(need int) {
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
func (d *HPACKDecoder) compact() {
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
