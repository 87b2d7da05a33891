package http1

import (
	"testing"

	"sluice/test/verify"
)

func TestForbiddenInTrailer(t *testing.T) {
	for line, want := range map[string]bool{
		"Content-Length: 1\r\n": true, "transfer-encoding: chunked\r\n": true, "HOST: a\r\n": true, "Connection:close\r\n": true,
		"TE: a\r\n": true, "Trailer: a\r\n": true, "Upgrade: a\r\n": true, "Cookie: a\r\n": true, "Set-Cookie: a\r\n": true,
		"Authorization: a\r\n": true, "X-Forwarded-For: a\r\n": true, "Forwarded: a\r\n": true, "X-Real-IP: a\r\n": true, "Via: a\r\n": true,
		"Content-Type: a\r\n": true, "Content-Encoding: a\r\n": true, "Cache-Control: a\r\n": true, "If-None-Match: a\r\n": true, "Location: a\r\n": true,
		"X-Forwarded-User: a\r\n": true, "X-Sluice-Reason: a\r\n": true, "Remote-User: a\r\n": true, "Set_Cookie: a\r\n": true, "Cache.Control: a\r\n": true,
		"X-Request-Id: a\r\n": false, "traceparent: a\r\n": false, "Content_Length: 1\r\n": false, "X_A: 1\r\n": false, "Age: 1\r\n": true, "WWW-Authenticate: 1\r\n": true,
		"X-Checksum: a\r\n": false, "Grpc-Status: 0\r\n": false, "Server-Timing: a\r\n": false, "ETag: \"a\"\r\n": false, "Digest: a\r\n": false,
		"Content-Lengths: a\r\n": false, "X: Content-Length: 1\r\n": false,
	} {
		verify.Equal(t, ForbiddenInTrailer(LineName([]byte(line))), want, "%q", line)
	}
}
