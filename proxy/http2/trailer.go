package http2

import "sluice/proxy/http1"

// AppendTrailer appends the frames of a trailer section, and nothing for an empty one: then
// DATA ends the stream.
func AppendTrailer(out, section []byte, id uint32) []byte {
	if len(section) == 0 {
		return out
	}
	start := len(out)
	out = append(out, make([]byte, FrameHeaderBytes)...)
	for line := range http1.Lines(section) {
		out = AppendFieldLine(out, line)
	}
	if len(out) == start+FrameHeaderBytes {
		return out[:start]
	}
	return EndFieldBlock(out, start, id, true)
}

// AppendFieldLine appends a field line of HTTP/1.1 as a field of HTTP/2.
func AppendFieldLine(out, line []byte) []byte {
	return AppendField(out, http1.LineName(line), http1.LineValue(line))
}
