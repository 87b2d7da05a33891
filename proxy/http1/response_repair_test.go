package http1

import (
	"bytes"
	"strings"
	"testing"

	"sluice/test/long"
	"sluice/test/verify"
)

// repairAsItArrives returns what RepairResponse makes of b, and fails if a part of it comes to
// anything else before.
func repairAsItArrives(t *testing.T, b []byte, feeding []int) (repaired []byte, n int, fault *Fault) {
	for _, have := range feeding {
		repaired, n, fault = RepairResponse(exactly(b, have), UsualFields)
		if n > 0 || fault != nil {
			whole, length, last := RepairResponse(b, UsualFields)
			same := bytes.Equal(whole, repaired) && length == n && (fault == nil) == (last == nil) && (fault == nil || *fault == *last)
			verify.Require(t, same, "arriving as %v: %d bytes come to %q, %d, %+v, and all to %q, %d, %+v", feeding, have, repaired, n, fault, whole, length, last)
			break
		}
	}
	return repaired, n, fault
}

func TestRepairResponse(t *testing.T) {
	long.Sequential(t)
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, test := range []struct{ name, head, want string }{
		{"nothing to repair", ok + "a:b\r\nContent-Length: \t007 \r\nX:\t\r\n\r\n", ok + "a:b\r\nContent-Length: \t007 \r\nX:\t\r\n\r\n"},
		{"LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\n", ok + "Content-Length: 2\r\n\r\n"},
		{"LF before the last line", ok + "X: a\n\r\n", ok + "X: a\r\n\r\n"},
		{"LF at the last line", ok + "X: a\r\n\n", ok + "X: a\r\n\r\n"},
		{"LF and no field", "HTTP/1.1 200\n\n", "HTTP/1.1 200\r\n\r\n"},
		{"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", ok + "\r\n"},
		{"HTTP/1.9", "HTTP/1.9 200 OK\r\n\r\n", ok + "\r\n"},
		{"HTTP/1.0 stays", "HTTP/1.0 200 OK\nX: a\n\n", "HTTP/1.0 200 OK\r\nX: a\r\n\r\n"},
		{"chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nX: a\r\nTransfer-Encoding: Chunked\r\n\r\n", ok + "X: a\r\nTransfer-Encoding: Chunked\r\n\r\n"},
		{"the same length again", ok + "Content-Length: 2\r\nX: a\r\ncontent-length:2\r\n\r\n", ok + "Content-Length: 2\r\nX: a\r\n\r\n"},
		{"the same length, spelled otherwise", ok + "Content-Length: 02\r\nContent-Length: 2\r\n\r\n", ok + "Content-Length: 02\r\n\r\n"},
		{"a list of lengths", ok + "content-length: 2 ,\t2,2\r\n\r\n", ok + "Content-Length: 2\r\n\r\n"},
		{"lists of lengths", ok + "Content-Length: 2\r\nContent-Length: 2, 2\r\n\r\n", ok + "Content-Length: 2\r\n\r\n"},
		{"length and coding", ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", ok + "Transfer-Encoding: chunked\r\n\r\n"},
		{"coding and lengths", ok + "Transfer-Encoding:\tchunked \r\nContent-Length: 2, 2\r\nX: a\r\nContent-Length: 2\r\n\r\n", ok + "Transfer-Encoding:\tchunked \r\nX: a\r\n\r\n"},
		{"all of these in HTTP/1.0", "HTTP/1.0 200 OK\nContent-Length: 2\nTransfer-Encoding: chunked\nContent-Length: 2\n\n", ok + "Transfer-Encoding: chunked\r\n\r\n"},
		{"control characters in values", ok + "X: \x01a\x1f\x7f\x80\tb\x02\r\nConnection: \x0bclose\r\n\r\n", ok + "X:  a  \x80\tb \r\nConnection:  close\r\n\r\n"},
		{"100 lines", ok + strings.Repeat("Content-Length: 2\r\n", UsualFields) + "\r\n", ok + "Content-Length: 2\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, body := range []string{"", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", "\n"} {
				b := []byte(test.head + body)
				for feeding := range feedings(b) {
					got, n, fault := repairAsItArrives(t, b, feeding)
					verify.Require(t, fault == nil && n == len(test.head) && string(got) == test.want, "got %q, %d, %+v", got, n, fault)
				}
			}
		})
	}
}

