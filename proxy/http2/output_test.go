package http2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/proxy/fields"
	"sluice/test/verify"
)

// An outputLog notes what an Output has moved, for each stream.
type outputLog struct {
	stream uint32
	moved  *[]string
}

func (l outputLog) Moved(n int, whole, ends bool) {
	*l.moved = append(*l.moved, fmt.Sprintf("%d: %d %t %t", l.stream, n, whole, ends))
}

// framesOf returns the frames in b, such as "DATA 1 5", with "end" at that of a stream.
func framesOf(t *testing.T, b []byte) (all []string) {
	t.Helper()
	names := map[FrameType]string{FrameData: "DATA", FrameHeaders: "HEADERS", FrameContinuation: "CONTINUATION"}
	for len(b) > 0 {
		h := ParseFrameHeader(b)
		text := fmt.Sprintf("%s %d %d", names[h.Type], h.StreamID, h.Length)
		if h.Type != FrameContinuation && h.Has(FlagEndStream) {
			text += " end"
		}
		all = append(all, text)
		b = b[FrameHeaderBytes+h.Length:]
	}
	return all
}

// What streams send moves in turn, as far as there is room and both windows allow.
func TestOutput(t *testing.T) {
	type step func(o *Output, s []*Sender)
	block := func(stream uint32, ends bool) []byte {
		return EndFieldBlock(append(make([]byte, FrameHeaderBytes), 0x88), 0, stream, ends)
	}
	send := func(stream int, head, body, trailer int, ends bool) step { // head and trailer: whether there is one
		return func(o *Output, s []*Sender) {
			var first, last []byte
			if head > 0 {
				first = block(uint32(stream), ends && body+trailer == 0)
			}
			if trailer > 0 {
				last = block(uint32(stream), ends)
			}
			o.Send(s[stream], first, make([]byte, body), last, ends)
			o.Fill()
		}
	}
	enlarge := func(stream int, change Window) step {
		return func(o *Output, s []*Sender) {
			if err := o.Enlarge(s[stream], change); err != nil { // no error interface
				t.Error(err)
			}
			o.Fill()
		}
	}
	connection := func(change Window) step { return func(o *Output, _ []*Sender) { o.Window += change; o.Fill() } }
	take := step(func(o *Output, _ []*Sender) { o.Recycle(o.Take()); o.Fill() })
	halt := func(stream int) step { return func(o *Output, s []*Sender) { o.Halt(s[stream]); o.Fill() } }
	drop := func(stream int) step { return func(o *Output, s []*Sender) { o.Drop(s[stream]); o.Fill() } }
	direct := step(func(o *Output, _ []*Sender) { // a block that no Sender sends
		start := len(o.Frames)
		o.Frames = append(append(o.Frames, make([]byte, FrameHeaderBytes)...), 0x88)
		o.EndBlock(start, 1, false)
	})
	reduce := step(func(o *Output, _ []*Sender) { o.SetTableSize(fields.InitialTableBytes); o.SetTableSize(0) })
	for _, test := range []struct {
		name    string
		steps   []step
		frames  string // of all takes
		moved   string
		sending []int
	}{
		{"head", []step{send(1, 1, 0, 0, true)}, "HEADERS 1 1 end", "1: 0 true true", nil},
		{"head of a longer response", []step{send(1, 1, 0, 0, false)}, "HEADERS 1 1", "1: 0 true false", nil},
		{"all parts", []step{send(1, 1, 5, 1, true)}, "HEADERS 1 1, DATA 1 5, HEADERS 1 1 end", "1: 5 true true", nil},
		{"empty end", []step{send(1, 0, 0, 0, true)}, "DATA 1 0 end", "1: 0 true true", nil},
		{"trailer after nothing", []step{send(1, 0, 0, 1, true)}, "HEADERS 1 1 end", "1: 0 true true", nil},
		{"in turn", []step{send(1, 0, 0, 0, false), connection(-InitialWindow), send(1, 0, 20000, 0, true), send(2, 0, 5, 0, true), connection(InitialWindow)},
			"DATA 1 16384, DATA 2 5 end, DATA 1 3616 end", "1: 0 true false, 1: 16384 false false, 2: 5 true true, 1: 3616 true true", nil},
		{"window of the stream", []step{enlarge(1, 3-InitialWindow), send(1, 0, 5, 0, true), send(2, 0, 5, 0, true), enlarge(1, 0), enlarge(1, 1), enlarge(1, 1)},
			"DATA 1 3, DATA 2 5 end, DATA 1 1, DATA 1 1 end", "1: 3 false false, 2: 5 true true, 1: 1 false false, 1: 1 true true", nil},
		{"negative window", []step{enlarge(1, -InitialWindow-10), send(1, 1, 5, 0, true), enlarge(1, 10), enlarge(1, 2)},
			"HEADERS 1 1, DATA 1 2", "1: 2 false false", []int{1}},
		{"an end needs no window", []step{enlarge(1, -InitialWindow-10), send(1, 0, 0, 0, true)}, "DATA 1 0 end", "1: 0 true true", nil},
		{"a trailer needs no window", []step{enlarge(1, -InitialWindow-10), connection(-InitialWindow - 10), send(1, 0, 0, 1, true)}, "HEADERS 1 1 end", "1: 0 true true", nil},
		{"window of the connection, which keeps the turn", []step{connection(2 - InitialWindow), send(1, 0, 5, 0, true), send(2, 0, 5, 0, true), send(3, 1, 0, 0, true), connection(4)},
			"DATA 1 2, HEADERS 3 1 end, DATA 1 3 end, DATA 2 1", "1: 2 false false, 3: 0 true true, 1: 3 true true, 2: 1 false false", []int{2}},
		{"room", []step{enlarge(1, 100_000), connection(100_000), send(1, 0, 100_000, 0, true), send(2, 0, 5, 0, true), take},
			"DATA 1 16384, DATA 1 16384, DATA 1 16384, DATA 1 16384, DATA 1 16384, DATA 2 5 end, DATA 1 16384, DATA 1 1696 end", "", nil},
		{"halted", []step{connection(2 - InitialWindow), send(1, 0, 5, 0, true), send(2, 0, 5, 0, true), halt(1), enlarge(1, 5), connection(10)},
			"DATA 1 2, DATA 2 5 end", "1: 2 false false, 2: 5 true true", []int{1}},
		{"halted without a window", []step{enlarge(1, 2-InitialWindow), send(1, 0, 5, 0, true), halt(1), enlarge(1, 5)}, "DATA 1 2", "1: 2 false false", []int{1}},
		{"dropped", []step{connection(-InitialWindow), send(1, 0, 5, 0, true), send(2, 0, 5, 0, true), send(3, 0, 5, 0, true), drop(2), connection(20)},
			"DATA 1 5 end, DATA 3 5 end", "1: 5 true true, 3: 5 true true", nil},
		{"smaller table, told without a sender", []step{direct, reduce, direct, direct}, "HEADERS 1 1, HEADERS 1 2, HEADERS 1 1", "", nil},
		{"smaller table, told in a trailer section", []step{send(1, 1, 0, 0, false), reduce, send(1, 0, 0, 1, true)}, "HEADERS 1 1, HEADERS 1 2 end", "1: 0 true false, 1: 0 true true", nil},
		{"smaller table", []step{reduce, send(1, 1, 0, 0, true), send(2, 1, 0, 0, true)}, "HEADERS 1 2 end, HEADERS 2 1 end", "1: 0 true true, 2: 0 true true", nil},
	} {
		o := NewOutput()
		var moved, frames []string
		senders := make([]*Sender, 4)
		for i := range senders {
			senders[i] = new(Sender)
			o.Open(senders[i], outputLog{uint32(i), &moved}, uint32(i))
		}
		for _, s := range test.steps {
			s(&o, senders)
			frames = append(frames, framesOf(t, o.Frames)...)
			o.Recycle(o.Take())
		}
		for o.Fill(); len(o.Frames) > 0; o.Fill() {
			frames = append(frames, framesOf(t, o.Frames)...)
			o.Recycle(o.Take())
		}
		verify.Equal(t, strings.Join(frames, ", "), test.frames, "%s", test.name)
		got := strings.Join(moved, ", ")
		verify.That(t, test.moved == "" || got == test.moved, "%s: moved %s, want %s", test.name, got, test.moved)
		for i, s := range senders {
			queued := s.IsSending() && s.window > 0 && !s.halted // it waits for the connection
			verify.That(t, s.IsSending() == slices.Contains(test.sending, i) && s.IsQueued() == queued, "%s: stream %d: sending %t, queued %t", test.name, i, s.IsSending(), s.IsQueued())
		}
	}
}

