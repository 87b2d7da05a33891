package http1

import (
	"bytes"
	"fmt"
	"iter"
	"strings"
	"testing"

	"sluice/test/verify"
)

// feedings yields ways in which b may arrive: how many of its bytes are there
// at each look at them, the last time all. short inputs are divided at every
// place; of longer ones, some places are tried.
func feedings(b []byte) iter.Seq[[]int] {
	return func(yield func([]int) bool) {
		if !yield([]int{len(b)}) {
			return
		}
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

// expect ends the test unless head comes to want, however it arrives.
func (want reading) expect(t *testing.T, read func(b []byte, feeding ...int) reading, head string) {
	t.Helper()
	b := []byte(head)
	for feeding := range feedings(b) {
		got := read(b, feeding...)
		verify.Require(t, got == want, "arriving as %v: got %+v, want %+v", feeding, got, want)
	}
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

// requestText puts in words all that a head says, without what is usual: origin form, HTTP/1.1, a
// connection that is kept.
func requestText(h *RequestHead, b []byte) string {
	text := fmt.Sprintf("%s %s", h.MethodName(b), h.Target(b))
	if origin := h.OriginTarget(b); !bytes.Equal(origin, h.Target(b)) {
		text += fmt.Sprintf(" origin=%s", origin)
	}
	if path := h.Path(b); !bytes.Equal(path, h.OriginTarget(b)) {
		text += fmt.Sprintf(" path=%s", path)
	}
	text += fmt.Sprintf(" host=%s", h.Authority(b))
	return text + flags(
		"1.0", h.HTTP10, "absolute", h.AbsoluteForm(), "expects", h.ExpectContinue, "body", h.HasBody(), "last", !h.Persistent(),
	) + headText(&h.Head, b)
}

func responseText(h *ResponseHead, b []byte) string {
	return fmt.Sprintf("%d %q", h.Status, h.StatusText(b)) + flags(
		"1.0", h.HTTP10, "interim", h.Interim(), "bodiless", h.Bodiless(false), "last", !h.Persistent(),
	) + headText(&h.Head, b)
}

func headText(h *Head, b []byte) string {
	var text strings.Builder
	if h.ContentLength >= 0 {
		fmt.Fprintf(&text, " length=%d", h.ContentLength)
	}
	text.WriteString(flags("chunked", h.Chunked, "close", h.Close, "keep-alive", h.KeepAlive, "upgrade", h.Upgrade, "trailers", h.TETrailers))
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

// flags returns those names that are followed by true.
func flags(pairs ...any) (text string) {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1].(bool) {
			text += " " + pairs[i].(string)
		}
	}
	return text
}
