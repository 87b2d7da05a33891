package http3

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/quic-go/quic-go/quicvarint"

	"sluice/test/verify"
)

// What may come on a stream that must not end, behind its type, and which fault it is. What is
// allowed ends with the stream.
var criticals = []struct {
	of   streamType
	text string
	want *Error
}{
	{streamControl, "", errCriticalClosed},
	{streamControl, "\x04\x00", errCriticalClosed},
	{streamControl, "\x04\x02\x06\x10", errCriticalClosed},
	{streamControl, "\x04\x0b\x01\x00\x06\x80\x00\x80\x00\x07\x00\x08\x01", errCriticalClosed},
	{streamControl, "\xc0\x00\x00\x00\x00\x00\x00\x04\xc0\x00\x00\x00\x00\x00\x00\x00", errCriticalClosed},
	{streamControl, "\x04\x00\x07\x01\x04\x07\x01\x00\x0d\x01\x01\x0d\x02\x40\x05\x0d\x01\x05", errCriticalClosed},
	{streamControl, "\x04\x00\x0d\x08\xc0\x00\x00\x00\x00\x00\x00\x01", errCriticalClosed},
	{streamControl, "\x04\x00\x21\x05grease\x40\x52\x40\x03abc\x80\x0f\x07\x00\x04\x00u=1", errCriticalClosed},
	{streamControl, "\x04\x00\x21\xff\xff\xff\xff\xff\xff\xff\xff", errCriticalClosed},
	{streamControl, "\xff", errCriticalClosed},
	{streamControl, "\x07\x01\x00", errMissingSettings},
	{streamControl, "\x21\x00", errMissingSettings},
	{streamControl, "\x04\x02\x08\x02", errSettings},
	{streamControl, "\x04\x02\x02\x00", errSettings},
	{streamControl, "\x04\x02\x05\x00", errSettings},
	{streamControl, "\x04\x04\x21\x01\x21\x02", errSettings},
	{streamControl, "\x04\x01\x40", errFrameLength},
	{streamControl, "\x04\x01\x06", errFrameLength},
	{streamControl, "\x04\x44\x01" + strings.Repeat("\x00", 1025), errTooManySettings},
	{streamControl, unknownSettings(maxSettings), errCriticalClosed},
	{streamControl, unknownSettings(maxSettings + 1), errTooManySettings},
	{streamControl, "\x04\x00\x07\x01\x00\x07\x01\x04", errID},
	{streamControl, "\x04\x00\x0d\x01\x04\x0d\x01\x00", errID},
	{streamControl, "\x04\x00\x03\x01\x00", errID},
	{streamControl, "\x04\x00\x07\x00", errFrameLength},
	{streamControl, "\x04\x00\x07\x02\x00\x00", errFrameLength},
	{streamControl, "\x04\x00\x07\x01\x40", errFrameLength},
	{streamControl, "\x04\x00\x00\x00", errFrameUnexpected},
	{streamControl, "\x04\x00\x01\x00", errFrameUnexpected},
	{streamControl, "\x04\x00\x02\x00", errFrameUnexpected},
	{streamControl, "\x04\x00\x04\x00", errFrameUnexpected},
	{streamControl, "\x04\x00\x05\x00", errFrameUnexpected},
	{streamControl, "\x04\x00\x06\x00", errFrameUnexpected},
	{streamControl, "\x04\x00\x08\x00", errFrameUnexpected},
	{streamControl, "\x04\x00\x09\x00", errFrameUnexpected},

	{streamEncoder, "", errCriticalClosed},
	{streamEncoder, "\x20\x20", errCriticalClosed},
	{streamEncoder, "\x3f\x01", errEncoder},
	{streamEncoder, "\x80", errEncoder},
	{streamEncoder, "\xc0\x01x", errEncoder},
	{streamEncoder, "\x20\x00", errEncoder},

	{streamDecoder, "", errCriticalClosed},
	{streamDecoder, "\x40\x41\x7f\x00\x7f", errCriticalClosed},
	{streamDecoder, "\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", errCriticalClosed},
	{streamDecoder, "\x7f" + strings.Repeat("\xff", 20), errDecoder},
	{streamDecoder, "\x80", errDecoder},
	{streamDecoder, "\x40\x01", errDecoder},
}

// unknownSettings returns SETTINGS with n of them.
func unknownSettings(n int) string {
	text := []byte{byte(frameSettings), 0x40 | byte(3*n>>8), byte(3 * n)}
	for i := range n {
		text = append(text, 0x50, byte(i), 0)
	}
	return string(text)
}

func TestCriticalStreams(t *testing.T) {
	for _, test := range criticals {
		got := readCritical(bufio.NewReaderSize(strings.NewReader(test.text), uniBufferBytes), test.of)
		verify.Equal(t, got, test.want, "stream type %d: %.40q", test.of, test.text)
	}
}

func TestUniStreams(t *testing.T) {
	var u uniStreams
	for _, at := range []streamType{streamControl, streamEncoder, streamDecoder} {
		verify.Equal(t, u.open(at), nil, "the first stream of type %d", at)
		verify.Equal(t, u.open(at), errSecondStream, "the second stream of type %d", at)
	}
	verify.Equal(t, u.open(streamPush), errPushStream, "a push stream")
	for range maxUnknownStreams / 2 {
		verify.Equal(t, u.open(0x21), nil, "an unknown stream")
		verify.Equal(t, u.open(streamWithoutType), nil, "a stream without a type")
	}
	verify.Equal(t, u.open(0x40), errTooManyStreams, "one more")
}

