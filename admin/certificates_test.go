package admin

import (
	"errors"
	"testing"
	"time"

	"sluice/certificates"
	"sluice/test/verify"
)

// What is wrong with a certificate is in its own view and in /readyz, which stays
// ready.
func TestCertificates(t *testing.T) {
	now := time.Now()
	status := func(file string, begin, expires time.Time, fault error) certificates.Usage {
		return certificates.Usage{UsedBy: `listener "web"`, Status: certificates.Status{File: file, Names: []string{"a.example"}, Begin: begin, Expires: expires, Fault: fault}}
	}
	usages := []certificates.Usage{
		status("/expired.pem", now.Add(-2*time.Hour), now.Add(-time.Hour), nil),
		status("/early.pem", now.Add(time.Hour), now.Add(2*time.Hour), errors.New("no such file")),
		status("mesh:web", time.Time{}, time.Time{}, errors.New("no answer")),
	}
	h := handlerOf(Options{Process: Process{Certificates: func() []certificates.Usage { return usages }}})
	_, body := get(t, h, "/api/certificates")
	got := decode[[]Certificate](t, body)
	verify.That(t, len(got) == 3 && got[0].State == "expired" &&
		got[1].State == "not yet valid" && got[1].Error == "no such file" &&
		got[0].UsedBy == `listener "web"` && got[0].File == "/expired.pem" &&
		got[0].Expires.Equal(moment(now.Add(-time.Hour))), "got %s", body)
	code, body := get(t, h, "/readyz")
	ready := decode[Readiness](t, body)
	verify.Require(t, code == 200 && ready.Ready && len(ready.Certificates) == 4, "got %d %s", code, body)
	for i, want := range []string{"/expired.pem is expired", "/early.pem is not yet valid", "no such file", "mesh:web is missing: no answer"} {
		verify.Contains(t, ready.Certificates[i], want, "ready.Certificates[i]")
	}
}
