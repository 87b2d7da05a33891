package healthcheck

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"sluice/certificates"
	"sluice/discovery"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// fixed is a configuration for every connection.
type fixed struct{ config *tls.Config }

func (f fixed) TermsFor(*discovery.Instance) (certificates.Terms, error) {
	return certificates.Terms{Config: f.config.Clone()}, nil
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	verify.NoError(t, os.WriteFile(file, data, 0o600))
}

// A certificate that the files had not at the start is shown, and trusted, by the next check.
// TestFilesThatCannotBeUsed of package certificates has files that cannot be used.
func TestCertificatesAreReadAgain(t *testing.T) {
	loopback := func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }
	oldCert, oldKey := testcert.PEM("old", loopback)
	newCert, newKey := testcert.PEM("new", loopback)
	pair := verify.Result(tls.X509KeyPair(newCert, newKey)).Must(t)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(newCert)
	demanding := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}

	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.TLS = demanding.Clone()
	web.StartTLS()
	defer web.Close()
	rpc, _ := serveGRPC(t, func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, health.NewServer()) }, grpc.Creds(credentials.NewTLS(demanding)))

	for name, test := range map[string]struct {
		address string
		probe   func(certificates.Security) Probe
	}{
		"http": {web.Listener.Addr().String(), func(c certificates.Security) Probe { return newHTTP(HTTPOptions{TLS: c}) }},
		"tcp": {web.Listener.Addr().String(), func(c certificates.Security) Probe {
			return NewTCP(TCPOptions{TLS: c, Send: []byte("GET / HTTP/1.0\r\n\r\n"), Expect: Expectation{Text: "ok", Within: 1000}})
		}},
		"grpc": {rpc, func(c certificates.Security) Probe { return NewGRPC(GRPCOptions{TLS: c}) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ca, cert, key := filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")
			write(t, ca, oldCert)
			write(t, cert, oldCert)
			write(t, key, oldKey)
			var told []string
			c := verify.Result(certificates.NewClient(certificates.ClientOptions{ClientTLS: certificates.ClientTLS{CA: ca, Cert: cert, Key: key}, Changed: func(err error) {
				if err == nil {
					told = append(told, "used")
				} else {
					told = append(told, err.Error())
				}
			}})).Must(t)
			probe := test.probe(c.Fresh())
			expect := func(what, want string, news ...string) {
				t.Helper()
				for range 2 { // said once
					got := check(t, probe, test.address, patience)
					verify.That(t, (want != "" || got == "") && strings.Contains(got, want), "%s: %q, want %q", what, got, want)
				}
				verify.That(t, slices.EqualFunc(told, news, strings.Contains), "%s: told %q, want %q", what, told, news)
				told = nil
			}
			expect("old files", "certificate")
			write(t, ca, append(slices.Clone(oldCert), newCert...))
			write(t, cert, newCert)
			expect("the key is still to come", "certificate", "certificate: ")
			write(t, key, newKey)
			expect("all there", "", "used")
			write(t, ca, oldCert)
			expect("not trusted any more", "certificate", "used")
		})
	}
}
