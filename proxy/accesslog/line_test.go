package accesslog

import (
	"bytes"
	"encoding/json"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sluice/test/verify"
)

// typical is an entry as a browser makes it.
func typical() *Entry {
	return &Entry{
		Time:      time.Date(2026, 1, 2, 15, 4, 5, 678_900_000, time.UTC),
		Client:    []byte("192.0.2.17"),
		Method:    []byte("GET"),
		Host:      []byte("star.example.com"),
		Target:    []byte("/api/v1/items/4711?fields=name,price&sort=-created"),
		Proto:     "HTTP/1.1",
		UserAgent: []byte("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"),
		Referer:   []byte("https://star.example.com/items"),
		Status:    200,
		BytesOut:  5120,
		Duration:  12_345_678 * time.Nanosecond,
		Upstream:  11_200 * time.Microsecond,
		Service:   "star",
		Peer:      "10.0.0.7:8080",
		Attempts:  1,
	}
}

func lineJSON(e *Entry) string {
	return string(jsonLine(nil, e, new(clocks)))
}

// lineOf returns the line of e in a format that is not JSON.
func lineOf(format string, e *Entry) string {
	return string(formatOf(format).line(nil, e, new(clocks)))
}

func formatOf(text string) Format {
	f, err := ParseFormat(text)
	if err != nil {
		panic(err)
	}
	return f
}

func TestJSONLine(t *testing.T) {
	full := typical()
	full.BytesIn, full.Connect, full.Reason, full.Attempts, full.Status = 17, 1_234_999, "upstream_timeout", 2, 504
	for _, test := range []struct {
		name string
		e    *Entry
		want string
	}{
		{"every field", full, `{"time":"2026-01-02T15:04:05.678Z","client":"192.0.2.17","method":"GET","host":"star.example.com",` +
			`"target":"/api/v1/items/4711?fields=name,price&sort=-created","proto":"HTTP/1.1","status":504,"bytes_in":17,"bytes_out":5120,` +
			`"duration_ms":12.345,"service":"star","peer":"10.0.0.7:8080","attempts":2,"upstream_ms":11.200,"connect_ms":1.234,` +
			`"reason":"upstream_timeout","user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",` +
			`"referer":"https://star.example.com/items"}` + "\n"},
		{"gRPC", &Entry{Status: 200, GRPCStatus: "UNAVAILABLE", Peer: "a:1", Group: "canary"}, `{"time":"0001-01-01T00:00:00.000Z","client":"","method":"","target":"","proto":"","status":200,` +
			`"grpc_status":"UNAVAILABLE","bytes_in":0,"bytes_out":0,"duration_ms":0.000,"peer":"a:1","group":"canary","attempts":0}` + "\n"},
		{"TLS, behind a proxy", &Entry{RequestID: []byte("a-1"), TraceID: []byte("4bf9"), Client: []byte("2001:db8::1"), Proxy: "10.0.0.1", User: "ann",
			TLSVersion: "TLSv1.3", TLSCipher: "TLS_AES_128_GCM_SHA256", TLSServerName: "a.example.com", UpstreamStatus: 503},
			`{"time":"0001-01-01T00:00:00.000Z","request_id":"a-1","trace_id":"4bf9","client":"2001:db8::1","proxy":"10.0.0.1","user":"ann","method":"","target":"","proto":"",` +
				`"tls_version":"TLSv1.3","tls_cipher":"TLS_AES_128_GCM_SHA256","tls_server_name":"a.example.com","status":0,"upstream_status":503,"bytes_in":0,"bytes_out":0,"duration_ms":0.000,"attempts":0}` + "\n"},
		{"tries", &Entry{Peer: "b:2", Attempts: 2, Tries: twoTries}, `{"time":"0001-01-01T00:00:00.000Z","client":"","method":"","target":"","proto":"","status":0,"bytes_in":0,"bytes_out":0,"duration_ms":0.000,"peer":"b:2","attempts":2,` +
			`"tries":[{"peer":"a:1","outcome":"connect_failure","start_ms":0.010,"duration_ms":1.200},{"peer":"b:2","outcome":"ok","status":200,"start_ms":1.300,"duration_ms":20.000}]}` + "\n"},
		{"TCP has no method and no target", &Entry{Proto: ProtoTCP, Method: []byte("GET")}, `{"time":"0001-01-01T00:00:00.000Z","client":"","proto":"TCP","status":0,"bytes_in":0,"bytes_out":0,"duration_ms":0.000,"attempts":0}` + "\n"},
		{"no field", &Entry{}, `{"time":"0001-01-01T00:00:00.000Z","client":"","method":"","target":"","proto":"","status":0,"bytes_in":0,"bytes_out":0,"duration_ms":0.000,"attempts":0}` + "\n"},
		{"time zone", &Entry{Time: time.Date(2026, 6, 30, 23, 59, 59, 999_999_999, time.FixedZone("", -3600))},
			`{"time":"2026-07-01T00:59:59.999Z","client":"","method":"","target":"","proto":"","status":0,"bytes_in":0,"bytes_out":0,"duration_ms":0.000,"attempts":0}` + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			verify.Equal(t, lineJSON(test.e), test.want, "line")
		})
	}
}

