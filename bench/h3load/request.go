package h3load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go/quicvarint"
)

// Types of frames (RFC 9114, section 7.2).
const (
	frameData    = 0x0
	frameHeaders = 0x1
)

// A request is one frame, and what the right answer to it is.
type request struct {
	frame []byte
	body  int64 // bytes of the answer's body
}

// newRequest encodes a GET.
func newRequest(authority, path string, body int64) (request, error) {
	var section bytes.Buffer
	encoder := qpack.NewEncoder(&section)
	for _, f := range []qpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: authority}, {Name: ":path", Value: path},
		{Name: "user-agent", Value: "h3load"},
	} {
		if err := encoder.WriteField(f); err != nil {
			return request{}, err
		}
	}
	frame := quicvarint.Append([]byte{frameHeaders}, uint64(section.Len()))
	return request{frame: append(frame, section.Bytes()...), body: body}, nil
}

// A wrongAnswer is whole, but has another status or length than it should.
type wrongAnswer struct {
	status int
	bytes  int64
}

func (w *wrongAnswer) Error() string {
	return fmt.Sprintf("an answer with status %d and %d bytes", w.status, w.bytes)
}

// readAnswer reads a whole answer. Its status must be 2xx.
func (r *request) readAnswer(in *bufio.Reader) error {
	var a wrongAnswer
	for {
		kind, err := quicvarint.Read(in)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		length, err := quicvarint.Read(in)
		if err != nil {
			return whole(err)
		}
		switch {
		case kind == frameData:
			a.bytes += int64(length)
		case kind == frameHeaders && a.status < 200: // later ones are trailers
			if a.status, err = peekStatus(in, int(length)); err != nil {
				return whole(err)
			}
		}
		if _, err := in.Discard(int(length)); err != nil {
			return whole(err)
		}
	}
	if a.status < 200 || a.status > 299 || a.bytes != r.body {
		return &a
	}
	return nil
}

// whole returns err as it is in the middle of a frame.
func whole(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// peekStatus returns the status of the field section that follows.
func peekStatus(in *bufio.Reader, length int) (int, error) {
	section, err := in.Peek(length)
	if err != nil {
		return 0, err
	}
	// 200 in the static table (RFC 9204, appendix A).
	if bytes.HasPrefix(section, []byte{0, 0, 0xc0 | 25}) {
		return 200, nil
	}
	next := qpack.NewDecoder().Decode(section)
	for {
		f, err := next()
		if err == io.EOF {
			return 0, errors.New("an answer without a status")
		}
		if err != nil {
			return 0, err
		}
		if f.Name == ":status" {
			return strconv.Atoi(f.Value)
		}
	}
}
