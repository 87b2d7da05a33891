package clients

import (
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/verify"
)

const plainRequest = "GET /identity HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n"

func testOpenSSL(t *testing.T, s *stage) {
	// client sends the request and returns what s_client prints.
	client := func(t *testing.T, address string, args ...string) string {
		t.Helper()
		args = append([]string{"s_client", "-connect", address, "-CAfile", s.ca, "-verify_return_error", "-servername", "site.example", "-ign_eof"}, args...)
		o := run(t, plainRequest, "openssl", args...)
		verify.Equal(t, o.status, 0, "openssl %q: %s: status", args, o.stderr)
		return o.stdout
	}
	for flag, version := range map[string]string{"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"} {
		t.Run(version, func(t *testing.T) {
			session := filepath.Join(t.TempDir(), "session")
			got := client(t, s.address, flag, "-alpn", "http/1.1", "-sess_out", session)
			expect(t, got, "New, "+version, "ALPN protocol: http/1.1", "Verify return code: 0 (ok)", "HTTP/1.1 200 OK")
			got = client(t, s.address, flag, "-alpn", "http/1.1", "-sess_in", session)
			expect(t, got, "Reused, "+version, "HTTP/1.1 200 OK")
			expect(t, client(t, s.address, flag), "No ALPN negotiated", "HTTP/1.1 200 OK")

			got = client(t, s.mutual, flag, "-cert", s.client.cert, "-key", s.client.key)
			expect(t, got, "HTTP/1.1 200 OK", `Subject="CN=client"`)
		})
	}
	t.Run("h2", func(t *testing.T) {
		// Not a preface of HTTP/2: sluice closes the connection.
		got := run(t, plainRequest, "openssl", "s_client", "-connect", s.address, "-CAfile", s.ca, "-ign_eof", "-alpn", "h2,http/1.1")
		expect(t, got.stdout, "ALPN protocol: h2")
	})
	t.Run("reconnect", func(t *testing.T) {
		got := client(t, s.address, "-tls1_2", "-reconnect")
		verify.Equal(t, strings.Count(got, "Reused, TLSv1.2"), 5, "%s: connections that resume the session", got)
		expect(t, got, "HTTP/1.1 200 OK")
	})
}
