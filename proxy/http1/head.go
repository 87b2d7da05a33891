package http1

import (
	"bytes"
	"math"
)

// UsualFields is the number of field lines for which a head has room. More take memory of
// their own.
const UsualFields = 100

// Field is one field line, as positions in the bytes of the message.
type Field struct {
	Name Name
	// Nominated: the sender listed the field in Connection, so it is not forwarded
	// (RFC 9110, section 7.6.1). Fields with a [Name] other than NameMarked are never
	// nominated.
	Nominated bool

	start, nameEnd, end uint16
}

// MaxHeadBytes bounds the limits of heads: positions in a head have 16 bits, and a head
// fits a buffer.
const MaxHeadBytes = 60 << 10

// Head is the common part of requests and responses: the field lines and what they say
// about the message. Its positions are in the buffer that was scanned, which must be
// below 64 KiB.
type Head struct {
	more      []Field // all fields, if they are more than UsualFields
	usual     [UsualFields]Field
	count     int
	maxFields int
	names     uint64 // bit set of the names

	lineStart int // start of the current line
	searched  int // no LF between lineStart and here
	startLine bool

	// ContentLength is -1 without the field.
	ContentLength int64
	Chunked       bool // Transfer-Encoding: chunked
	Close         bool // Connection has "close"
	KeepAlive     bool // Connection has "keep-alive"
	// Upgrade: Connection has "upgrade" and there is an Upgrade field.
	Upgrade bool
	// TETrailers: TE has "trailers", so the sender accepts a trailer section.
	TETrailers bool
	// GRPC: Content-Type is one of gRPC: application/grpc, with any suffix such as
	// +proto, but not of gRPC-Web.
	GRPC bool
	// ConnectionAuth: the message asks for NTLM or Negotiate, or has credentials of them. Many
	// servers believe them for all later requests on the connection.
	ConnectionAuth bool

	connectionUpgrade, hasUpgrade bool
	nominates                     bool
	connectionOptions             int // elements of Connection
}

func (h *Head) reset(maxFields int) {
	h.more, h.maxFields = nil, maxFields
	h.count, h.names, h.lineStart, h.searched = 0, 0, 0, 0
	h.startLine = false
	h.ContentLength = -1
	h.Chunked, h.Close, h.KeepAlive, h.Upgrade, h.TETrailers, h.GRPC, h.ConnectionAuth = false, false, false, false, false, false, false
	h.connectionUpgrade, h.hasUpgrade, h.nominates = false, false, false
	h.connectionOptions = 0
}

// Fields returns the field lines in order, valid until the next scan.
func (h *Head) Fields() []Field {
	if h.more != nil {
		return h.more
	}
	return h.usual[:h.count]
}

// MaxFields returns the limit of the number of field lines.
func (h *Head) MaxFields() int { return h.maxFields }

// FieldName returns the name of f as sent. b is the scanned buffer.
func (f Field) FieldName(b []byte) []byte { return b[f.start:f.nameEnd] }

// Value returns the value of f without surrounding white space.
func (f Field) Value(b []byte) []byte {
	start, end := f.valueSpan(b)
	return b[start:end]
}

func (f Field) valueSpan(b []byte) (start, end int) {
	start, end = int(f.nameEnd)+1, int(f.end)-2
	for start < end && isSpace(b[start]) {
		start++
	}
	for start < end && isSpace(b[end-1]) {
		end--
	}
	return start, end
}

// Line returns the start and the end of f, including its CRLF.
func (f Field) Line() (start, end int) { return int(f.start), int(f.end) }

// Has reports whether there is a field with that name.
func (h *Head) Has(name Name) bool { return h.names&(1<<name) != 0 }

// Find returns the value of the first field with that name, or nil.
func (h *Head) Find(b []byte, name Name) []byte {
	if !h.Has(name) {
		return nil
	}
	for _, f := range h.Fields() {
		if f.Name == name {
			return f.Value(b)
		}
	}
	return nil
}

// Elements yields the elements of the comma-separated list in all fields with that name
// (RFC 9110, section 5.3).
func (h *Head) Elements(b []byte, name Name) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		if !h.Has(name) {
			return
		}
		for _, f := range h.Fields() {
			if f.Name != name {
				continue
			}
			for element := range listElements(f.Value(b)) {
				if !yield(element) {
					return
				}
			}
		}
	}
}

