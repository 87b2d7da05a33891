package certificates

import (
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/test/testcert"
	"sluice/test/verify"
)

// missing is a certificate that was not obtained yet.
type missing struct{ Source }

func (missing) Statuses() []Status { return []Status{{File: "acme", Names: []string{"a.example"}}} }

// A certificate that is missing has no times.
func TestWarningOfAMissingCertificate(t *testing.T) {
	var log strings.Builder
	make(Warnings).Log(Statuses([]Use{{"a listener", missing{}}}), time.Now(), zerolog.New(&log))
	verify.Equal(t, log.String(), `{"level":"warn","used_by":"a listener","file":"acme","names":["a.example"],"message":"a certificate is missing"}`+"\n", "log")
}

// A warning about a certificate comes once a day.
func TestWarnings(t *testing.T) {
	files := testcert.Write(t, t.TempDir(), "a.example", testcert.Lasting(-time.Hour, 30*24*time.Hour))
	follower := verify.Result(Follow(Files{Cert: files.Cert, Key: files.Key}, nil)).Must(t)
	uses, warnings, now := []Use{{"a listener", follower}}, make(Warnings), time.Now()
	expect := func(after time.Duration, level string, want int) {
		t.Helper()
		var log strings.Builder
		warnings.Log(Statuses(uses), now.Add(after), zerolog.New(&log))
		got := strings.Count(log.String(), files.Cert)
		verify.That(t, got == want && (want <= 0 || strings.Contains(log.String(), level)), "after %v: %q, want %d of level %s", after, log.String(), want, level)
	}
	const day = 24 * time.Hour
	expect(10*day, "", 0)
	expect(25*day, "warn", 1)
	expect(25*day+time.Hour, "warn", 0)
	expect(26*day+time.Hour, "warn", 1)
	expect(31*day, "error", 1)
	expect(31*day+time.Hour, "error", 0)
}
