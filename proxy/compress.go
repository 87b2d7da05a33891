package proxy

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/reserved"
	"sluice/proxy/transfer"
	"sluice/proxy/upstream"
	"sluice/route/compression"
)

const (
	// maxFlushDelay bounds how long an encoder keeps what a peer has sent and waits for more:
	// together it takes fewer bytes.
	maxFlushDelay = 10 * time.Millisecond
	// encoderStepBytes is how much an encoder gets at a time, which bounds its output.
	encoderStepBytes = 16 << 10
	// compressedHeadBytes is more than the fields that compression adds.
	compressedHeadBytes = 128
	// weakenedBytes is how many bytes it adds to an ETag at most.
	weakenedBytes = len(" W/")
)

// compressible are the fields of a response head that decide about compression.
type compressible struct {
	contentType []byte
	etag        []byte // the whole line
	refused     bool   // the response is partial or encoded, or must not be changed
	varies      bool   // Vary has Accept-Encoding
}

// compressibleOf returns what the head text means for compression.
func compressibleOf(head *http1.ResponseHead, text []byte) (c compressible) {
	for _, f := range head.Fields() {
		name, value := f.FieldName(text), f.Value(text)
		switch {
		case f.Name == http1.NameContentType:
			c.contentType = value
		case http1.EqualFold(name, "etag"):
			start, end := f.Line()
			c.etag = text[start:end]
		case http1.EqualFold(name, "content-encoding"), http1.EqualFold(name, "content-range"):
			c.refused = true
		case http1.EqualFold(name, "cache-control"):
			c.refused = c.refused || hasElement(value, "no-transform")
		case http1.EqualFold(name, "vary"):
			c.varies = c.varies || hasElement(value, "accept-encoding") || hasElement(value, "*")
		}
	}
	return c
}

// hasElement reports whether a comma-separated list has an element, in lower case.
func hasElement(list []byte, element string) bool {
	for part := range bytes.SplitSeq(list, comma) {
		if http1.EqualFold(bytes.Trim(part, " \t"), element) {
			return true
		}
	}
	return false
}

var comma = []byte(",")

// eventStream is the type whose events are never kept.
var eventStream, _ = compression.ParseType("text/event-stream")

// compress decides whether the response, whose head is text, is compressed, and acquires
// its encoder. It returns the head that the client gets, which it appends to out if it
// differs. A response to HEAD gets the head of that to GET. ok is false if the head that it
// has made is too long.
func (x *answer) compress(out, text []byte) (head []byte, ok bool) {
	fields := len(x.response.Fields())
	if fields+2 > x.response.MaxFields() || len(text)+compressedHeadBytes+fields*weakenedBytes > maxEditedHead {
		return text, true
	}
	c, s := compressibleOf(&x.response, text), x.route.actions.Compress
	encoding, changed := compression.Identity, false
	switch status := x.response.Status; {
	case c.refused, x.request.identity.grpc, status < 200, status == 204, status == 205, status == 206:
		return text, true
	case status == 304: // of what has a type that it need not tell
		if len(c.contentType) > 0 && !s.Types.Match(c.contentType) {
			return text, true
		}
		changed = x.revalidatesCompressed(c.etag)
	default:
		if length := x.response.ContentLength; length >= 0 && length < max(s.MinBytes, 1) || !s.Types.Match(c.contentType) {
			return text, true
		}
		encoding = x.chooseEncoding(s)
		changed = encoding != compression.Identity
		if x.flushDelay = maxFlushDelay; eventStream.Match(c.contentType) {
			x.flushDelay = 0
		}
	}
	edited := appendCompressedHead(out, text, &c, encoding, changed)
	if !x.rescan(edited) {
		x.dropEncoder()
		return nil, false
	}
	return edited, true
}

// dropEncoder gives the encoder back.
func (x *answer) dropEncoder() {
	if e := x.encoder; e != nil {
		x.encoder = nil
		e.Release()
	}
}

// chooseEncoding returns the encoding for the client, and acquires the encoder for it.
func (x *answer) chooseEncoding(s *compression.Settings) compression.Encoding {
	if x.request.head.HTTP10 {
		return compression.Identity // its connection would end with the response
	}
	var accept compression.Accept
	for value, next := x.route.request.Field("accept-encoding", 0); next >= 0; value, next = x.route.request.Field("accept-encoding", next) {
		accept.Add(value)
	}
	encoding := accept.Choose(s.Encodings)
	if encoding == compression.Identity {
		return encoding
	}
	for value, next := x.route.request.Field("cache-control", 0); next >= 0; value, next = x.route.request.Field("cache-control", next) {
		if hasElement(value, "no-transform") {
			return compression.Identity
		}
	}
	if x.request.head.Method == http1.MethodHead {
		return encoding
	}
	c := x.request.client
	if x.encoder = c.server.encoders.Acquire(x.request.block(), encoding, s.Level, int64(c.options.Limits.CompressionBytes)); x.encoder == nil {
		return compression.Identity
	}
	x.toCompress = x.response.ContentLength
	return encoding
}

