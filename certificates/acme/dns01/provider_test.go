package dns01

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/dnstest"
	"sluice/test/verify"
)

func write(t *testing.T, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "secret")
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// A secret that cannot be used is told without its text.
func TestSecretsThatCannotBeUsed(t *testing.T) {
	for _, c := range []struct{ provider, text, want string }{
		{Cloudflare, "", "want a token on one line"},
		{Cloudflare, "top secret\n", "want a token on one line"},
		{Cloudflare, strings.Repeat("x", maxSecretBytes+1), "larger than"},
		{Cloudflare, "\ntoken\n", ""},
		{RFC2136, "secret", "want one key"},
		{RFC2136, dnstest.UpdateKey + dnstest.UpdateKey, "want one key"},
		{RFC2136, `key a { algorithm hmac-md5; secret "c2VjcmV0"; };`, "want one of the algorithms hmac-sha1, "},
		{RFC2136, `key a { algorithm hmac-sha256; };`, "want a secret"},
		{RFC2136, `key a { algorithm hmac-sha256; secret "secre"; };`, "no base64"},
		{RFC2136, `key a.b { secret c2VjcmV0; algorithm "HMAC-SHA512"; }`, ""},
		{RFC2136, dnstest.UpdateKey, ""},
	} {
		file := write(t, c.text)
		err := Provider{Name: c.provider, TokenFile: file, KeyFile: file}.Check()
		if c.want == "" {
			verify.That(t, err == nil, "%s, %q: %v", c.provider, c.text, err)
			continue
		}
		verify.Require(t, err != nil, "%s: no error for %.40q", c.provider, c.text)
		text := strings.ReplaceAll(err.Error(), file, "FILE")
		verify.That(t, strings.HasPrefix(text, "FILE: ") && strings.Contains(text, c.want), "%s: %s", c.provider, text)
		verify.That(t, c.text == "" || !strings.Contains(text, strings.TrimSpace(c.text)) || c.text == "secret", "%s: %s has the secret", c.provider, text)
	}
	verify.That(t, Provider{Name: Exec, Command: []string{"no-such-program"}}.Check() != nil, "a program that there is not")
	verify.That(t, Provider{Name: Exec}.Check() != nil, "no program")
}

// fake answers requests to an API.
type fake func(r *http.Request, body string) (status int, answer string)

func (f fake) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	status, answer := f(r, string(body))
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewBufferString(answer)), Request: r}, nil
}

// Cloudflare's API gets the record, with the token that is in the file at that time.
func TestCloudflare(t *testing.T) {
	transport := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = transport })
	zones := dnstest.StartZones(t, "a.example")
	token := write(t, "first\n")
	var asked []string
	var bodies strings.Builder
	http.DefaultTransport = fake(func(r *http.Request, body string) (int, string) {
		asked = append(asked, r.Header.Get("Authorization")+" "+r.Method+" "+r.URL.Path)
		bodies.WriteString(body + r.URL.RawQuery)
		const made = `{"id":"r1","type":"TXT","name":"_acme-challenge.a.example","content":"v","ttl":60}`
		switch {
		case r.URL.Path == "/client/v4/zones":
			return 200, `{"success":true,"result":[{"id":"z1","name":"a.example"}]}`
		case r.Method == http.MethodGet:
			return 200, `{"success":true,"result":[` + made + `]}`
		}
		return 200, `{"success":true,"result":` + made + `}`
	})
	s := New(Options{Provider: Provider{Name: Cloudflare, TokenFile: token}, Timeout: wait, Propagation: wait, Resolvers: []string{zones.Address}})
	c := challenge("a.example", "token")
	verify.NoError(t, s.Present(t.Context(), c))
	verify.NoError(t, os.WriteFile(token, []byte("second"), 0o600))
	verify.NoError(t, s.CleanUp(t.Context(), c))
	all := fmt.Sprint(asked)
	verify.That(t, strings.HasPrefix(all, "[Bearer first ") && strings.Contains(all, "Bearer second ") && !strings.Contains(all[strings.Index(all, "second"):], "first"), "asked: %s", all)
	verify.That(t, strings.Contains(bodies.String(), c.DNS01KeyAuthorization()) && strings.Contains(all+bodies.String(), "_acme-challenge"), "asked: %s %s", all, bodies.String())
	verify.NoError(t, os.WriteFile(token, nil, 0o600))
	err := s.Present(t.Context(), c)
	verify.That(t, err != nil && strings.Contains(err.Error(), "want a token"), "without a token: %v", err)
	verify.That(t, s.CleanUp(t.Context(), c) != nil, "a record that may be there is forgotten")
	s.Close()
	s.Await()
}
