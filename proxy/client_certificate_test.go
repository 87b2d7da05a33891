package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/certificates"
	"sluice/test/testcert"
	"sluice/test/verify"
)

func TestClientCertificateLine(t *testing.T) {
	spiffe := verify.Result(url.Parse("spiffe://mesh/ns/default/svc/web")).Must(t)
	for _, test := range []struct {
		name   string
		change func(*x509.Certificate)
		want   string // after the hash; "": an error
	}{
		{"all", func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "web", Organization: []string{"A"}}
			c.URIs = []*url.URL{spiffe}
			c.DNSNames = []string{"a.example", "b.example"}
		}, `;Subject="CN=web,O=A";URI=spiffe://mesh/ns/default/svc/web;DNS=a.example;DNS=b.example`},
		{"characters that separate", func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: `a";URI=b\`}
			c.DNSNames = []string{`a;DNS=b`, `"`}
		}, `;Subject="CN=a\\\"\\;URI=b\\\\";DNS="a;DNS=b";DNS="\""`},
		{"a line end", func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "a\r\nX-Admin: 1"}
		}, ""},
	} {
		text, _ := testcert.PEM("star", func(c *x509.Certificate) { c.DNSNames = nil }, test.change)
		block, _ := pem.Decode(text)
		certificate := verify.Result(x509.ParseCertificate(block.Bytes)).Must(t)
		c, err := newClientCertificate(tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{certificate}}}, nil)
		if test.want == "" {
			verify.That(t, err != nil, "%s: got %v", test.name, c)
			continue
		}
		const start = "X-Forwarded-Client-Cert: Hash="
		got, ok := strings.CutPrefix(c.line, start)
		verify.That(t, err == nil && ok && len(got) >= 64 && got[64:] == test.want+"\r\n", "%s: got %q, %v; want the end %q", test.name, c.line, err, test.want)
	}
}

// Before EndRevoked is called, a client whose certificate is revoked gets 403 on an open
// connection, and no new one, although its handshake has asked the lists of before.
func TestRevokedBeforeItsEnd(t *testing.T) {
	t.Parallel()
	dir, a := t.TempDir(), testcert.NewAuthority(t, "ca.example")
	_, _, pair := a.Chain(t, "/web", func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) })
	files := certificates.Files{CA: filepath.Join(dir, "ca.pem"), CRL: filepath.Join(dir, "crl.pem")}
	verify.NoError(t, os.WriteFile(files.CA, a.Root, 0o600))
	verify.NoError(t, os.WriteFile(files.CRL, a.CRL(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), []int64{7}), 0o600))
	contents := verify.Result(certificates.Read(files)).Must(t)
	var lists atomic.Pointer[certificates.Revocations]
	options := ListenerOptions{Revocations: lists.Load, HTTP2: true, TLS: &tls.Config{
		Certificates: []tls.Certificate{certificate()}, ClientCAs: contents.Trusted, ClientAuth: tls.RequireAndVerifyClientCert,
	}}
	p := startProxy(t, Options{}, startOrigin(t, greeting).address())
	streams := options
	streams.Streams = func() *Streams {
		ended := *p.target().Other
		ended.EndsTLS = true
		return &Streams{Other: &ended}
	}
	options.TLS = options.TLS.Clone()
	options.TLS.NextProtos = []string{"h2", "http/1.1"}
	web, db := p.serveWith(options), p.serveWith(streams)
	trust := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}
	for list, want := range map[*certificates.Revocations]string{nil: "220 ready\n", contents.Revocations: ""} {
		lists.Store(list)
		conn := tls.Client(verify.Result(net.Dial("tcp", db)).Must(t), trust)
		got := make([]byte, len("220 ready\n"))
		n, _ := io.ReadFull(conn, got)
		conn.Close()
		verify.Equal(t, string(got[:n]), want, "TCP")
	}
	for _, test := range []struct {
		protocol string
		http2    bool
	}{{"HTTP/1.1", false}, {"HTTP/2.0", true}} {
		lists.Store(nil)
		transport := &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: test.http2}
		client := &http.Client{Transport: transport, Timeout: patience}
		ask := func() (*http.Response, error) {
			answer, err := client.Get("https://" + web + "/")
			if err == nil {
				io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
			}
			return answer, err
		}
		first := verify.Result(ask()).Must(t)
		verify.That(t, first.Proto == test.protocol && first.StatusCode != 403, "%s: got %s %s", test.protocol, first.Proto, first.Status)
		lists.Store(contents.Revocations)
		second := verify.Result(ask()).Must(t)
		verify.That(t, second.StatusCode == 403 && second.Header.Get("X-Sluice-Reason") == "certificate_revoked", "%s: got %s", test.protocol, second.Status)
		transport.CloseIdleConnections()
		_, err := ask()
		verify.That(t, err != nil, "%s: a new connection", test.protocol)
	}
}