// What cannot be repaired is refused as soon as its line is there, and the fault says where.
func TestRefusedRepairs(t *testing.T) {
	long.Sequential(t)
	const ok = "HTTP/1.1 200 OK\n" // all of them are odd besides
	for _, test := range []struct {
		name, head, end string // the faulty line begins between the two
		field, rule     string
	}{
		{"another protocol", "", "SSH-2.0-OpenSSH_9.2\r\n", "", "bad_status_line"},
		{"empty line before", "", "\nHTTP/1.1 200 OK\n", "", "bad_status_line"},
		{"a coding without a status", "", "Transfer-Encoding: chunked\n", "", "bad_status_line"},
		{"HTTP/1.10", "", "HTTP/1.10 200 OK\n", "", "bad_status_line"},
		{"CR in reason", "", "HTTP/1.1 200 O\rK\n", "", "bad_status_line"},
		{"folded", ok + "X: a\n", " b\n", "X", "folded_field"},
		{"folded at the start", ok, " X: a\n", "", "folded_field"},
		{"space before the colon", ok + "Y: a\n", "X : b\n", "X", "bad_field_name"},
		{"no colon", ok, "Warning\n", "Warning", "bad_field_name"},
		{"no name", ok, ": b\n", "", "bad_field_name"},
		{"NUL", ok, "X: \x01\x00\n", "X", "bad_field_value"},
		{"CR", ok, "X: a\rb\n", "X", "bad_line_end"},
		{"CR alone", ok + "X: a\n", "\r\r\n", "", "bad_field_name"},
		{"two lengths", ok + "Content-Length: 2\n", "Content-Length: 3\n", "Content-Length", "bad_content_length"},
		{"two lengths in a list", ok, "Content-Length: 2, 3\n", "Content-Length", "bad_content_length"},
		{"two lengths and a coding", ok + "Transfer-Encoding: chunked\nContent-Length: 2\nX: a\n", "Content-Length: 3\n", "Content-Length", "bad_content_length"},
		{"empty element at the end", ok, "Content-Length: 2,\n", "Content-Length", "bad_content_length"},
		{"no length", ok, "Content-Length:\n", "Content-Length", "bad_content_length"},
		{"control in a length", ok, "Content-Length: \x0b2\n", "Content-Length", "bad_content_length"},
		{"another coding", ok, "Transfer-Encoding: identity\n", "Transfer-Encoding", "bad_transfer_encoding"},
		{"the same coding twice", ok + "Transfer-Encoding: chunked\n", "transfer-encoding: chunked\n", "transfer-encoding", "bad_transfer_encoding"},
		{"control in a coding", ok, "Transfer-Encoding: chunked\x0b\n", "Transfer-Encoding", "bad_field_value"},
		{"100 lines and one", ok + strings.Repeat("Content-Length: 2\n", UsualFields), "X: a\n", "X", "too_many_fields"},
		{"too many options", ok, "Connection: " + strings.Repeat("a,", UsualFields+1) + "\n", "Connection", "too_many_fields"},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := Fault{ErrResponseField, test.rule, test.field, len(test.head)}
			switch {
			case test.head == "":
				want.Err = ErrResponse
			case test.rule == "too_many_fields":
				want.Err = ErrTooManyFields
			}
			for _, more := range []string{"", "\n", "X: a\r\n\r\n"} {
				b := []byte(test.head + test.end + more)
				for feeding := range feedings(b) {
					got, n, fault := repairAsItArrives(t, b, feeding)
					verify.Require(t, got == nil && n == 0 && fault != nil && *fault == want, "arriving as %v: got %q, %d, %+v, want %+v", feeding, got, n, fault, want)
				}
			}
		})
	}
}