var twoTries = []Try{
	{Peer: "a:1", Outcome: "connect_failure", Start: 10 * time.Microsecond, Duration: 1200 * time.Microsecond},
	{Peer: "b:2", Outcome: "ok", Status: 200, Start: 1300 * time.Microsecond, Duration: 20 * time.Millisecond},
}

func TestPlainPrefixFindsEveryOctet(t *testing.T) {
	for c := range 256 {
		for at := range 24 {
			s := bytes.Repeat([]byte("~"), 24)
			s[at] = byte(c)
			want := len(s)
			if c < ' ' || c == '"' || c == '\\' || c > '~' {
				want = at
			}
			got := plainPrefix(s)
			verify.Require(t, got == want, "%#x at %d: got %d", c, at, got)
		}
	}
}

func TestCombinedLine(t *testing.T) {
	evil := typical()
	evil.Host = []byte("h\" service=\"x")
	evil.Target, evil.UserAgent, evil.Referer = []byte("/\"\\\n"), []byte("x\" 200 1\xff\x7f\u00e9"), nil
	for _, test := range []struct {
		name string
		e    *Entry
		want string
	}{
		{"typical", typical(), `192.0.2.17 - - [02/Jan/2026:15:04:05 +0000] "GET /api/v1/items/4711?fields=name,price&sort=-created HTTP/1.1" 200 5120 ` +
			`"https://star.example.com/items" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36" ` +
			`host="star.example.com" service="star" peer="10.0.0.7:8080" attempts=1 bytes_in=0 duration_ms=12.345 upstream_ms=11.200 connect_ms=- reason="-" grpc_status=- group=- upstream_status=- tries="-" request_id=-` + "\n"},
		{"empty", &Entry{}, `- - - [01/Jan/0001:00:00:00 +0000] "- - -" 0 0 "-" "-" ` +
			`host="-" service="-" peer="-" attempts=0 bytes_in=0 duration_ms=0.000 upstream_ms=- connect_ms=- reason="-" grpc_status=- group=- upstream_status=- tries="-" request_id=-` + "\n"},
		{"gRPC", &Entry{GRPCStatus: "OK", Group: "canary"}, `- - - [01/Jan/0001:00:00:00 +0000] "- - -" 0 0 "-" "-" ` +
			`host="-" service="-" peer="-" attempts=0 bytes_in=0 duration_ms=0.000 upstream_ms=- connect_ms=- reason="-" grpc_status=OK group=canary upstream_status=- tries="-" request_id=-` + "\n"},
		{"injection", evil, `192.0.2.17 - - [02/Jan/2026:15:04:05 +0000] "GET /\x22\x5C\x0A HTTP/1.1" 200 5120 "-" "x\x22 200 1\xFF\x7F\xC3\xA9" ` +
			`host="h\x22 service=\x22x" service="star" peer="10.0.0.7:8080" attempts=1 bytes_in=0 duration_ms=12.345 upstream_ms=11.200 connect_ms=- reason="-" grpc_status=- group=- upstream_status=- tries="-" request_id=-` + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			verify.Equal(t, lineOf("combined", test.e), test.want, "line")
		})
	}
}

func TestClockFollowsTheTime(t *testing.T) {
	var c clocks
	start := time.Date(2026, 12, 31, 23, 59, 58, 0, time.UTC)
	for i := range 40 {
		now := start.Add(time.Duration(i*i%37) * 100 * time.Millisecond) // also backwards: shards are shared
		verify.Equal(t, string(c.appendRFC3339(nil, now)), now.Format("2006-01-02T15:04:05.000Z"), "result")
	}
}

// record is a JSON line as its reader sees it.
type record struct {
	Time       time.Time `json:"time"`
	Client     string    `json:"client"`
	Method     string    `json:"method"`
	Host       string    `json:"host"`
	Target     string    `json:"target"`
	Proto      string    `json:"proto"`
	Status     int       `json:"status"`
	BytesIn    int64     `json:"bytes_in"`
	BytesOut   int64     `json:"bytes_out"`
	DurationMS float64   `json:"duration_ms"`
	Service    string    `json:"service"`
	Peer       string    `json:"peer"`
	Group      string    `json:"group"`
	Attempts   int       `json:"attempts"`
	UpstreamMS float64   `json:"upstream_ms"`
	ConnectMS  float64   `json:"connect_ms"`
	Reason     string    `json:"reason"`
	UserAgent  string    `json:"user_agent"`
	Referer    string    `json:"referer"`
}

