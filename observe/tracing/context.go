package tracing

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// A TraceID identifies a trace. The zero value is none.
type TraceID [16]byte

// A SpanID identifies a span of a trace. The zero value is none.
type SpanID [8]byte

// IsZero reports whether it is no trace.
func (t TraceID) IsZero() bool { return t == TraceID{} }

// IsZero reports whether it is no span.
func (s SpanID) IsZero() bool { return s == SpanID{} }

// Append appends t in lower-case hexadecimal digits.
func (t TraceID) Append(out []byte) []byte { return hex.AppendEncode(out, t[:]) }

// A Parent is the content of a traceparent field.
type Parent struct {
	Trace   TraceID
	Span    SpanID
	Sampled bool
}

// The positions of the parts of a traceparent field: VERSION-TRACE-SPAN-FLAGS.
const (
	traceAt          = len("00-")
	spanAt           = traceAt + 32 + 1
	flagsAt          = spanAt + 16 + 1
	traceparentBytes = flagsAt + 2
	flagSampled      = 1
)

// ParseTraceparent reads a traceparent field
// (https://www.w3.org/TR/trace-context-2/#traceparent-header). A later version may have
// more after the flags.
func ParseTraceparent(field []byte) (p Parent, ok bool) {
	if len(field) < traceparentBytes || field[traceAt-1] != '-' || field[spanAt-1] != '-' || field[flagsAt-1] != '-' {
		return Parent{}, false
	}
	var version, flags [1]byte
	switch {
	case !decode(version[:], field[:traceAt-1]), version[0] == 0xff,
		version[0] == 0 && len(field) != traceparentBytes,
		len(field) > traceparentBytes && field[traceparentBytes] != '-',
		!decode(p.Trace[:], field[traceAt:spanAt-1]), !decode(p.Span[:], field[spanAt:flagsAt-1]), !decode(flags[:], field[flagsAt:traceparentBytes]),
		p.Trace.IsZero(), p.Span.IsZero():
		return Parent{}, false
	}
	p.Sampled = flags[0]&flagSampled != 0
	return p, true
}

// decode reads lower-case hexadecimal digits.
func decode(to, digits []byte) bool {
	for _, c := range digits {
		if c >= 'A' && c <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(to, digits)
	return err == nil
}

// AppendTraceparent appends the traceparent field for what the span causes.
func AppendTraceparent(out []byte, trace TraceID, span SpanID, sampled bool) []byte {
	out = append(out, "00-"...)
	out = append(trace.Append(out), '-')
	out = hex.AppendEncode(out, span[:])
	if sampled {
		return append(out, "-01"...)
	}
	return append(out, "-00"...)
}

// NewSpanID returns a random id. The generator of math/rand/v2 is seeded by the kernel
// once for each thread, so an id takes no system call.
func NewSpanID() (id SpanID) {
	for id.IsZero() {
		binary.LittleEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

func newTraceID() (id TraceID) {
	for id.IsZero() {
		binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
		binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}
