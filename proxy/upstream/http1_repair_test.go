package upstream

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/proxy/http1"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// A connection on which a peer has answered oddly is not used again, also if only an interim
// response was odd.
func TestConnectionsWithOddAnswersAreNotUsedAgain(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for answer, again := range map[string]bool{
		ok:                                true,
		"HTTP/1.1 103 Early\r\n\r\n" + ok: true,
		"HTTP/1.1 999 Denied\r\nContent-Length: 2\r\n\r\nok":                              true,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n02\r\nok\r\n0;a\r\n\r\n":    true,
		"HTTP/1.1 200 OK\nContent-Length: 2\n\nok":                                        false,
		"HTTP/1.1 103 Early\n\n" + ok:                                                     false,
		"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok":              false,
		"HTTP/1.1 103 Early\n\nHTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n": false,
		"HTTP/1.1 304 Not Modified\nETag: a\n\n":                                          false,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n":      false,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0 \r\n\r\n":      false,
	} {
		t.Run("", func(t *testing.T) {
			transport := startTransport(t, Options{}, answering(answer))
			u := transport.opened(t)
			statuses, body, err := receive(u)
			verify.That(t, err == nil && (body == "ok" || statuses[len(statuses)-1] < 400 && body == ""), "%q: got %v %q, %v", answer, statuses, body, err)
			u.Finish(true)
			idle, busy := transport.Connections()
			verify.That(t, (idle == 1) == again && busy == 0, "%q: %d are idle and %d busy", answer, idle, busy)
		})
	}
}

// A head that arrives byte by byte is not repaired anew at each: that would take the square of
// its length.
func TestRepairWaitsForLines(t *testing.T) {
	const head, end, length = "HTTP/1.1 200 OK\nX: ", "\nContent-Length: 2\n\nok", 15_000
	transport := startTransport(t, Options{}, func(conn net.Conn) {
		conn.Read(make([]byte, 4096))
		for _, c := range []byte(head + strings.Repeat("a", length) + end) {
			conn.Write([]byte{c})
		}
		io.Copy(io.Discard, conn)
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	u := transport.opened(t)
	_, body, err := receive(u)
	runtime.ReadMemStats(&after)
	transport.discard(u)
	verify.That(t, err == nil && body == "ok", "got %q, %v", body, err)
	const most = 100 * length
	verify.That(t, after.TotalAlloc-before.TotalAlloc < most, "%d bytes of memory were taken, want fewer than %d", after.TotalAlloc-before.TotalAlloc, most)
}

// Why an answer is refused is logged: the rule, the field and where it is.
func TestRefusedAnswersAreLogged(t *testing.T) {
	t.Parallel()
	const ok, chunked = "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, test := range []struct {
		answer, rule, field string
		offset              float64
		err                 error
	}{
		{ok + "X: a\nY: b\r\n c\r\n\r\n", "folded_field", "Y", 28, http1.ErrResponseField},
		{ok + "X : a\r\n\r\n", "bad_field_name", "X", 17, http1.ErrResponseField},
		{ok + "Transfer-Encoding: gzip, chunked\r\n\r\n", "bad_transfer_encoding", "Transfer-Encoding", 17, http1.ErrResponseField},
		{ok + strings.Repeat("Y", 1000) + " \r\n\r\n", "bad_field_name", strings.Repeat("Y", maxFieldName-3) + "…", 17, http1.ErrResponseField},
		{ok + strings.Repeat("a:b\r\n", 101) + "\r\n", "too_many_fields", "a", 17 + 500, http1.ErrResponseTooLong},
		{ok + "X: " + strings.Repeat("b", 20_000), "head_too_long", "", 16 << 10, http1.ErrResponseTooLong},
		{"SSH-2.0-OpenSSH_9.2\r\n", "bad_status_line", "", 0, http1.ErrResponse},
		{chunked + "2\r\nok\r\nx", "bad_chunk", "", 2, http1.ErrChunk},
		{chunked + "2\r\nok\r\n0\r\n@", "bad_trailer", "", 2, http1.ErrTrailer},
		{ok + "X: \x01\nContent-Length: 2\r\n\r\nok", "", "", 0, nil}, // is repaired
	} {
		transport := startTransport(t, Options{}, answering(test.answer))
		var log bytes.Buffer
		transport.refused.log = zerolog.New(&log)
		u := transport.opened(t)
		_, _, err := receive(u)
		transport.discard(u)
		verify.That(t, err == test.err, "%.100q: got %v, want %v", test.answer, err, test.err)
		if test.rule == "" {
			verify.Equal(t, log.String(), "", "the log")
			continue
		}
		var line map[string]any
		verify.NoError(t, json.Unmarshal(log.Bytes(), &line))
		field, _ := line["field"].(string)
		verify.That(t, line["rule"] == test.rule && field == test.field && line["offset"] == test.offset && line["answers"] == 1.0 &&
			line["service"] == "star" && line["peer"] == "a" && line["address"] == transport.peer.Address(), "%.100q: got %s", test.answer, log.String())
	}
}

// A peer that answers so again and again has one line a minute.
func TestRefusedAnswersAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := balancer.NewPool("star", balancertest.Complete(balancer.Options{}))
		defer pool.Close()
		pool.Apply([]discovery.Instance{{Service: "star", ID: "a", Address: "127.0.0.1", Port: 1, Weight: 1}})
		var log bytes.Buffer
		r := refusedAnswers{peer: pool.Snapshot().All[0], log: zerolog.New(&log)}
		for range 3 {
			for i := range 1000 {
				r.report(http1.Fault{Rule: "bad_field_name", Field: strings.Repeat("X", 1+i), Offset: i})
			}
			time.Sleep(failureEvery)
		}
		verify.Equal(t, strings.Count(log.String(), "\n"), 3, "lines in three minutes")
		verify.Equal(t, strings.Count(log.String(), `"answers":1000,`), 2, "lines that count those of the minute before")
	})
}