// Answers that the other side does not read end the connection; those that it reads do not.
func TestUnreadAnswers(t *testing.T) {
	o := NewOutput()
	for i := range 3 * MaxAnswers {
		o.Frames = AppendSettingsAck(o.Frames)
		if err := o.CountAnswer(); err != nil {
			t.Fatalf("after %d answers: %v", i, err)
		}
		if i%MaxAnswers == MaxAnswers-1 {
			o.Recycle(o.Take())
		}
	}
	for range MaxAnswers {
		o.CountAnswer()
	}
	if err := o.CountAnswer(); err == nil || err.Code != EnhanceYourCalm {
		t.Errorf("got %v", err)
	}
}

// However the windows change, the frames of a body are the body. Each has as much as both windows
// allow, and the last one ends the stream, which needs no window if no bytes are left.
func TestCutsAreTheBody(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	lengths := []int{0, 1, MaxFrameBytes, MaxFrameBytes + 1, 5 * MaxFrameBytes}
	for range 1000 {
		body := make([]byte, lengths[r.IntN(len(lengths))])
		for i := range body {
			body[i] = byte(r.Uint32())
		}
		ends := r.IntN(2) == 0
		var got []byte
		stream, connection := Window(0), Window(0)
		for rest, last := body, false; !last; {
			stream.Enlarge(Window(r.Int64N(60_000) - 20_000))
			connection.Enlarge(Window(r.Int64N(60_000) - 20_000))
			what := fmt.Sprintf("seed %d: a cut from %d bytes with the windows %d and %d, ends %t", seed, len(rest), stream, connection, ends)
			allowed := int(max(0, min(stream, connection, MaxFrameBytes)))
			n := min(len(rest), allowed)
			last = n == len(rest)
			wantStream, wantConnection := stream-Window(n), connection-Window(n)
			cut := spend(rest, ends, &stream, &connection)
			verify.Require(t, len(cut.payload) == n && len(cut.rest) == len(rest)-n && stream == wantStream && connection == wantConnection,
				"%s: %d bytes and %d; windows %d and %d", what, len(cut.payload), len(cut.rest), stream, connection)
			verify.Require(t, cut.isBlocked() == (len(rest) > 0 && allowed == 0) && cut.isLast() == last && cut.endStream == (last && ends),
				"%s: blocked %t, last %t, END_STREAM %t", what, cut.isBlocked(), cut.isLast(), cut.endStream)
			frame := cut.appendFrame(nil, 7)
			if n == 0 && !cut.endStream {
				verify.Require(t, len(frame) == 0, "%s: a frame without meaning: %x", what, frame)
			} else {
				want := FrameHeader{Length: n, Type: FrameData, StreamID: 7}
				if cut.endStream {
					want.Flags = FlagEndStream
				}
				verify.Require(t, ParseFrameHeader(frame) == want && len(frame) == FrameHeaderBytes+n, "%s: got %+v in %d bytes", what, ParseFrameHeader(frame), len(frame))
				got = append(got, frame[FrameHeaderBytes:]...)
			}
			rest = cut.rest
		}
		verify.Require(t, bytes.Equal(got, body), "seed %d: the frames are not the body", seed)
	}
}
