package http2

import (
	"bytes"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/test/verify"
)

// Others read the frames that are written.
func TestOthersReadFrames(t *testing.T) {
	var out []byte
	out = AppendSettings(out, Setting{SettingMaxConcurrentStreams, 100}, Setting{SettingNoPriorities, 1})
	out = AppendSettingsAck(out)
	out = AppendPing(out, FlagAck, []byte("12345678"))
	out = AppendResetStream(out, 5, Cancel)
	out = AppendWindowUpdate(out, 7, 1<<20)
	out = AppendGoAway(out, 9, EnhanceYourCalm)
	framer := xhttp2.NewFramer(nil, bytes.NewReader(out))
	var got []string
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			break
		}
		switch f := frame.(type) {
		case *xhttp2.SettingsFrame:
			v, ok := f.Value(xhttp2.SettingMaxConcurrentStreams)
			verify.That(t, f.IsAck() || ok && v == 100, "got %v", f)
		case *xhttp2.PingFrame:
			verify.That(t, string(f.Data[:]) == "12345678" && f.IsAck(), "got %v", f)
		case *xhttp2.RSTStreamFrame:
			verify.That(t, f.StreamID == 5 && f.ErrCode == xhttp2.ErrCodeCancel, "got %v", f)
		case *xhttp2.WindowUpdateFrame:
			verify.That(t, f.StreamID == 7 && f.Increment == 1<<20, "got %v", f)
		case *xhttp2.GoAwayFrame:
			verify.That(t, f.LastStreamID == 9 && f.ErrCode == xhttp2.ErrCodeEnhanceYourCalm, "got %v", f)
		}
		got = append(got, frame.Header().Type.String())
	}
	verify.Equal(t, strings.Join(got, " "), "SETTINGS SETTINGS PING RST_STREAM WINDOW_UPDATE GOAWAY", "got %s", got)
}

// A long field block is divided into frames.
func TestLongFieldBlock(t *testing.T) {
	for _, length := range []int{10, MaxFrameBytes - 20, MaxFrameBytes, 3*MaxFrameBytes + 7} {
		value := strings.Repeat("v", length)
		out := append([]byte("before"), make([]byte, FrameHeaderBytes)...)
		out = AppendField(AppendStatus(out, 200), []byte("X-Long"), []byte(value))
		out = EndFieldBlock(out, len("before"), 3, true)
		framer := xhttp2.NewFramer(nil, bytes.NewReader(out[len("before"):]))
		framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		frame, err := framer.ReadFrame()
		verify.NoError(t, err)
		head := frame.(*xhttp2.MetaHeadersFrame)
		verify.That(t, head.StreamEnded() && head.StreamID == 3 && len(head.Fields) == 2 && head.Fields[1].Value == value, "length %d: got %v", length, head)
		if _, err := framer.ReadFrame(); err == nil {
			t.Errorf("length %d: another frame", length)
		}
	}
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
