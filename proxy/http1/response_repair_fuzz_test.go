package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/test/verify"
)

// Whatever the strict scanner takes is repaired to itself, whatever is repaired the strict
// scanner takes, and net/http, which repairs much of this too, reads the same in it. No part of
// it comes to anything else before all has arrived.
func FuzzRepairResponse(f *testing.F) {
	for i, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		"HTTP/1.0 200 OK\r\nX: \x01\x7f\nTransfer-Encoding: chunked\r\nContent-Length: 2, 2\r\n\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.2 999\nContent-Length: 2\r\ncontent-length: 02 ,2\r\nConnection: close, x\x02\nX:y\n\n",
		"HTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\nA : b\r\n c\r\r\n\x00\t\x7f\r\n\r\n",
		"Content-Length: 2\nTransfer-Encoding: chunked, identity\n\r\n\r\n\n\n",
	} {
		f.Add([]byte(seed), uint64(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		b = b[:min(len(b), maxFuzzedHead)]
		strict := readResponse(b, len(b))
		repaired, n, fault := repairAsItArrives(t, b, division(len(b), seed))
		switch {
		case strict.length > 0:
			verify.Require(t, n == strict.length && bytes.Equal(repaired, b[:n]), "the strict scanner takes it: got %q, %d, %+v", repaired, n, fault)
		case fault != nil:
			verify.Require(t, strict.err != nil && repaired == nil && fault.Offset < len(b), "got %q, %+v, strictly %v", repaired, *fault, strict.err)
			verify.Require(t, fault.Err == ErrResponse || fault.Err == ErrResponseField || fault.Err == ErrTooManyFields, "the fault is %v", fault.Err)
			return
		case n == 0:
			verify.Require(t, emptyLine.FindIndex(b) == nil, "it has an empty line, and is not complete")
			return
		}
		verify.Require(t, n == emptyLine.FindIndex(b)[1], "it ends at %d, and not with the first empty line", n)
		again := readResponse(repaired, len(repaired))
		verify.Require(t, again.length == len(repaired), "the strict scanner reads %+v in %q", again, repaired)
		compareRepaired(t, b, repaired, n)
	})
}

var emptyLine = regexp.MustCompile("\n\r?\n")

// compareRepaired compares a head with what net/http reads in b, which it begins.
func compareRepaired(t *testing.T, b, repaired []byte, n int) {
	var head ResponseHead
	head.Reset(UsualFields)
	head.Scan(repaired)
	reader := bufio.NewReaderSize(bytes.NewReader(b), 2*maxFuzzedHead)
	r, err := http.ReadResponse(reader, nil)
	if err != nil {
		return // it has its own measure of what it repairs
	}
	// Of HTTP/1.0 it ignores the coding, also where sluice does not.
	if r.ProtoMinor == 0 && head.Chunked {
		return
	}
	verify.That(t, r.StatusCode == head.Status, "net/http reads status %d", r.StatusCode)
	length := head.ContentLength
	if head.Bodiless(false) {
		length = 0
	}
	chunked := slices.Equal(r.TransferEncoding, []string{"chunked"})
	verify.That(t, r.ContentLength == length && chunked == head.Chunked, "net/http reads length %d, codings %q; want %d, chunked %v", r.ContentLength, r.TransferEncoding, length, head.Chunked)
	rest, _ := io.ReadAll(reader)
	verify.That(t, len(rest) == len(b)-n, "net/http sees %d bytes after the head, not %d", len(rest), len(b)-n)
}

// A body that the strict scanner takes is taken by Lenient alike, and is not odd; what only
// Lenient takes is odd, and is what the strict one reads in the same body with usual lines.
func FuzzLenientChunks(f *testing.F) {
	for i, seed := range []string{
		"3\r\nabc\r\n00A;x=\"y z\"\r\n0123456789\r\n0;z\r\nX: y\r\nz:\r\n\r\nGET /",
		"3 \r\nabc\r\n1\t;a \r\nd\r\n0  \r\n\r\n", "00000000000000000003\r\nabc\r\n0000000000000000\r\n\r\n", "3;" + strings.Repeat("x", 300) + "\r\nabc\r\n0\r\n\r\n",
		"+1\r\na\r\n", " 1\r\na\n0\n\n", "0000ffffffffffffffff\r\n", "1 1\r\na\r\n", "1\v\r\n",
	} {
		f.Add([]byte(seed), uint64(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		b = b[:min(len(b), 64<<10)]
		got, odd := readLenientChunks(t, b, division(len(b), seed))
		strict, broken := readChunks(b, len(b))
		verify.NoError(t, broken)
		if strict.err == nil && !odd {
			verify.Require(t, got.err == nil && got.done == strict.done && got.data == strict.data && got.taken == strict.taken, "got %+v, strictly %+v", got, strict)
		}
		verify.Require(t, strict.err != nil || !odd, "the strict scanner takes it, and it is odd")
		if !got.done {
			return
		}
		verify.Require(t, odd == !strict.done, "odd is %t, and strictly it is %+v", odd, strict)
		plain := plainChunks(b[:got.taken])
		want, broken := readChunks(plain, len(plain))
		verify.Require(t, broken == nil && want.done && want.taken == len(plain) && want.data == got.data, "got %+v, and of %q %+v, %v", got, plain, want, broken)
	})
}

// plainChunks returns a chunked body with its sizes only in their lines, as they are usual.
func plainChunks(b []byte) (plain []byte) {
	for {
		line, rest, _ := bytes.Cut(b, []byte("\r\n"))
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, _ := strconv.ParseUint(strings.TrimRight(string(size), " \t"), 16, 60)
		plain = fmt.Appendf(plain, "%x\r\n", n)
		if n == 0 {
			return append(plain, rest...)
		}
		plain, b = append(plain, rest[:n+2]...), rest[n+2:]
	}
}