// revalidatesCompressed reports whether the client has the response with the weak form of
// a strong ETag, whose line is given: so it was compressed.
func (x *answer) revalidatesCompressed(line []byte) bool {
	_, tag, strong := cutETag(line)
	if !strong {
		return false
	}
	for value, next := x.route.request.Field("if-none-match", 0); next >= 0; value, next = x.route.request.Field("if-none-match", next) {
		if i := bytes.Index(value, tag); i >= len("W/") && string(value[i-len("W/"):i]) == "W/" {
			return true
		}
	}
	return false
}

// cutETag returns the name with its colon and the tag of an ETag line, and whether that is
// strong.
func cutETag(line []byte) (name, tag []byte, strong bool) {
	colon := bytes.IndexByte(line, ':') + 1
	tag = bytes.Trim(line[colon:], " \t\r\n")
	return line[:colon], tag, len(tag) >= 2 && tag[0] == '"' && tag[len(tag)-1] == '"'
}

// appendCompressedHead appends the head text for a response with that encoding, or one that says
// that what the client has is fresh. Unless changed, which says that its content is compressed, it
// stays as it is but depends on Accept-Encoding.
func appendCompressedHead(out, text []byte, c *compressible, encoding compression.Encoding, changed bool) []byte {
	statusLine, fields := http1.CutLine(text)
	out = append(out, statusLine...)
	for line := range http1.Lines(fields) {
		switch {
		case changed && isOfUncompressed(line):
		case changed && http1.HasName(line, "etag"):
			if name, tag, strong := cutETag(line); strong {
				out = append(append(append(append(out, name...), " W/"...), tag...), "\r\n"...)
			} else if bytes.HasPrefix(tag, []byte(`W/"`)) {
				out = append(out, line...)
			}
		default:
			out = append(out, line...)
		}
	}
	if encoding != compression.Identity {
		out = http1.AppendLine(out, "Content-Encoding: ", encoding.String())
	}
	if !c.varies {
		out = append(out, "Vary: Accept-Encoding\r\n"...)
	}
	return append(out, "\r\n"...)
}

// isOfUncompressed reports whether a field line is wrong after the content was compressed.
func isOfUncompressed(line []byte) bool {
	return slices.ContainsFunc(uncompressedFields, func(name string) bool { return http1.HasName(line, name) })
}

// uncompressedFields are the names of fields that are wrong after the content was compressed.
var uncompressedFields = []string{"content-length", "accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"}

// compressedTrailer returns what the client gets of the trailer section after content that was
// compressed.
func (x *answer) compressedTrailer(section []byte) []byte {
	return http1.FilterTrailer(x.route.filterTrailer(section, reserved.ToClients), func(line []byte) bool {
		return http1.HasName(line, "etag") || isOfUncompressed(line) // a strong ETag comes too late for the head
	})
}

// relayCompressed is relay with x.encoder. A response whose Content-Length is there is whole, also
// if the peer does not end it.
func (x *answer) relayCompressed(u upstream.Conn) error {
	e := x.encoder
	defer x.dropEncoder()
	err := x.relayTo(e, u)
	if err == nil || errors.Is(err, errClientWrite) || x.toCompress != 0 || !x.answered {
		return err
	}
	e.End()
	if sent := x.sendEncoded(e.Take(), transfer.Piece{Last: true}); sent != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return sent
	}
	return err
}

// relayTo relays the response by way of e until its end or an error.
func (x *answer) relayTo(e *compression.Encoder, u upstream.Conn) error {
	var kept time.Time // when the encoder got the first bytes that may not have left it; zero: all have
	for {
		p, err := u.ReadBody(&x.body.buffers, false)
		if err != nil {
			return err
		}
		if x.toCompress > 0 {
			x.toCompress -= p.Length
		}
		if len(p.Text) > 0 && kept.IsZero() {
			kept = time.Now()
		}
		for text := p.Text; len(text) > 0; {
			n := min(len(text), encoderStepBytes)
			e.Write(text[:n])
			if text = text[n:]; len(text) > 0 {
				if err := x.sendEncoded(e.Take(), transfer.Piece{}); err != nil {
					return err
				}
			}
		}
		if p.Last {
			e.End()
			return x.sendEncoded(e.Take(), transfer.Piece{Last: true, Trailer: x.compressedTrailer(p.Trailer)})
		}
		if err := x.sendEncoded(e.Take(), transfer.Piece{}); err != nil {
			return err
		}
		x.awaitBody(u, x.toCompress == 0)
		if kept.IsZero() {
			continue
		}
		if delay := x.flushDelay - time.Since(kept); delay > 0 {
			if pauses, err := u.BodyPauses(&x.body.buffers, delay); err != nil {
				return err
			} else if !pauses {
				continue
			}
		}
		kept = time.Time{}
		e.Flush()
		if err := x.sendEncoded(e.Take(), transfer.Piece{}); err != nil {
			return err
		}
		x.awaitBody(u, x.toCompress == 0)
	}
}

// sendEncoded sends x.out, which may contain the head, and p with that text.
func (x *answer) sendEncoded(text []byte, p transfer.Piece) error {
	if !p.Last && len(text) == 0 && x.answered {
		return nil
	}
	x.body.buffers.Borrow()
	p.Text, p.Length = text, int64(len(text))
	x.bytesOut += p.Length
	return x.toClient(p)
}
