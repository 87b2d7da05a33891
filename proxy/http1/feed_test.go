package http1

import (
	"bytes"
	"fmt"
	"iter"
	"strings"
)

// feedings yields ways in which b may arrive: how many of its bytes are there
// at each look at them, the last time all. short inputs are divided at every
// place; of longer ones, some places are tried.
func feedings(b []byte) iter.Seq[[]int] {
	return func(yield func([]int) bool) {
		step := max(1, len(b)/700)
		var byteByByte []int
		for i := 1; i < len(b); i += step {
			byteByByte = append(byteByByte, i)
			if !yield([]int{i, len(b)}) {
				return
			}
		}
		yield(append(byteByByte, len(b)))
	}
}

// exactly returns the first n bytes of b in memory of their own with nothing
// after them, so that looking further panics, and remembering where they stood
// is of no use.
func exactly(b []byte, n int) []byte { return bytes.Clone(b[:n])[:n:n] }

// A reading is what a scan of a head came to.
type reading struct {
	length int
	err    error
	text   string // what the head says, for comparison
}

// readRequest scans b as it arrives by the feeding, until that comes to something.
func readRequest(b []byte, feeding ...int) reading {
	var head RequestHead
	head.Reset(testTargetBytes, UsualFields)
	for _, n := range feeding {
		here := exactly(b, n)
		if length, err := head.Scan(here); err != nil {
			return reading{err: err}
		} else if length > 0 {
			return reading{length, nil, requestText(&head, here)}
		}
	}
	return reading{}
}

const testTargetBytes = 8 << 10

func readResponse(b []byte, feeding ...int) reading {
	var head ResponseHead
	head.Reset(UsualFields)
	for _, n := range feeding {
		here := exactly(b, n)
		if length, err := head.Scan(here); err != nil {
			return reading{err: err}
		} else if length > 0 {
			return reading{length, nil, responseText(&head, here)}
		}
	}
	return reading{}
}

// requestText puts in words all that a head says.
func requestText(h *RequestHead, b []byte) string {
	version := "1.1"
	if h.HTTP10 {
		version = "1.0"
	}
	text := fmt.Sprintf("%s target=%s origin=%s path=%s authority=%s %s", h.MethodName(b), h.Target(b), h.OriginTarget(b), h.Path(b), h.Authority(b), version)
	for flag, set := range flags(
		"absolute", h.AbsoluteForm(), "expects", h.ExpectContinue, "body", h.HasBody(), "persistent", h.Persistent()) {
		if set {
			text += " " + flag
		}
	}
	return text + headText(&h.Head, b)
}

func responseText(h *ResponseHead, b []byte) string {
	version := "1.1"
	if h.HTTP10 {
		version = "1.0"
	}
	text := fmt.Sprintf("%d %q %s", h.Status, h.StatusText(b), version)
	for flag, set := range flags("interim", h.Interim(), "bodiless", h.Bodiless(false), "persistent", h.Persistent()) {
		if set {
			text += " " + flag
		}
	}
	return text + headText(&h.Head, b)
}

func headText(h *Head, b []byte) string {
	var text strings.Builder
	if h.ContentLength >= 0 {
		fmt.Fprintf(&text, " length=%d", h.ContentLength)
	}
	for flag, set := range flags("chunked", h.Chunked, "close", h.Close, "keep-alive", h.KeepAlive, "upgrade", h.Upgrade, "trailers", h.TETrailers) {
		if set {
			text.WriteString(" " + flag)
		}
	}
	for i := range h.Fields() {
		f := &h.Fields()[i]
		start, end := f.Line()
		fmt.Fprintf(&text, "\n%s=%s", f.FieldName(b), f.Value(b))
		if f.Nominated {
			text.WriteString(" nominated")
		}
		if line := b[start:end]; !bytes.HasPrefix(line, f.FieldName(b)) || !bytes.HasSuffix(line, []byte("\r\n")) || bytes.Count(line, []byte("\n")) != 1 {
			fmt.Fprintf(&text, " in line %q", line)
		}
	}
	return text.String()
}

// flags yields the pairs of a flag's name and its value, in order.
func flags(pairs ...any) iter.Seq2[string, bool] {
	return func(yield func(string, bool) bool) {
		for i := 0; i < len(pairs); i += 2 {
			if !yield(pairs[i].(string), pairs[i+1].(bool)) {
				return
			}
		}
	}
}
