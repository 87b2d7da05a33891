package http1

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sluice/test/long"
	"sluice/test/verify"
)

// A chunkReading is what scanning a chunked body came to.
type chunkReading struct {
	taken   int // bytes of the body, or up to where it is malformed
	data    string
	trailer string // the trailer section, its empty line included, once done
	done    bool
	err     error
}

// readChunks scans b as it arrives in pieces that end at the given places. It
// checks what a caller of Next relies on.
func readChunks(b []byte, feeding ...int) (r chunkReading, broken error) {
	var s ChunkScanner
	var data, trailer bytes.Buffer
	for _, end := range feeding {
		for r.taken < end && !s.Done() {
			piece := exactly(b[r.taken:], end-r.taken)
			inTrailer := s.InTrailer()
			n, dataStart, err := s.Next(piece)
			if dataStart < 0 || dataStart > n || n > len(piece) {
				return r, fmt.Errorf("Next gave n %d, dataStart %d for %d bytes", n, dataStart, len(piece))
			}
			r.taken += n
			if err != nil {
				if r.err = err; dataStart != n {
					return r, fmt.Errorf("Next gave %d bytes of data together with an error", n-dataStart)
				}
				break
			}
			data.Write(piece[dataStart:n])
			if inTrailer {
				trailer.Write(piece[:n])
			}
			if s.Length != int64(data.Len()) {
				return r, fmt.Errorf("Length is %d after %d bytes", s.Length, data.Len())
			}
			if n == 0 {
				return r, errors.New("Next took nothing")
			}
			if n < len(piece) && dataStart == n && !s.Done() && (inTrailer || !s.InTrailer()) {
				return r, fmt.Errorf("Next stopped at %d of %q, which is no boundary", n, piece)
			}
		}
		if r.err != nil || s.Done() {
			break
		}
	}
	r.data, r.done = data.String(), s.Done()
	if r.done {
		r.trailer = trailer.String()
		if !s.InTrailer() {
			return r, errors.New("done, but not in the trailer section")
		}
		if n, dataStart, err := s.Next([]byte("0\r\n\r\n")); n != 0 || dataStart != 0 || err != nil {
			return r, fmt.Errorf("Next after the end: %d, %d, %v", n, dataStart, err)
		}
	}
	return r, nil
}

// decodeChunks says the same, written with the grammar of RFC 9112, section 7.1,
// in mind and nothing else. It needs all of the body at once. A body that is not
// complete is not malformed yet where its last line has not ended.
func decodeChunks(b []byte) (r chunkReading) {
	extensions := 0
	line := func() (string, bool) {
		i := bytes.IndexByte(b[r.taken:], '\n')
		if i < 0 {
			return "", false
		}
		line := string(b[r.taken : r.taken+i+1])
		r.taken += i + 1
		return line, true
	}
	fail := func(err error) chunkReading { return chunkReading{data: r.data, err: err} }
	const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]"
	isExtension := regexp.MustCompile(`^(;[ \t]*` + token + `([^";]|"([^"\\]|\\.)*")*)*$`).MatchString
	isText := func(s string) bool {
		return strings.IndexFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) < 0
	}
	for {
		size, ok := line()
		if !ok {
			return r
		}
		size, isLine := strings.CutSuffix(size, "\r\n")
		size, extension, hasExtension := strings.Cut(size, ";")
		n, err := strconv.ParseUint(size, 16, 60)
		extensions += len(extension)
		switch {
		case !isLine, err != nil, strings.ContainsAny(size, "+-_"), len(size) > 15:
			return fail(ErrChunk)
		case hasExtension && (!isText(extension) || !isExtension(";"+extension) || len(extension) > maxChunkExtensionBytes || extensions > maxChunkOverheadBytes+len(r.data)/16):
			return fail(ErrChunk)
		}
		if n == 0 {
			break
		}
		here := b[r.taken:]
		if uint64(len(here)) < n {
			r.data += string(here)
			r.taken = len(b)
			return r
		}
		r.data += string(here[:n])
		r.taken += int(n)
		if end := b[r.taken:]; len(end) < 2 && strings.HasPrefix("\r\n", string(end)) {
			return r
		} else if !bytes.HasPrefix(end, []byte("\r\n")) {
			return fail(ErrChunk)
		}
		r.taken += 2
	}
	start := r.taken
	for fields := 0; ; fields++ {
		field, ok := line()
		if !ok {
			if len(b)-start > maxTrailerBytes {
				return fail(ErrTrailer)
			}
			return r
		}
		if r.taken-start > maxTrailerBytes {
			return fail(ErrTrailer)
		}
		if field == "\r\n" {
			r.trailer, r.done = string(b[start:r.taken]), true
			return r
		}
		field, isLine := strings.CutSuffix(field, "\r\n")
		name, value, isField := strings.Cut(field, ":")
		isToken := name != "" && strings.Trim(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
		if !isLine || !isField || !isToken || !isText(value) || fields == maxTrailerFields {
			return fail(ErrTrailer)
		}
	}
}

