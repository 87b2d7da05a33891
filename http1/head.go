package http1

import "bytes"

// MaxFields is how many field lines a head may have.
const MaxFields = 100

// Field is one field line: where its parts are in the bytes of the message.
type Field struct {
	Name Name
	// Nominated: the sender listed the field in Connection, so that it ends at
	// this hop (RFC 9110, section 7.6.1). Fields that sluice itself depends on
	// or vouches for are never nominated.
	Nominated bool

	start, nameEnd, valueStart, valueEnd, end uint16
}

// Head is what requests and responses have in common: the field lines and what
// they say about the message. The offsets in it hold for the buffer it was
// scanned from, which must be smaller than 64 KiB.
type Head struct {
	fields [MaxFields]Field
	count  int
	names  uint64 // of the fields, a bit each

	lineStart int // where the line being scanned starts
	searched  int // no LF before here, from lineStart on
	startLine bool

	// ContentLength is the length of the body in bytes, -1 where the head does
	// not say.
	ContentLength int64
	Chunked       bool // Transfer-Encoding: chunked
	Close         bool // Connection has "close"
	KeepAlive     bool // Connection has "keep-alive"
	// Upgrade: Connection has "upgrade" and there is an Upgrade field.
	Upgrade bool
	// TETrailers: TE has "trailers", so the sender can take a trailer section.
	TETrailers bool

	connectionUpgrade, hasUpgrade bool
	nominates                     bool
	connectionOptions             int // elements of Connection
}

func (h *Head) reset() {
	h.count, h.names, h.lineStart, h.searched = 0, 0, 0, 0
	h.startLine = false
	h.ContentLength = -1
	h.Chunked, h.Close, h.KeepAlive, h.Upgrade, h.TETrailers = false, false, false, false, false
	h.connectionUpgrade, h.hasUpgrade, h.nominates = false, false, false
	h.connectionOptions = 0
}

// Fields are the field lines in the order they came. The slice is valid until
// the next scan.
func (h *Head) Fields() []Field { return h.fields[:h.count] }

// FieldName returns the name of f as it came. b is the buffer it was scanned from.
func (f *Field) FieldName(b []byte) []byte { return b[f.start:f.nameEnd] }

// Value returns the value of f without the white space around it.
func (f *Field) Value(b []byte) []byte { return b[f.valueStart:f.valueEnd] }

// Line returns where f starts and where it ends, its CRLF included.
func (f *Field) Line() (start, end int) { return int(f.start), int(f.end) }

// Has reports whether there is a field of that name.
func (h *Head) Has(name Name) bool { return h.names&(1<<name) != 0 }

// Find returns the value of the first field of that name, or nil.
func (h *Head) Find(b []byte, name Name) []byte {
	if !h.Has(name) {
		return nil
	}
	for i := range h.count {
		if h.fields[i].Name == name {
			return h.fields[i].Value(b)
		}
	}
	return nil
}

// Elements yields the elements of the comma-separated list that all fields of
// that name make together (RFC 9110, section 5.3).
func (h *Head) Elements(b []byte, name Name) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		if !h.Has(name) {
			return
		}
		for i := range h.count {
			if h.fields[i].Name != name {
				continue
			}
			for element := range listElements(h.fields[i].Value(b)) {
				if !yield(element) {
					return
				}
			}
		}
	}
}

// FindOther returns the value of the first field of a name that has no
// constant, or nil. lower is the name in lower case.
func (h *Head) FindOther(b []byte, lower string) []byte {
	for i := range h.count {
		if f := &h.fields[i]; EqualFold(f.FieldName(b), lower) {
			return f.Value(b)
		}
	}
	return nil
}

// nextLine returns where the next line starts and, without its CRLF, ends. While
// its LF has not arrived, it is not complete. A line that ends without a CR is an
// error.
func (h *Head) nextLine(b []byte) (start, end int, complete bool, err error) {
	i := bytes.IndexByte(b[h.searched:], '\n')
	if i < 0 {
		h.searched = len(b)
		end = len(b)
		if end > h.lineStart && b[end-1] == '\r' {
			end--
		}
		return h.lineStart, end, false, nil
	}
	start, end = h.lineStart, h.searched+i-1
	if end < start || b[end] != '\r' {
		return start, end + 1, false, ErrLineEnd
	}
	h.lineStart, h.searched = end+2, end+2
	return start, end, true, nil
}