// Of a chunk that is odd, Lenient takes the size as it is meant.
func TestLenientChunks(t *testing.T) {
	blanks, x := strings.Repeat(" ", 300), strings.Repeat("x", 300)
	for _, test := range []struct {
		name, body string
		strict     bool // takes it as well
		data       string
		err        error
	}{
		{"usual", "3;a=b\r\nabc\r\n00000000000000A\r\n0123456789\r\n0\r\n\r\n", true, "abc0123456789", nil},
		{"spaces", "3  \t\r\nabc\r\n0 \r\n\r\n", false, "abc", nil},
		{"spaces before an extension", "3 ; a=b;c\r\nabc\r\n0\r\n\r\n", false, "abc", nil},
		{"many spaces", "3" + blanks + "\r\nabc\r\n0\r\n\r\n", false, "abc", nil},
		{"20 digits", "00000000000000000003\r\nabc\r\n00000000000000000000\r\n\r\n", false, "abc", nil},
		{"a long extension", "3;a=" + x + "\r\nabc\r\n0\r\n\r\n", false, "abc", nil},
		{"trailer", "3 \r\nabc\r\n0 \r\nX: y\r\n\r\n", false, "abc", nil},

		{"21 digits", "000000000000000000003\r\nabc\r\n0\r\n\r\n", false, "", ErrChunk},
		{"2^60", "1000000000000000\r\nabc", false, "", ErrChunk},
		{"2^60 behind zeros", "00001000000000000000\r\nabc", false, "", ErrChunk},
		{"two sizes", "3 3\r\nabc\r\n0\r\n\r\n", false, "", ErrChunk},
		{"another blank", "3\v\r\nabc\r\n0\r\n\r\n", false, "", ErrChunk},
		{"CR behind spaces", "3 \r \nabc\r\n0\r\n\r\n", false, "", ErrChunk},
		{"too many spaces", "3" + blanks + blanks + "\r\nabc\r\n0\r\n\r\n", false, "", ErrChunk},
		{"too long an extension", "3;a=" + x + x + "\r\nabc\r\n0\r\n\r\n", false, "", ErrChunk},
		{"too long with the spaces", "3" + blanks + ";" + x + "\r\nabc\r\n0\r\n\r\n", false, "", ErrChunk},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := []byte(test.body)
			for feeding := range feedings(b) {
				got, odd := readLenientChunks(t, b, feeding)
				verify.Require(t, got.data == test.data && got.err == test.err && got.done == (test.err == nil), "arriving as %v: got %+v", feeding, got)
				verify.Require(t, odd != test.strict || test.err != nil, "arriving as %v: odd is %t", feeding, odd)
			}
			strict, broken := readChunks(b, len(b))
			verify.That(t, broken == nil && strict.done == test.strict, "strictly it is %+v, %v", strict, broken)
		})
	}
}

// readLenientChunks scans b as it arrives, and checks that Next stops before and after each line
// of a size.
func readLenientChunks(t *testing.T, b []byte, feeding []int) (r chunkReading, odd bool) {
	s := ChunkScanner{Lenient: true}
	var data strings.Builder
	for _, end := range feeding {
		for r.taken < end && !s.Done() && r.err == nil {
			piece := exactly(b[r.taken:], end-r.taken)
			inLine, began, wasOdd := s.InSizeLine(), s.AtStart(), s.Odd
			n, start, err := s.Next(piece)
			verify.Require(t, n > 0 || err != nil, "Next took nothing of %q", piece)
			r.taken, r.err = r.taken+n, err
			data.Write(piece[start:n])
			verify.Require(t, err != nil || s.Odd == wasOdd || (inLine || began) && start == n, "%q became odd in %q", piece[:n], piece)
			verify.Require(t, err != nil || !inLine && !began || start == n, "Next took data with the line of a size: %q", piece[:n])
			verify.Require(t, err != nil || s.InTrailer() || inLine || began || !s.InSizeLine(), "Next began the line of a size within %q", piece[:n])
		}
	}
	r.data, r.done = data.String(), s.Done()
	return r, s.Odd
}
