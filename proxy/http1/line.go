package http1

import (
	"bytes"
	"iter"
)

// CutLine returns the first line of text with its CRLF, and what follows.
func CutLine(text []byte) (line, rest []byte) {
	n := bytes.IndexByte(text, '\n') + 1
	return text[:n], text[n:]
}

// Lines yields the field lines at the start of text, each with its CRLF, up to an empty line.
func Lines(text []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for {
			line, rest := CutLine(text)
			if len(line) <= len("\r\n") || !yield(line) {
				return
			}
			text = rest
		}
	}
}

// AppendLine appends a field line. name ends with a colon and a space.
func AppendLine[Value []byte | string](out []byte, name string, value Value) []byte {
	return append(append(append(out, name...), value...), "\r\n"...)
}

// HasName reports whether a field line has that name in lower case.
func HasName(line []byte, name string) bool {
	return len(line) > len(name) && line[len(name)] == ':' && EqualFold(line[:len(name)], name)
}

// Clean replaces control characters by spaces, so that a value cannot end its line. No
// value of a variable contains any.
func Clean(value []byte) {
	for i, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			value[i] = ' '
		}
	}
}

// LineName returns the name in a field line.
func LineName(line []byte) []byte {
	name, _, _ := bytes.Cut(line, []byte{':'})
	return name
}

// LineValue returns the value in a field line, without surrounding white space.
func LineValue(line []byte) []byte {
	_, value, _ := bytes.Cut(line, []byte{':'})
	return bytes.Trim(value, " \t\r\n")
}
