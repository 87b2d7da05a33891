package grpc

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/test/verify"
)

// What is left of the timeout goes to the peer.
func TestTimeoutField(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond,
		"99999999n": 99_999_999, "99999999H": 99_999_999 * time.Second,
		"": 0, "S": 0, "1": 0, "1s": 0, "-1S": 0, "+1S": 0, "1.5S": 0, "123456789S": 0, "0S": 0,
	} {
		got, ok := ParseTimeout([]byte(value))
		verify.That(t, got == want && ok == (want != 0 || value == "0S"), "%q: got %v, %v, want %v", value, got, ok, want)
	}
	for _, d := range []time.Duration{1, 999, time.Microsecond, time.Millisecond + 1, time.Second, 99 * time.Second, 100 * time.Second, time.Hour, 28 * time.Hour, 99_999_999 * time.Second} {
		value := AppendTimeout(nil, d)
		got, ok := ParseTimeout(value)
		verify.That(t, ok && got >= d && got <= d+d/1000+time.Microsecond, "%v: got %q", d, value)
	}
	for _, d := range []time.Duration{0, -time.Second} {
		got := AppendTimeout(nil, d)
		verify.That(t, string(got) == "1u", "%v: got %q", d, got)
	}
}

func TestNamesOfCodes(t *testing.T) {
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		name := Code(code).String()
		verify.That(t, strings.EqualFold(strings.ReplaceAll(name, "_", ""), code.String()) || code == codes.Canceled, "%v: name %q", code, name)
	}
}