// FindOther returns the value of the first field whose name in lower case is lower, or
// nil.
func (h *Head) FindOther(b []byte, lower string) []byte {
	for _, f := range h.Fields() {
		if EqualFold(f.FieldName(b), lower) {
			return f.Value(b)
		}
	}
	return nil
}

// nextLine returns the start and the end, without CRLF, of the next line. It is not
// complete while its LF has not arrived. A line that ends without CR is an error.
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
	if end+2 > math.MaxUint16 { // positions have 16 bits
		return start, end, false, ErrHeadTooLong
	}
	h.lineStart, h.searched = end+2, end+2
	return start, end, true, nil
}

// scanField records the field line b[start:end].
func (h *Head) scanField(b []byte, start, end int) (*Field, error) {
	if h.count == h.maxFields {
		return nil, ErrTooManyFields
	}
	if isSpace(b[start]) {
		return nil, ErrFolded
	}
	colon, seen := end, uint8(0)
	for i, c := range b[start:end] {
		class := chars[c]
		if class&charToken == 0 {
			colon = start + i
			break
		}
		seen |= class
	}
	if colon == start || colon == end || b[colon] != ':' {
		return nil, ErrFieldName
	}
	if value := b[colon+1 : end]; !IsValue(value) {
		if bytes.IndexByte(value, '\r') >= 0 {
			return nil, ErrLineEnd
		}
		return nil, ErrFieldValue
	}
	f := h.nextField()
	// Field by field: a composite literal would be copied.
	f.start, f.nameEnd, f.end = uint16(start), uint16(colon), uint16(end+2)
	f.Nominated = false
	f.Name = nameOf(b[start:colon], seen&charMark != 0)
	h.names |= 1 << f.Name
	return f, nil
}

// nextField returns the place of another field.
func (h *Head) nextField() *Field {
	h.count++
	if h.count <= UsualFields {
		return &h.usual[h.count-1]
	}
	if h.more == nil {
		h.more = append(make([]Field, 0, min(h.maxFields, 2*UsualFields)), h.usual[:]...)
	}
	h.more = append(h.more, Field{})
	return &h.more[h.count-1]
}

// scanCommon handles the fields that requests and responses share.
func (h *Head) scanCommon(f *Field, value []byte) error {
	switch f.Name {
	case NameContentLength:
		length, ok := ParseLength(value)
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
	case NameContentType:
		h.GRPC = IsGRPC(value)
	case NameAuthorization, NameProxyAuthenticate, NameWWWAuthenticate:
		h.ConnectionAuth = h.ConnectionAuth || authenticatesConnection(value)
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
		// Each is compared with each field, so their number is bounded.
		if h.connectionOptions++; h.connectionOptions > UsualFields {
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

// finish checks what needs the whole head.
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
	fields := h.Fields()
	for i := range fields {
		if fields[i].Name != NameConnection {
			continue
		}
		for element := range listElements(fields[i].Value(b)) {
			for j := range fields {
				if f := &fields[j]; (f.Name == NameOther || f.Name == NameMarked) && equalFold(f.FieldName(b), element) {
					f.Nominated = true
				}
			}
		}
	}
}

// authenticatesConnection reports whether a scheme in a list of challenges, or of credentials, is
// for the connection (RFC 4559 for Negotiate; NTLM has none).
func authenticatesConnection(value []byte) bool {
	for element := range listElements(value) {
		scheme, _, _ := bytes.Cut(element, []byte{' '})
		if EqualFold(scheme, "negotiate") || EqualFold(scheme, "ntlm") {
			return true
		}
	}
	return false
}

// IsGRPC reports whether a Content-Type is one of gRPC.
func IsGRPC(value []byte) bool {
	const prefix = "application/grpc"
	if len(value) < len(prefix) || !EqualFold(value[:len(prefix)], prefix) {
		return false
	}
	return len(value) == len(prefix) || bytes.IndexByte([]byte("+; \t"), value[len(prefix)]) >= 0
}

// ParseLength parses a Content-Length of at most 18 digits.
func ParseLength(value []byte) (int64, bool) {
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

// listElements yields the non-empty elements of a comma-separated list (RFC 9110,
// section 5.6.1) without surrounding white space.
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
