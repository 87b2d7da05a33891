package transfer

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"sluice/proxy/http1"
	"sluice/test/verify"
)

// forwarded returns what a client gets of the chunked body b, which arrives in pieces of at most
// size bytes, or in two: the first of size bytes. Some data may be in coded pieces.
func forwarded(t *testing.T, b []byte, size int, two, coded bool) (sent []byte, coding bool) {
	r := Reader{Chunked: true, Lenient: true}
	var text []byte // that was read, and not taken
	length := int64(0)
	for last := false; !last; {
		if len(text) == 0 {
			n := min(size, len(b))
			verify.Require(t, n > 0, "the body is read, and is not at its end: %q", sent)
			if text, b = bytes.Clone(b[:n]), b[n:]; two {
				size = len(b)
			}
		}
		p, n, err := r.Next(text, coded)
		verify.NoError(t, err)
		verify.Require(t, n > 0, "it took nothing of %q", text)
		coding = coding || p.Coded && len(p.Text) > 0
		length += p.Length
		last = p.Last
		rest := bytes.Clone(text[n:])
		verify.NoError(t, Send(nil, p, true, true, func(b []byte) error { sent = append(sent, b...); return nil }))
		text = rest
	}
	verify.Require(t, r.Ended() && length == r.Length(), "the pieces have %d bytes of %d, ended: %t", length, r.Length(), r.Ended())
	return append(sent, text...), coding
}

// strictly returns the data and the trailer section of a chunked body that a strict recipient
// takes as a whole.
func strictly(t *testing.T, b []byte) (data, trailer string) {
	var s http1.ChunkScanner
	for n := 0; !s.Done(); {
		inTrailer := s.InTrailer()
		taken, start, err := s.Next(b[n:])
		verify.Require(t, err == nil && taken > 0, "a strict client refuses it at %d: %v: %.300q", n, err, b)
		if data += string(b[n+start : n+taken]); inTrailer {
			trailer += string(b[n : n+taken])
		}
		if n += taken; s.Done() {
			verify.Require(t, n == len(b), "%q is left of it", b[n:])
		}
	}
	return data, trailer
}

// Whatever the sizes of a peer look like, and wherever the buffers end, a client gets chunks that
// a strict one takes, with the same data.
func TestClientsGetNoOddChunks(t *testing.T) {
	x := strings.Repeat("x", 300)
	for name, test := range map[string]struct{ body, data, trailer string }{
		"usual":                {"3\r\nabc\r\n02\r\nde\r\n0\r\n\r\n", "abcde", "\r\n"},
		"usual, extensions":    {"3;a=b\r\nabc\r\n2;c\r\nde\r\n0;d\r\nX: y\r\n\r\n", "abcde", "X: y\r\n\r\n"},
		"first":                {"3  \r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde", "\r\n"},
		"in the middle":        {"3\r\nabc\r\n2 \t;a\r\nde\r\n4\r\nfghi\r\n0\r\n\r\n", "abcdefghi", "\r\n"},
		"last":                 {"3\r\nabc\r\n0  \r\nX: y\r\n\r\n", "abc", "X: y\r\n\r\n"},
		"all":                  {"3 \r\nabc\r\n2 \r\nde\r\n0 \r\nX: y\r\n\r\n", "abcde", "X: y\r\n\r\n"},
		"digits":               {"1\r\na\r\n00000000000000000002\r\nbc\r\n00000000000000000000\r\n\r\n", "abc", "\r\n"},
		"a long extension":     {"1\r\na\r\n2;sig=" + x + "\r\nbc\r\n1\r\nd\r\n0;sig=" + x + "\r\n\r\n", "abcd", "\r\n"},
		"data like sizes":      {"4\r\n2  \r\r\n3 \r\n0\r\n\r\n0\r\n\r\n", "2  \r0\r\n", "\r\n"},
		"nothing":              {"0 \r\n\r\n", "", "\r\n"},
		"nothing but trailers": {"0\t\r\nX: y\r\nZ:\r\n\r\n", "", "X: y\r\nZ:\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			body := []byte(test.body)
			for size := 1; size <= len(body); size++ {
				for _, two := range []bool{false, true} {
					for _, coded := range []bool{false, true} {
						sent, coding := forwarded(t, body, size, two, coded)
						data, trailer := strictly(t, sent)
						verify.Require(t, data == test.data && trailer == test.trailer, "pieces of %d, two: %t, coded: %t: got %q", size, two, coded, sent)
						verify.Require(t, coded || !coding, "a coded piece was not wanted")
					}
				}
			}
			sent, coding := forwarded(t, body, len(body), false, true)
			verify.That(t, !strings.HasPrefix(name, "usual") || coding && bytes.Equal(sent, body), "usual chunks are not forwarded as they are: %q", sent)
		})
	}
}

func FuzzClientsGetNoOddChunks(f *testing.F) {
	for i, seed := range []string{"3\r\nabc\r\n2 \r\nde\r\n1\r\nf\r\n0\r\n\r\n", "00000000000000000001;a\r\na\r\n1\r\nb\r\n0 \r\nX: y\r\n\r\n"} {
		f.Add([]byte(seed), uint16(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		s := http1.ChunkScanner{Lenient: true}
		var data []byte
		for n := 0; !s.Done(); {
			taken, start, err := s.Next(b[n:])
			if err != nil || taken == 0 {
				return
			}
			data = append(data, b[n+start:n+taken]...)
			if n += taken; s.Done() {
				b = b[:n]
			}
		}
		for _, two := range []bool{false, true} {
			sent, _ := forwarded(t, b, 1+int(size)%len(b), two, true)
			got, _ := strictly(t, sent)
			verify.Require(t, got == string(data), "got %q, want %q", got, data)
		}
	})
}

// A client that begins to read coded chunks within one gets the rest of it.
func TestCodedPiecesBeginWithAChunk(t *testing.T) {
	r := Reader{Chunked: true, Lenient: true}
	var pieces []string
	for i, text := range []string{"5\r\nab", "cde\r\n2\r\nfg\r\n", "3\r\nhij\r\n0\r\n\r\n"} {
		p, n, err := r.Next([]byte(text), i > 0)
		verify.That(t, err == nil && n == len(text), "took %d of %q, %v", n, text, err)
		pieces = append(pieces, fmt.Sprintf("%t %s", p.Coded, p.Text))
	}
	verify.Slices(t, pieces, []string{"false ab", "false cdefg", "true 3\r\nhij\r\n0\r\n"}, "the pieces")
}
