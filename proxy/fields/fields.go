package fields

import "errors"

// Errors of field sections.
var (
	// ErrMalformed means that a message is malformed (RFC 9113, section 8.1.1; RFC 9114,
	// section 4.1.2): an error of its stream.
	ErrMalformed = errors.New("malformed message")
	// ErrCompression means that bytes are no encoded fields: an error of the connection.
	ErrCompression = errors.New("malformed encoding of fields")
	// ErrListTooLong means that a field list is longer than the decoder accepts. The decoder
	// is in order: the error may be one of the stream only.
	ErrListTooLong = errors.New("field list is too long")
	// ErrExpansion means that a small block makes very much text: an error of the connection.
	ErrExpansion = errors.New("names in a field block make far more text than it has")
)

// fieldOverhead counts for each field in the size of a table or a list (RFC 7541,
// section 4.1; RFC 9114, section 4.2.2).
const fieldOverhead = 32

// UsualListBytes is a limit of a field list that is enough for most heads.
const UsualListBytes = 64 << 10

// ListBytes returns the size of the longest field list of a head with these limits.
func ListBytes(headBytes, fields int) int { return headBytes + fieldOverhead*fields }

// A Field is a decoded field, as positions in the text of its Fields.
type Field struct {
	start, nameEnd, end uint32
	name                name
	malformed           bool // a character that a name or a value must not have
	malformedName       bool // the name has one
}

// Fields are the fields of a section, in order. Their memory is reused for the next section.
type Fields struct {
	text []byte
	list []Field
	size int

	expanded int // bytes of names that were copied from the dynamic table
}

// Find returns the value of the first field with that name in lower case; nil: there is
// none. It is valid until the next section.
func (f *Fields) Find(name string) []byte {
	for i := range f.list {
		if field := &f.list[i]; string(f.nameOf(field)) == name {
			return f.value(field)
		}
	}
	return nil
}

func (f *Fields) value(field *Field) []byte  { return f.text[field.nameEnd:field.end] }
func (f *Fields) nameOf(field *Field) []byte { return f.text[field.start:field.nameEnd] }

// A decoder appends to the text and the list of its Fields with the methods below.

// reset makes f empty.
func (f *Fields) reset() { f.text, f.list, f.size, f.expanded = f.text[:0], f.list[:0], 0, 0 }

// forget makes f empty. It drops the text, which may have the length of what was decoded.
func (f *Fields) forget() { f.text, f.list = nil, f.list[:0] }

// appendStatic appends a field of a static table.
func (f *Fields) appendStatic(s *staticField, n name) {
	start := uint32(len(f.text))
	f.text = append(append(f.text, s.name...), s.value...)
	f.list = append(f.list, Field{start: start, nameEnd: start + uint32(len(s.name)), end: uint32(len(f.text)), name: n})
}

// appendName appends the string that begins b, as the name of field. prefix is that of
// appendString.
func (f *Fields) appendName(field *Field, b []byte, prefix uint8) (rest []byte, ok bool) {
	if f.text, rest, ok = appendString(f.text, b, prefix); !ok {
		return nil, false
	}
	field.name, field.malformedName = classify(f.text[field.start:])
	return rest, true
}

// appendValue appends field, whose name ends the text and whose value is the string that begins b.
func (f *Fields) appendValue(field Field, b []byte) (rest []byte, ok bool) {
	field.nameEnd = uint32(len(f.text))
	if f.text, rest, ok = appendString(f.text, b, 7); !ok {
		return nil, false
	}
	field.end = uint32(len(f.text))
	field.malformed = field.malformedName || !validValue(f.text[field.nameEnd:])
	f.list = append(f.list, field)
	return rest, true
}

// count adds the last field to the size, and reports whether that is not too large.
func (f *Fields) count(maxListBytes int) bool {
	last := &f.list[len(f.list)-1]
	f.size += int(last.end-last.start) + fieldOverhead
	return f.size <= maxListBytes
}
