package http2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/test/verify"
)

func TestCutData(t *testing.T) {
	const most = MaxFrameBytes
	for _, test := range []struct {
		body, stream, connection int
		payload                  int
		blocked                  bool
	}{
		{0, 100, 100, 0, false},
		{0, 0, 0, 0, false},
		{0, -1, 100, 0, false},
		{0, 100, -1, 0, false},
		{0, -MaxWindow, -MaxWindow, 0, false},
		{1, -1, 100, 0, true},
		{1, 100, -MaxWindow, 0, true},
		{1, 0, 100, 0, true},
		{1, 100, 0, 0, true},
		{10, 9, 100, 9, false},
		{10, 100, 9, 9, false},
		{10, 10, 10, 10, false},
		{most, most, most, most, false},
		{most + 1, MaxWindow, MaxWindow, most, false},
		{5 * most, MaxWindow, most - 1, most - 1, false},
	} {
		for _, ends := range []bool{false, true} {
			t.Run(fmt.Sprint(test.body, " bytes, windows ", test.stream, " and ", test.connection, ", ends ", ends), func(t *testing.T) {
				body := bytes.Repeat([]byte("x"), test.body)
				cut := CutData(body, ends, Window(test.stream), Window(test.connection))
				last := test.payload == test.body
				verify.That(t, len(cut.Payload) == test.payload && len(cut.Payload)+len(cut.Rest) == test.body, "%d and %d bytes, want %d and the rest", len(cut.Payload), len(cut.Rest), test.payload)
				verify.That(t, cut.IsBlocked() == test.blocked && cut.IsLast() == last && cut.EndStream == (last && ends), "blocked %t, last %t, END_STREAM %t", cut.IsBlocked(), cut.IsLast(), cut.EndStream)
				out := cut.AppendFrame(nil, 7)
				if len(cut.Payload) == 0 && !cut.EndStream {
					verify.That(t, len(out) <= 0, "a frame without meaning: %x", out)
					return
				}
				h := ParseFrameHeader(out)
				want := FrameHeader{Length: test.payload, Type: FrameData, StreamID: 7}
				if cut.EndStream {
					want.Flags = FlagEndStream
				}
				verify.That(t, h == want && len(out) == FrameHeaderBytes+test.payload, "got %+v in %d bytes", h, len(out))
			})
		}
	}
}

// However the windows change, the frames of a body are the body, and they exceed no window.
func TestCutsAreTheBody(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 1000 {
		body := make([]byte, r.IntN(5*MaxFrameBytes))
		for i := range body {
			body[i] = byte(r.Uint32())
		}
		var got []byte
		stream, connection := Window(0), Window(0)
		for rest := body; ; {
			stream.Enlarge(Window(r.Int64N(60_000) - 20_000))
			connection.Enlarge(Window(r.Int64N(60_000) - 20_000))
			streamBefore, connectionBefore := stream, connection
			cut := Spend(rest, true, &stream, &connection)
			n := Window(len(cut.Payload))
			if n > 0 && (min(stream, connection) < 0 || n > MaxFrameBytes) {
				t.Fatalf("seed %d: %d bytes with the windows %d and %d", seed, n, streamBefore, connectionBefore)
			}
			if cut.IsBlocked() != (len(rest) > 0 && min(streamBefore, connectionBefore) <= 0) {
				t.Fatalf("seed %d: blocked %t with the windows %d and %d", seed, cut.IsBlocked(), stream, connection)
			}
			got, rest = append(got, cut.Payload...), cut.Rest
			if cut.EndStream {
				break
			}
		}
		verify.Require(t, bytes.Equal(got, body), "seed %d: the frames are not the body", seed)
	}
}