// What one octet changes is in TestEveryOctetOfChunks. A body that is not all there is neither
// complete nor malformed.
func TestChunks(t *testing.T) {
	long.Sequential(t)
	x := strings.Repeat("x", 300)
	for _, test := range []struct {
		name, body, data, trailer string
		err                       error
	}{
		{"none", "0\r\n\r\n", "", "\r\n", nil},
		{"several", "3\r\nabc\r\n1\r\nd\r\n2\r\nef\r\n0\r\n\r\n", "abcdef", "\r\n", nil},
		{"hexadecimal in any case", "a\r\n0123456789\r\nA\r\n0123456789\r\n012c\r\n" + x + "\r\n0\r\n\r\n", "01234567890123456789" + x, "\r\n", nil},
		{"zeros before the size", "00000000000003\r\nabc\r\n000\r\n\r\n", "abc", "\r\n", nil},
		{"data that looks like framing", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n", "\r\n", nil},
		{"extensions", "3;a\r\nabc\r\n3;b=c;d=\"e;\\\" f\"; g\t\xff\r\nabc\r\n0;last\r\n\r\n", "abcabc", "\r\n", nil},
		{"longest extension", "1;" + x[:256] + "\r\na\r\n0\r\n\r\n", "a", "\r\n", nil},
		{"trailer", "1\r\na\r\n0\r\nX: y\r\nEmpty:\r\nz:\t\xff \r\n\r\n", "a", "X: y\r\nEmpty:\r\nz:\t\xff \r\n\r\n", nil},
		{"trailer with colons", "0\r\nX::y:\r\n\r\n", "", "X::y:\r\n\r\n", nil},
		{"16 trailer fields", "0\r\n" + strings.Repeat("a:b\r\n", 16) + "\r\n", "", strings.Repeat("a:b\r\n", 16) + "\r\n", nil},
		{"longest trailer section", "0\r\na:" + strings.Repeat("b", maxTrailerBytes-6) + "\r\n\r\n", "", "a:" + strings.Repeat("b", maxTrailerBytes-6) + "\r\n\r\n", nil},

		{"nothing", "\r\n", "", "", ErrChunk},
		{"16 digits", "0000000000000001\r\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"empty extension", "1;\r\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"quoted string with an escaped end", "1;a=\"b\\\"\r\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"extension too long", "1;" + x[:257] + "\r\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"too much of extensions", strings.Repeat("1;"+x[:200]+"\r\na\r\n", 100) + "0\r\n\r\n", strings.Repeat("a", 81), "", ErrChunk},
		{"data too short", "3\r\nab\r\n0\r\n\r\n", "ab\r", "", ErrChunk},
		{"request after last chunk", "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "", "", ErrTrailer},
		{"trailer without colon", "0\r\nX\r\n\r\n", "", "", ErrTrailer},
		{"folded trailer", "0\r\nX: a\r\n b\r\n\r\n", "", "", ErrTrailer},
		{"17 trailer fields", "0\r\n" + strings.Repeat("a:b\r\n", 17) + "\r\n", "", "", ErrTrailer},
		{"trailer section too long", "0\r\na:" + strings.Repeat("b", maxTrailerBytes-5) + "\r\n\r\n", "", "", ErrTrailer},
		{"trailer line never ends", "0\r\na:" + strings.Repeat("b", maxTrailerBytes), "", "", ErrTrailer},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := chunkReading{taken: len(test.body), data: test.data, trailer: test.trailer, done: test.err == nil, err: test.err}
			naive := decodeChunks([]byte(test.body))
			verify.That(t, naive == want || naive.err != nil && naive.err == want.err && naive.data == want.data, "the decoder of this test gives %+v, want %+v", naive, want)
			for _, more := range []string{"", "\r\n", "0\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"} {
				b := []byte(test.body + more)
				for feeding := range feedings(b) {
					got, broken := readChunks(b, feeding...)
					verify.Require(t, broken == nil, "arriving as %v: %v", feeding, broken)
					if want.err != nil {
						want.taken = got.taken
						verify.Require(t, got.taken < len(test.body), "arriving as %v: took all before the error", feeding)
					}
					verify.Require(t, got == want, "arriving as %v: got %+v, want %+v", feeding, got, want)
				}
				if want.err != nil {
					break
				}
			}
		})
	}
}

// Extensions may go on for as long as the data does.
func TestExtensionsInLongBody(t *testing.T) {
	var s ChunkScanner
	chunk := []byte("1000;signature=0123456789abcdef0123456789abcdef\r\n" + strings.Repeat("x", 0x1000) + "\r\n")
	for range 10000 {
		for b := chunk; len(b) > 0; {
			n, _, err := s.Next(b)
			verify.Require(t, err == nil, "after %d bytes: %v", s.Length, err)
			b = b[n:]
		}
	}
}

// Every octet of the framing is looked at: with one replaced, left out or put in,
// a body is read as the grammar has it.
func TestEveryOctetOfChunks(t *testing.T) {
	long.Sequential(t)
	const body = "3;a=b\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\n"
	check := func(parts ...string) {
		b := []byte(strings.Join(parts, ""))
		var byteByByte []int
		for n := range b {
			byteByByte = append(byteByByte, n+1)
		}
		want := decodeChunks(b)
		for _, feeding := range [][]int{byteByByte[len(b)-1:], byteByByte} {
			got, broken := readChunks(b, feeding...)
			verify.That(t, broken == nil && got.done == want.done && (!got.done || got == want) && (want.err == nil || got.err == want.err),
				"%q arriving as %v: got %+v, %v, want %+v", b, feeding, got, broken, want)
		}
	}
	for i := range len(body) {
		check(body[:i], body[i+1:])
		for c := range 256 {
			octet := string([]byte{byte(c)})
			check(body[:i], octet, body[i+1:])
			check(body[:i], octet, body[i:])
		}
	}
}