// Whatever comes on a stream that must not end, its reader ends with it, keeps no more of it than a
// few settings, and says the same in whichever parts it comes. [FuzzHTTP3] of package proxy has the
// streams of requests.
func FuzzCriticalStreams(f *testing.F) {
	for _, test := range criticals {
		f.Add(uint8(test.of), []byte(test.text))
	}
	f.Fuzz(func(t *testing.T, kind uint8, text []byte) {
		at := map[uint8]streamType{0: streamControl, 2: streamEncoder, 3: streamDecoder}[kind%4]
		whole := bytes.NewReader(text)
		fault := readCritical(bufio.NewReaderSize(whole, uniBufferBytes), at)
		verify.Require(t, fault != nil, "a stream that ends is no fault")
		inParts := readCritical(bufio.NewReaderSize(iotest.OneByteReader(bytes.NewReader(text)), uniBufferBytes), at)
		verify.Equal(t, inParts, fault, "the fault, byte by byte")
		if fault == errCriticalClosed {
			verify.Equal(t, whole.Len(), 0, "bytes that were not read")
		}
		if at == streamControl {
			checkControl(t, text, fault)
		}
	})
}

// checkControl compares a fault with what another reader of integers finds in a control stream.
func checkControl(t *testing.T, text []byte, fault *Error) {
	next := func(b *[]byte) (uint64, bool) {
		v, n, err := quicvarint.Parse(*b)
		if err == nil {
			*b = (*b)[n:]
		}
		return v, err == nil
	}
	rest := text
	for first := true; ; first = false {
		frame, ok := next(&rest)
		if !ok {
			break
		}
		length, ok := next(&rest)
		if !ok {
			break
		}
		switch {
		case first && frame != uint64(frameSettings):
			verify.Equal(t, fault, errMissingSettings, "the fault of a first frame %#x", frame)
			return
		case !first && (frame <= 2 || frame >= 4 && frame <= 6 || frame == 8 || frame == 9):
			verify.Equal(t, fault, errFrameUnexpected, "the fault of a frame %#x", frame)
			return
		}
		if first || frame == 3 || frame == 7 || frame == 0xd {
			if fault != errCriticalClosed { // it may be one of the payload
				return
			}
		}
		if length > uint64(len(rest)) {
			break
		}
		rest = rest[length:]
	}
	verify.Equal(t, fault, errCriticalClosed, "the fault of %q", text)
}

// A reset and the end of a stream that must not end are faults, the end of the connection is none.
func TestReadCriticalAtTheEnd(t *testing.T) {
	for _, test := range []struct {
		err  error
		want *Error
	}{{io.EOF, errCriticalClosed}, {io.ErrUnexpectedEOF, errCriticalClosed}, {errors.New("the connection has ended"), nil}} {
		in := io.MultiReader(strings.NewReader("\x04\x00\x21"), iotest.ErrReader(test.err))
		got := readCritical(bufio.NewReaderSize(in, uniBufferBytes), streamControl)
		verify.Equal(t, got, test.want, "%v", test.err)
	}
}

// Integers and frame headers are those of quic-go.
func TestIntegersAndHeaders(t *testing.T) {
	for _, v := range []uint64{0, 1, 63, 64, 16383, 16384, 1<<30 - 1, 1 << 30, 1<<62 - 1} {
		b := quicvarint.Append(nil, v)
		got, err := readInteger(bufio.NewReader(bytes.NewReader(b)))
		verify.That(t, err == nil && got == v && lengthOfInteger(b[0]) == len(b) && integer(b) == v, "%d: got %d, %v", v, got, err)
		cut, rest, ok := cutInteger(append(b, 7))
		verify.That(t, ok && cut == v && len(rest) == 1, "%d: cut %d, %v, %d are left", v, cut, ok, len(rest))
		for n := range b {
			_, err := readInteger(bufio.NewReader(bytes.NewReader(b[:n])))
			_, _, ok := cutInteger(b[:n])
			verify.That(t, err != nil && !ok, "%d: %d bytes are enough", v, n)
		}
	}
	for _, length := range []int{0, 1, 63, 64, 16383, 16384, 1 << 20, 1<<30 - 1} {
		b := AppendData([]byte("x"), length)[1:]
		frame, n, err := quicvarint.Parse(b)
		verify.That(t, err == nil && frame == 0, "a type %d, %v", frame, err)
		got, m, err := quicvarint.Parse(b[n:])
		verify.That(t, err == nil && got == uint64(length) && n+m == len(b), "length %d: got %d, %v, in %d of %d bytes", length, got, err, n+m, len(b))
	}
	b := EndHeaders(append(BeginHeaders([]byte("xy")), strings.Repeat("s", 20_000)...), 2)[2:]
	frame, n, _ := quicvarint.Parse(b)
	length, m, err := quicvarint.Parse(b[n:])
	verify.That(t, err == nil && frame == 1 && length == 20_000 && n+m+20_000 == len(b), "HEADERS: a frame %d of %d bytes, %v", frame, length, err)
}

// Readers of streams that clients may flood allocate nothing for what they read.
func TestFloodsOfCriticalStreamsAllocateNothing(t *testing.T) {
	for kind, text := range map[streamType]string{
		streamControl: "\x04\x00" + strings.Repeat("\x21\x03abc\x07\x01\x00", 1000),
		streamEncoder: strings.Repeat("\x20", 10_000),
		streamDecoder: strings.Repeat("\x41\x7f\x01", 5000),
	} {
		in, source := bufio.NewReaderSize(nil, uniBufferBytes), new(strings.Reader)
		allocated := testing.AllocsPerRun(20, func() {
			source.Reset(text)
			in.Reset(source)
			readCritical(in, kind)
		})
		verify.That(t, allocated <= 20, "stream type %d: %v allocations", kind, allocated)
	}
}
