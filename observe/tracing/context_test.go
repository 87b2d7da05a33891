package tracing

import (
	"encoding/hex"
	"testing"

	"sluice/test/verify"
)

const (
	traceText = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanText  = "00f067aa0ba902b7"
)

func TestParseTraceparent(t *testing.T) {
	for _, test := range []struct {
		field       string
		ok, sampled bool
	}{
		{"00-" + traceText + "-" + spanText + "-01", true, true},
		{"00-" + traceText + "-" + spanText + "-00", true, false},
		{"00-" + traceText + "-" + spanText + "-03", true, true}, // the second bit: the id is random
		{"00-" + traceText + "-" + spanText + "-02", true, false},
		{"01-" + traceText + "-" + spanText + "-01", true, true},
		{"cc-" + traceText + "-" + spanText + "-01-what-comes", true, true},
		{"cc-" + traceText + "-" + spanText + "-01.what-comes", false, false},
		{"00-" + traceText + "-" + spanText + "-01-x", false, false},
		{"ff-" + traceText + "-" + spanText + "-01", false, false},
		{"0-" + traceText + "-" + spanText + "-01", false, false},
		{"00-4BF92F3577B34DA6A3CE929D0E0E4736-" + spanText + "-01", false, false},
		{"00-" + traceText + "-00F067AA0BA902B7-01", false, false},
		{"00-" + traceText + "-" + spanText + "-0G", false, false},
		{"00-" + traceText + "-" + spanText + "-1", false, false},
		{"00-" + traceText + "-" + spanText + "_01", false, false},
		{"00-00000000000000000000000000000000-" + spanText + "-01", false, false},
		{"00-" + traceText + "-0000000000000000-01", false, false},
		{"", false, false},
		{"00-" + traceText, false, false},
	} {
		p, ok := ParseTraceparent([]byte(test.field))
		verify.That(t, ok == test.ok && p.Sampled == test.sampled, "%q: got %v, sampled %v", test.field, ok, p.Sampled)
		verify.That(t, !ok || hex.EncodeToString(p.Trace[:]) == traceText && hex.EncodeToString(p.Span[:]) == spanText, "%q: got %x %x", test.field, p.Trace, p.Span)
		verify.That(t, ok || p == (Parent{}), "%q: got %+v", test.field, p)
	}
}

func FuzzParseTraceparent(f *testing.F) {
	f.Add([]byte("00-" + traceText + "-" + spanText + "-01"))
	f.Add([]byte("cc-" + traceText + "-" + spanText + "-00-x"))
	f.Fuzz(func(t *testing.T, field []byte) {
		p, ok := ParseTraceparent(field)
		if !ok {
			return
		}
		again, ok := ParseTraceparent(AppendTraceparent(nil, p.Trace, p.Span, p.Sampled))
		verify.That(t, ok && again == p, "%q: got %+v, and again %+v", field, p, again)
	})
}
