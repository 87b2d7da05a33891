package accesslog

import (
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

func TestTemplateLine(t *testing.T) {
	e := typical()
	e.Tries, e.TLSVersion, e.TLSCipher = twoTries, "TLSv1.3", "TLS_AES_128_GCM_SHA256"
	e.Head = []byte("GET / HTTP/1.1\r\nHost: a\r\nX-Canaries: 2\r\nX-CANARY:1 \t\r\nx-canary: 3\r\nCookie: a\"\x1b\r\nEmpty:\r\n\r\n")
	for _, test := range []struct {
		format string
		want   string
	}{
		{"$client", "192.0.2.17"},
		{"$client:$status$bytes_out", "192.0.2.17:2005120"},
		{"cost: $$${status}00$$", "cost: $20000$"},
		{"[$time] [$time_combined]", "[2026-01-02T15:04:05.678Z] [02/Jan/2026:15:04:05 +0000]"},
		{"$tls_version/$tls_cipher/$tls_server_name", "TLSv1.3/TLS_AES_128_GCM_SHA256/-"},
		{"$upstream_status $connect_ms $upstream_ms", "- - 11.200"},
		{"$tries", "a:1/connect_failure/-/1.200,b:2/ok/200/20.000"},
		{`"$http_x_canary" "$http_cookie" $http_none $http_empty $http_get`, `"1" "a\x22\x1B" - - -`},
		{"${user}é $status", "-é 200"},
	} {
		got := lineOf(test.format, e)
		verify.That(t, got == test.want+"\n", "%s: got %q, want %q", test.format, got, test.want)
	}
	verify.Equal(t, lineOf("$http_x_canary", &Entry{}), "-\n", "without fields")
	for user, want := range map[string]string{
		"": "-", "ann": "ann", " ": `\x20`, " a  b ": `\x20a\x20\x20b\x20`,
		`ann [21/Nov/2026:16:06:19 +0000] "GET / HTTP/1.1" 200`: `ann\x20[21/Nov/2026:16:06:19\x20+0000]\x20\x22GET\x20/\x20HTTP/1.1\x22\x20200`,
	} {
		got := lineOf("combined", &Entry{User: user})
		verify.That(t, strings.HasPrefix(got, "- - "+want+" ["), "the user %q: got %q", user, got)
	}
}

// Every variable has a value for an empty entry, and escapes what it gets.
func TestTemplateVariables(t *testing.T) {
	for name, v := range byName {
		var c clocks
		got := appendVariable(nil, &v, &Entry{}, &c)
		verify.That(t, len(got) != 0, "$%s appends nothing", name)
		evil := "a\n\"b"
		e := &Entry{
			RequestID: []byte(evil), TraceID: []byte(evil), Client: []byte(evil), Proxy: evil, User: evil, Method: []byte(evil), Host: []byte(evil),
			Target: []byte(evil), Proto: evil, UserAgent: []byte(evil), Referer: []byte(evil), TLSServerName: evil, TLSVersion: evil, TLSCipher: evil, Service: evil,
			Peer: evil, Group: evil, Reason: evil, GRPCStatus: evil, Tries: []Try{{Peer: evil}},
		}
		got = appendVariable(nil, &v, e, &c)
		verify.That(t, !strings.ContainsAny(string(got), "\n\""), "$%s appends %q", name, got)
	}
}

func TestParseFormat(t *testing.T) {
	for _, test := range []struct {
		format string
		want   string
	}{
		{"json", ""}, {"combined", ""}, {"$client $status", ""}, {"$http_x_a", ""},
		{"", "want json, combined, or a template"},
		{"clf", "want json, combined, or a template"},
		{"$remote_addr", "$remote_addr is not a variable: want one of $attempts, $bytes_in,"},
		{"$", "$ is not a variable"},
		{"$http_", "$http_ is not a variable"},
		{"${http_X}", "$http_X is not a variable"},
		{"${client", `"${client" has no "}"`},
		{"$client\n", `contains '\n', character 8`},
	} {
		_, err := ParseFormat(test.format)
		verify.That(t, (test.want != "" || err == nil) && (test.want == "" || err != nil && strings.Contains(err.Error(), test.want)), "%q: got %v, want %s", test.format, err, test.want)
	}
}

func TestSlowEntriesAreLogged(t *testing.T) {
	for _, test := range []struct {
		slow time.Duration
		want string
	}{
		{0, ""},
		{time.Second, "1000.000\n1001.000\n"},
	} {
		f := new(fakeFile)
		l := start(Options{Format: formatOf("$duration_ms"), Slow: test.slow}, &output{file: f})
		for _, waited := range []time.Duration{0, time.Second - 1, time.Second, 1001 * time.Millisecond} {
			l.Log(0, &Entry{Duration: waited, Waited: waited})
		}
		l.Log(0, &Entry{Duration: time.Hour, Waited: time.Millisecond}) // a tunnel
		verify.NoError(t, l.Close())
		verify.Equal(t, string(f.data), test.want, "slow: %v: got %q", test.slow, f.data)
	}
}
