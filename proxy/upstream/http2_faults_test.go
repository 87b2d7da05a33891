package upstream

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/test/verify"
)

// answeringHTTP2 serves a connection by HTTP/2: it answers each request with the fields of field
// blocks, of which the last ends the stream, as names and values.
func answeringHTTP2(blocks ...[]string) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, len(xhttp2.ClientPreface))); err != nil {
			return
		}
		f := xhttp2.NewFramer(conn, conn)
		f.AllowIllegalWrites = true
		f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if frame.Header().Type != xhttp2.FrameHeaders {
				continue
			}
			for i, fields := range blocks {
				var block bytes.Buffer
				encoder := hpack.NewEncoder(&block)
				for i := 0; i < len(fields); i += 2 {
					encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true})
				}
				f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: frame.Header().StreamID, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: i == len(blocks)-1})
			}
		}
	}
}

// exchange sends a request and reads its answer.
func (t *http2Transport) exchange(test *testing.T) error {
	test.Helper()
	u := t.stream(test, &Client{Presence: there{}})
	defer u.Finish(false)
	_, _, err := receive(u)
	return err
}

// The log says by which rule an answer in HTTP/2 is refused, and for which field, as of answers in
// HTTP/1.1.
func TestRefusedAnswersOfHTTP2AreLogged(t *testing.T) {
	t.Parallel()
	status := []string{":status", "200"}
	with := func(fields ...string) [][]string { return [][]string{append(status[:2:2], fields...)} }
	for _, test := range []struct {
		blocks      [][]string
		rule, field string
		offset      float64
	}{
		{with("x", "a", "Y", "b"), "bad_field_name", "Y", 15 + 6}, // in upper case
		{with("y z", "b"), "bad_field_name", "y", 15},
		{with("x", "a", ":path", "/"), "bad_field_name", ":path", 15 + 6},
		{with("x", "a\r\nb"), "bad_field_value", "x", 15},
		{with("x", "a", "transfer-encoding", "chunked"), "connection_field", "transfer-encoding", 15 + 6},
		{with("te", "trailers"), "connection_field", "te", 15},
		{with("content-length", "1", "content-length", "2"), "bad_content_length", "content-length", 15 + 19},
		{with("content-length", "0", "content-length", "0"), "bad_content_length", "content-length", 0},
		{with("content-length", "-1"), "bad_content_length", "content-length", 15},
		{with(strings.Split(strings.Repeat("x,a,", 101)+"x,a", ",")...), "too_many_fields", "x", 15 + 600},
		{[][]string{{"x", "a"}}, "bad_status_line", "", 0},
		{[][]string{{":status", "99"}}, "bad_status_line", "", 0},
		{[][]string{{":status", "0x0"}}, "bad_status_line", "", 0},
		{[][]string{{":status", "101"}}, "bad_status_line", "", 0},
		{[][]string{{":status", "103"}}, "bad_status_line", "", 0}, // and no other head
		{[][]string{status, {"x", "a", "y z", "b"}}, "bad_field_name", "y", 6},
		{[][]string{status, {"x", "a"}, {"x", "a"}}, "bad_trailer", "", 0}, // of which the first does not end the stream
		{with("x", strings.Repeat("a", 20_000)), "head_too_long", "", 16 << 10},
		{with("x", "a"), "", "", 0},
	} {
		transport := startHTTP2(t, answeringHTTP2(test.blocks...))
		var log bytes.Buffer
		transport.refused.log = zerolog.New(&log)
		err := transport.exchange(t)
		verify.That(t, (err != nil) == (test.rule != ""), "%.100q: %v", test.blocks, err)
		if test.rule == "" {
			verify.Equal(t, log.String(), "", "the log")
			continue
		}
		var line map[string]any
		verify.NoError(t, json.Unmarshal(log.Bytes(), &line))
		field, _ := line["field"].(string)
		verify.That(t, line["rule"] == test.rule && field == test.field && line["offset"] == test.offset && line["service"] == "star", "%.100q: got %s", test.blocks, log.String())
		before := log.Len()
		verify.That(t, transport.exchange(t) != nil && log.Len() == before, "%.100q: a second line within a minute: %s", test.blocks, log.String())
	}
}
