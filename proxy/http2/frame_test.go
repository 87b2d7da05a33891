package http2

import (
	"bytes"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"sluice/test/verify"
)

// The frames are the same as those that others write.
func TestFramesAsOthersWriteThem(t *testing.T) {
	var want bytes.Buffer
	other := xhttp2.NewFramer(&want, nil)
	other.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 100}, xhttp2.Setting{ID: 9, Val: 1})
	other.WriteSettingsAck()
	other.WritePing(true, [8]byte([]byte("12345678")))
	other.WriteRSTStream(5, xhttp2.ErrCodeCancel)
	other.WriteWindowUpdate(7, 1<<20)
	other.WriteGoAway(9, xhttp2.ErrCodeEnhanceYourCalm, nil)
	got := AppendSettings(nil, Setting{SettingMaxConcurrentStreams, 100}, Setting{SettingNoPriorities, 1})
	got = AppendSettingsAck(got)
	got = AppendPing(got, FlagAck, []byte("12345678"))
	got = AppendResetStream(got, 5, Cancel)
	got = AppendWindowUpdate(got, 7, 1<<20)
	got = AppendGoAway(got, 9, EnhanceYourCalm)
	verify.Equal(t, string(got), want.String(), "the frames")
}

// What x/net writes is read, and what it refuses is refused.
func FuzzFrame(f *testing.F) {
	var b bytes.Buffer
	framer := xhttp2.NewFramer(&b, nil)
	add := func(err error) {
		verify.NoError(f, err)
		f.Add(bytes.Clone(b.Bytes()))
		b.Reset()
	}
	add(framer.WriteDataPadded(1, true, []byte("data"), []byte{0, 0}))
	add(framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}, PadLength: 3, Priority: xhttp2.PriorityParam{StreamDep: 5, Weight: 1}}))
	add(framer.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxFrameSize, Val: 1 << 20}, xhttp2.Setting{ID: 77, Val: 1}))
	add(framer.WriteSettingsAck())
	add(framer.WritePing(false, [8]byte{1}))
	add(framer.WriteRSTStream(3, 1))
	add(framer.WriteWindowUpdate(0, 5))
	add(framer.WriteGoAway(3, 1, []byte("debug")))
	add(framer.WriteContinuation(1, true, []byte{1}))
	add(framer.WriteRawFrame(0xbe, 0, 0, []byte("unknown")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < FrameHeaderBytes {
			return
		}
		h := ParseFrameHeader(b)
		if h.Length > MaxFrameBytes || len(b) < FrameHeaderBytes+h.Length {
			return
		}
		payload := b[FrameHeaderBytes:][:h.Length]
		framer := xhttp2.NewFramer(nil, bytes.NewReader(b))
		framer.AllowIllegalReads = true // the order of frames
		frame, oracle := framer.ReadFrame()
		err := h.Check()
		var content []byte
		if err == nil && (h.Type == FrameData || h.Type == FrameHeaders) {
			content, _, err = h.Unpad(payload)
		}
		if err == nil && h.Type == FrameSettings {
			for rest := payload; len(rest) > 0 && err == nil; {
				_, rest, err = NextSetting(rest)
			}
		}
		if err != nil {
			return
		}
		// The connection checks the rest; x/net knows more types.
		if h.Type == FrameWindowUpdate || h.Type == FramePriority || h.Type > FrameContinuation {
			return
		}
		verify.Require(t, oracle == nil, "accepted %x, other: %v", b, oracle)
		switch f := frame.(type) {
		case *xhttp2.DataFrame:
			verify.Require(t, bytes.Equal(f.Data(), content), "%x: got %x, want %x", b, content, f.Data())
		case *xhttp2.HeadersFrame:
			verify.Require(t, bytes.Equal(f.HeaderBlockFragment(), content), "%x: got %x, want %x", b, content, f.HeaderBlockFragment())
		}
	})
}