// valid replaces each octet that is not UTF-8, as the log does it.
func valid(s []byte) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRune(s)
		b.WriteRune(r)
		s = s[size:]
	}
	return b.String()
}

func FuzzJSONLine(f *testing.F) {
	f.Add([]byte("GET"), []byte("host"), []byte("/\x00\"\\"), []byte("\xff\xc3\xa9\u2028"), []byte(""), 200, int64(1), int64(2), int64(3_000_000_000), int64(1))
	f.Add([]byte("\n"), []byte(`"}`), []byte("\xed\xa0\x80"), []byte("\x7f\u0085"), []byte("\\u"), -1, int64(-1), int64(math.MaxInt64), int64(-5), int64(0))
	for i, text := range []string{
		"", "plain /?&=<>~", `a"b\c`, "a\nb\r\tc", "\x00\x1b[31m\x7f", "caf\u00e9 \u65e5 \U0001F600", "\u0080\u009b\u00a0", "\u2027\u2028\u2029\u202a", "a\xffb", "\xc3", "\xe6\x97x",
		"\xed\xa0\x80", // a surrogate
		"\xc0\xaf",     // overlong
		"\ufffd",       // the real one stays
	} {
		for pad := range 9 { // octets are looked at by eights
			padded := []byte(strings.Repeat("x", pad) + text + strings.Repeat("y", 8-pad))
			duration := []int64{0, 999, 1000, 10_999, 1_000_000, 90_000_000_000, -1_000_000_000, math.MaxInt64}[(i+pad)%8]
			f.Add(padded, padded, padded, padded, padded, 200, int64(0), int64(0), duration, int64(0))
		}
	}
	f.Fuzz(func(t *testing.T, method, host, target, agent, referer []byte, status int, in, out, duration, unix int64) {
		e := &Entry{
			Time: time.Unix(unix%(1<<37), duration&(1<<29)).UTC(), Client: host, Method: method, Host: host, Target: target, Proto: string(method),
			UserAgent: agent, Referer: referer, Status: int64(status), BytesIn: in, BytesOut: out,
			Duration: time.Duration(duration), Upstream: time.Duration(duration / 2), Connect: time.Duration(duration / 3),
			Service: string(target), Peer: string(agent), Group: string(host), Attempts: int64(status), Reason: string(referer),
		}
		line := lineJSON(e)
		verify.Require(t, strings.IndexByte(line, '\n') == len(line)-1 && utf8.ValidString(line), "not one line of UTF-8: %q", line)
		for _, c := range line[:len(line)-1] {
			verify.Require(t, c >= ' ' && (c < 0x7f || c > 0x9f) && c != '\u2028' && c != '\u2029', "%q in %q", c, line)
		}
		ms := func(d time.Duration) float64 { return float64(max(d, 0)/time.Microsecond) / 1000 }
		want := record{
			Time: e.Time.Truncate(time.Millisecond), Client: valid(host), Method: valid(method), Host: valid(host), Target: valid(target), Proto: valid(method),
			Status: status, BytesIn: in, BytesOut: out, DurationMS: ms(e.Duration), Service: valid(target), Peer: valid(agent), Group: valid(host), Attempts: status,
			UpstreamMS: ms(e.Upstream), ConnectMS: ms(e.Connect), Reason: valid(referer), UserAgent: valid(agent), Referer: valid(referer),
		}
		var got record
		err := json.Unmarshal([]byte(line), &got)
		verify.Require(t, err == nil, "%v: %s", err, line)
		verify.That(t, got == want, "got  %+v\nwant %+v", got, want)
		line = lineOf("combined", e)
		verify.That(t, strings.IndexByte(line, '\n') == len(line)-1 && bytes.Count([]byte(line), []byte{'"'}) == 16, "combined: %q", line)
	})
}

func BenchmarkLog(b *testing.B) {
	for _, format := range []string{"json", "combined"} {
		b.Run(format, func(b *testing.B) {
			l := verify.Result(New(Options{Path: "/dev/null", Format: formatOf(format), Sample: 1})).Must(b)
			defer l.Close()
			e := typical()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				l.Log(1, e)
				if i%100 == 0 {
					runtime.Gosched() // a line that is dropped costs less
				}
			}
			b.ReportMetric(float64(l.Dropped()), "dropped")
		})
	}
}
