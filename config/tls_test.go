package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/testcert"
	"sluice/test/verify"
)

func TestListenerTLS(t *testing.T) {
	dir := t.TempDir()
	site, other := testcert.Write(t, dir, "site"), testcert.Write(t, dir, "other")
	text := filepath.Join(dir, "text")
	verify.NoError(t, os.WriteFile(text, []byte("no certificate"), 0o600))
	missing := filepath.Join(dir, "missing")
	parse := func(tls string) (*Config, error) {
		return Parse("sluice.yaml", []byte(fmt.Sprintf(`services: { star: { peers: ["127.0.0.1:1"] } }
routes: [{ service: star }]
listeners:
  - address: ":443"
    tls: %s
`, tls)))
	}
	c := verify.Result(parse(fmt.Sprintf("{ certificates: [{ cert: %s, key: %s }, { cert: %s, key: %s }] }", site.Cert, site.Key, other.Cert, other.Key))).Must(t)
	got := c.Listeners[0].TLS.Certificates
	verify.That(t, len(got) == 2 && got[1] == (Certificate{Cert: other.Cert, Key: other.Key}), "got %+v", got)
	_, err := parse("{ certificates: [{ consul_kv: certs/web }] }")
	verify.Succeeds(t, err)
	with := func(more string) string {
		return fmt.Sprintf("{ certificates: [{ cert: %s, key: %s }], %s }", site.Cert, site.Key, more)
	}
	for _, good := range []string{"profile: modern", "min_version: 1.3, curves: [X25519MLKEM768]", "ciphers: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256], curves: [P-256]"} {
		_, err := parse(with(good))
		verify.Succeeds(t, err)
	}
	const key = "sluice.yaml:5: listeners[0].tls.certificates"
	for _, test := range []struct{ tls, want string }{
		{"{ certificates: [] }", key + `: empty: want at least one, such as { cert: site.pem, key: site.key }`},
		{fmt.Sprintf("{ certificates: [{ cert: %s, key: %s }], client_ca: %s }", site.Cert, site.Key, missing), `tls.client_ca: value "` + missing + `": cannot be used`},
		{fmt.Sprintf("{ certificates: [{ cert: %s, key: %s }], client_ca: %s }", site.Cert, site.Key, text), "has none in PEM format"},
		{fmt.Sprintf("{ certificates: [{ cert: %s, key: %s }], client_auth: optional }", site.Cert, site.Key), "only with client_ca"},
		{fmt.Sprintf("{ certificates: [{ cert: %s, key: %s }] }\n    redirect_https: {}", site.Cert, site.Key), "listeners[0].redirect_https: not on a listener with tls"},
		{"{ acme: { names: [a.example, 192.0.2.1] } }", `sluice.yaml:5: listeners[0].tls.acme.names[1]: value "192.0.2.1": want a host name`},
		{"{ acme: { names: [a.example], encryption_keys: [a.key] } }", `sluice.yaml:5: listeners[0].tls.acme.encryption_keys: value "a.key": only with consul_kv`},
		{"{ acme: { names: [a.example], consul_kv: a, encryption_keys: [" + text + "] } }", `listeners[0].tls.acme.encryption_keys[0]: value "` + text + `": cannot be used: ` + text + `: want a key of 32 bytes in base64`},
		{"{}", key + `: empty: want at least one`},
		{"{ certificates: [{ cert: a.pem }] }", key + `[0].key: required: the path of a file`},
		{fmt.Sprintf("{ certificates: [{ cert: %s, key: %s, consul_kv: certs }] }", site.Cert, site.Key), `sluice.yaml:5: listeners[0].tls.certificates[0].consul_kv: value "certs": not together with cert and key`},
		{"{ certificates: [{ consul_kv: certs/ }] }", key + `[0].consul_kv: value "certs/": want a prefix of keys such as certs/web`},
		{with("profile: old"), `listeners[0].tls.profile: value "old": want one of modern, intermediate`},
		{with("profile: modern, min_version: 1.2"), `tls.profile: value "modern": not together with min_version, ciphers or curves`},
		{with("min_version: 1.1"), `tls.min_version: value "1.1": want one of 1.2, 1.3`},
		{with("ciphers: [TLS_RSA_WITH_AES_128_GCM_SHA256]"), `tls.ciphers[0]: value "TLS_RSA_WITH_AES_128_GCM_SHA256": want one of TLS_ECDHE_ECDSA_`},
		{with("min_version: 1.3, ciphers: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]"), "only for TLS 1.2, which min_version does not allow"},
		{with("ciphers: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]"), "tls.ciphers: HTTP/2 with TLS 1.2 needs a cipher suite with AES_128_GCM_SHA256"},
		{with("curves: [X25519]"), "tls.curves: HTTP/2 with TLS 1.2 needs the curve P-256"},
		{with("ciphers: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]"), key + `[0].cert: value "` + site.Cert + `": none of the ciphers suits its key`},
		{with("client_crl: " + text), "tls.client_crl: value \"" + text + "\": only with client_ca"},
		{with("client_ca: " + site.Cert + ", client_crl: " + text), "not a list of revoked certificates"},
		{with("ticket_keys: " + text), "tls.ticket_keys: value \"" + text + "\": cannot be used: " + text + ": line 1: want a key of 32 bytes in base64"},
		{with("client_ca: " + site.Cert + ", ticket_keys: " + text), "not together with client_ca"},
		{"{ certificates: [{}] }", key + `[0].cert: required: the path of a file, or give consul_kv`},
		{fmt.Sprintf("{ certificates: [{ cert: %s, key: %s }] }", missing, site.Key), key + `[0].cert: value "` + missing + `": cannot be read`},
		{fmt.Sprintf("{ certificates: [{ cert: %s, key: %s }] }", site.Cert, missing), key + `[0].key: value "` + missing + `": cannot be read`},
		{fmt.Sprintf("{ certificates: [{ cert: %s, key: %s }] }", text, site.Key), key + `[0].cert: value "` + text + `": not a certificate for the key in ` + site.Key},
		{fmt.Sprintf("{ certificates: [{ cert: %s, key: %s }] }", site.Cert, other.Key), "private key does not match public key"},
		{fmt.Sprintf("{ certificates: [{ cert: %s, key: %s }] }", site.Cert, dir), key + `[0].key: value "` + dir + `": cannot be read`},
	} {
		_, err := parse(test.tls)
		verify.That(t, err != nil && strings.Contains(err.Error(), test.want), "%s: got %v, want %q", test.tls, err, test.want)
	}
}
