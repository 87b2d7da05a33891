package clients

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/verify"
)

// bodies are short and much longer than a window of flow control.
var bodies = map[string]string{"short": "Hello\n", "long": strings.Repeat("0123456789abcdef", 200_000)}

func testCurl(t *testing.T, s *stage) {
	for version, flag := range map[string]string{"1.1": "--http1.1", "2": "--http2"} {
		curl := func(t *testing.T, path string, args ...string) string {
			t.Helper()
			args = append([]string{"--silent", "--show-error", flag, "--cacert", s.ca, "--write-out", "%{stderr}%{http_version} %{http_code}\n", s.url(path)}, args...)
			o := run(t, "", "curl", args...)
			verify.That(t, o.status == 0 && o.stderr == version+" 200\n", "curl %q ended with status %d: %q", args, o.status, o.stderr)
			return o.stdout
		}
		t.Run(flag, func(t *testing.T) {
			verify.Equal(t, curl(t, "/hello"), "Hello\n", "answer")
			expect(t, strings.ToLower(curl(t, "/hello", "--head")), "content-length: 6\r\n")
			verify.Equal(t, curl(t, "/hello", "--tlsv1.2", "--tls-max", "1.2"), "Hello\n", "with TLS 1.2")
			for name, body := range bodies {
				path := file(t, body)
				for how, args := range map[string][]string{
					"post":           {"--data-binary", "@" + path},
					"put":            {"--upload-file", path},
					"without length": {"--upload-file", path, "--header", "Transfer-Encoding: chunked"},
					"form":           {"--form", "a=<" + path},
				} {
					got := curl(t, "/echo", args...)
					whole := got == body
					if how == "form" { // between two lines of the boundary
						whole = strings.Contains(got, "\r\n\r\n"+body+"\r\n--")
					}
					verify.That(t, whole, "%s body, %s: got %d bytes, want %d", name, how, len(got), len(body))
				}
			}

			head := filepath.Join(t.TempDir(), "head")
			got := curl(t, "/trailer", "--header", "TE: trailers", "--header", "Connection: TE", "--dump-header", head)
			verify.Equal(t, got, "te: trailers\n", "answer")
			fields := verify.Result(os.ReadFile(head)).Must(t)
			_, trailer, _ := strings.Cut(string(fields), "\r\n\r\n")
			expect(t, strings.ToLower(trailer), "x-sum: 7\r\n")
		})
	}

	t.Run("parallel", func(t *testing.T) {
		out := succeed(t, "curl", "--silent", "--show-error", "--http2", "--cacert", s.ca, "--parallel",
			"--write-out", "%{http_version} %{http_code}\n", "--output", filepath.Join(t.TempDir(), "#1"), s.url("/hello?[1-50]"))
		verify.Equal(t, strings.Count(out, "2 200\n"), 50, "requests that succeeded")
	})
	t.Run("client certificate", func(t *testing.T) {
		args := []string{"--silent", "--show-error", "--cacert", s.ca, "https://" + s.mutual + "/identity"}
		got := succeed(t, "curl", append(args, "--cert", s.client.cert, "--key", s.client.key)...)
		expect(t, got, `Subject="CN=client"`, "DNS=client.example")
		o := run(t, "", "curl", args...)
		verify.That(t, o.status != 0, "without a certificate: got %q", o.stdout)
	})
}
