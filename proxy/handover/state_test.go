package handover

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"sluice/test/verify"
)

// A new process gets the value of each part, in their order. Without a state, with one of another
// version, or if a part of it is damaged, it begins anew with all of them.
func TestState(t *testing.T) {
	var written bytes.Buffer
	save := func() []string { return []string{"a", "b"} }
	verify.NoError(t, Save(&written, []Part{
		NewPart("names", save, nil), NewPart("count", func() int { return 7 }, nil), NewPart("gone", save, nil),
	}))
	for name, test := range map[string]struct {
		text, err string
		none      bool
	}{
		"all":                {text: written.String()},
		"another version":    {text: `{"version":2,"names":["a","b"],"count":7}`, err: "it has version 2, want 1", none: true},
		"no version":         {text: `{"names":["a","b"],"count":7}`, err: "want 1", none: true},
		"a damaged part":     {text: `{"version":1,"names":["a","b"],"count":"7"}`, err: "count: ", none: true},
		"a state that ended": {text: written.String()[:written.Len()/2], err: "unexpected end of JSON input", none: true},
	} {
		t.Run(name, func(t *testing.T) {
			var names []string
			var count int
			var order []string
			parts := []Part{
				NewPart("new", func() string { return "" }, func(s string) { order = append(order, "new"+s) }),
				NewPart("names", save, func(v []string) { names, order = v, append(order, "names") }),
				NewPart("count", func() int { return 0 }, func(v int) { count, order = v, append(order, "count") }),
			}
			err := Restore(strings.NewReader(test.text), parts)
			verify.That(t, (err == nil) == (test.err == "") && (err == nil || strings.Contains(err.Error(), test.err)), "error %v, want %q", err, test.err)
			verify.That(t, test.none == (names == nil) && test.none == (count == 0), "restored %v and %d", names, count)
			verify.Slices(t, order, []string{"new", "names", "count"}, "restored in the order")
		})
	}
	t.Run("no state", func(t *testing.T) {
		called := false
		err := Restore(nil, []Part{NewPart("names", save, func(v []string) { called = v == nil })})
		verify.That(t, err == nil && called, "error %v, restored from nothing: %t", err, called)
	})
}

// The old process sees an error if the new one closes the pipe before all is read.
func TestStateIsReadToItsEnd(t *testing.T) {
	reader, writer := io.Pipe()
	saved := make(chan error, 1)
	go func() {
		saved <- Save(writer, nil)
		writer.Close()
	}()
	err := Restore(iotest.OneByteReader(reader), nil)
	reader.Close()
	verify.NoError(t, err)
	verify.NoError(t, <-saved)
}
