package http2

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/proxy/fields"
	"sluice/test/verify"
)

// A long block is divided into frames that others read.
func TestOthersReadFieldBlocks(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	oracle := hpack.NewDecoder(fields.InitialTableBytes, nil)
	for range 500 {
		status := 100 + random.IntN(500)
		out := fields.AppendHPACKStatus(append([]byte("before"), make([]byte, FrameHeaderBytes)...), status)
		want := []hpack.HeaderField{{Name: ":status", Value: fmt.Sprint(status)}}
		for range random.IntN(10) {
			length := random.IntN(300)
			if random.IntN(10) == 0 {
				length += random.IntN(3) * (MaxFrameBytes - 200)
			}
			value := strings.Repeat("v", length)
			out = fields.AppendHPACKField(out, []byte("X-A"), []byte(value))
			want = append(want, hpack.HeaderField{Name: "x-a", Value: value})
		}
		out = EndFieldBlock(out, len("before"), 3, true)
		framer := xhttp2.NewFramer(nil, bytes.NewReader(out[len("before"):]))
		framer.ReadMetaHeaders = oracle
		head := verify.Result(framer.ReadFrame()).Must(t).(*xhttp2.MetaHeadersFrame)
		verify.Require(t, head.StreamEnded() && head.StreamID == 3 && slices.Equal(head.Fields, want), "got %v, want %q", head, want)
		_, err := framer.ReadFrame()
		verify.Require(t, err == io.EOF, "another frame, %v", err)
	}
}

func TestEmptyTrailersHaveNoFrame(t *testing.T) {
	for _, section := range []string{"", "\r\n"} { // DATA ends the stream
		verify.Equal(t, len(AppendTrailer(nil, []byte(section), 1)), 0, "%q: bytes", section)
	}
}