// scanField notes the field line b[start:end].
func (h *Head) scanField(b []byte, start, end int) (*Field, error) {
	if h.count == MaxFields {
		return nil, ErrTooManyFields
	}
	if isSpace(b[start]) {
		return nil, ErrFolded
	}
	colon, seen := end, uint8(0)
	for i, c := range b[start:end] {
		if chars[c]&charToken == 0 {
			colon = start + i
			break
		}
		seen |= chars[c]
	}
	if colon == start || colon == end || b[colon] != ':' {
		return nil, ErrFieldName
	}
	valueStart, valueEnd := colon+1, end
	if !isValue(b[valueStart:valueEnd]) {
		if bytes.IndexByte(b[valueStart:valueEnd], '\r') >= 0 {
			return nil, ErrLineEnd
		}
		return nil, ErrFieldValue
	}
	for valueStart < valueEnd && isSpace(b[valueStart]) {
		valueStart++
	}
	for valueStart < valueEnd && isSpace(b[valueEnd-1]) {
		valueEnd--
	}
	f := &h.fields[h.count]
	h.count++
	// One by one: a whole Field would be put together elsewhere and copied.
	f.start, f.nameEnd, f.end = uint16(start), uint16(colon), uint16(end+2)
	f.valueStart, f.valueEnd = uint16(valueStart), uint16(valueEnd)
	f.Nominated = false
	f.Name = NameUnderscore
	if seen&charUnderscore == 0 {
		f.Name = lookUpName(b[start:colon])
	}
	h.names |= 1 << f.Name
	return f, nil
}

// scanCommon takes in the fields that mean the same in requests and responses.
func (h *Head) scanCommon(f *Field, value []byte) error {
	switch f.Name {
	case NameContentLength:
		length, ok := parseLength(value)
		if !ok || h.ContentLength >= 0 {
			return ErrContentLength
		}
		h.ContentLength = length
	case NameTransferEncoding:
		if h.Chunked || !EqualFold(value, "chunked") {
			return ErrTransferCoding
		}
		h.Chunked = true
	case NameConnection:
		return h.scanConnection(value)
	case NameUpgrade:
		h.hasUpgrade = h.hasUpgrade || len(value) > 0
	case NameTE:
		for element := range listElements(value) {
			if EqualFold(element, "trailers") {
				h.TETrailers = true
			}
		}
	}
	return nil
}

func (h *Head) scanConnection(value []byte) error {
	for element := range listElements(value) {
		// Each is compared with each field: their number must be bounded, too.
		if h.connectionOptions++; h.connectionOptions > MaxFields {
			return ErrTooManyFields
		}
		switch {
		case EqualFold(element, "close"):
			h.Close = true
		case EqualFold(element, "keep-alive"):
			h.KeepAlive = true
		case EqualFold(element, "upgrade"):
			h.connectionUpgrade = true
		case EqualFold(element, "te"):
		default:
			h.nominates = true
		}
	}
	return nil
}

// finish draws the conclusions that need the whole head.
func (h *Head) finish(b []byte) error {
	if h.Chunked && h.ContentLength >= 0 {
		return ErrLengthAndCoding
	}
	h.Upgrade = h.connectionUpgrade && h.hasUpgrade
	if h.nominates {
		h.markNominated(b)
	}
	return nil
}

func (h *Head) markNominated(b []byte) {
	for i := range h.count {
		if h.fields[i].Name != NameConnection {
			continue
		}
		for element := range listElements(h.fields[i].Value(b)) {
			for j := range h.count {
				if f := &h.fields[j]; f.Name == NameOther && equalFold(f.FieldName(b), element) {
					f.Nominated = true
				}
			}
		}
	}
}

// parseLength reads a Content-Length: digits only, below 10^18.
func parseLength(value []byte) (int64, bool) {
	if len(value) == 0 || len(value) > 18 {
		return 0, false
	}
	var length int64
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		length = length*10 + int64(c-'0')
	}
	return length, true
}

// listElements yields the elements of a comma-separated list (RFC 9110,
// section 5.6.1) without the white space around them; empty ones are passed over.
func listElements(value []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(value) > 0 {
			element := value
			if i := bytes.IndexByte(value, ','); i >= 0 {
				element, value = value[:i], value[i+1:]
			} else {
				value = nil
			}
			if element = trimSpace(element); len(element) > 0 && !yield(element) {
				return
			}
		}
	}
}
