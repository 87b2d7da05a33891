package consul

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// secured is a fake that takes only clients with a certificate.
type secured struct {
	*discoverytest.Consul
	t      *testing.T
	server *httptest.Server
	dir    string // where the client's files are
	log    subprocess.Output

	mu          sync.Mutex
	certificate tls.Certificate
	shown       map[int64]bool // serial numbers of the clients' certificates since the last call of taken
	protocol    int
}

func newSecured(t *testing.T, ca *consultest.Authority, http2 bool) *secured {
	s := &secured{Consul: discoverytest.New(), t: t, dir: t.TempDir(), shown: make(map[int64]bool)}
	s.serve(ca)
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(s.read(ca.File))
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.shown[r.TLS.PeerCertificates[0].SerialNumber.Int64()] = true
		s.protocol = r.ProtoMajor
		s.mu.Unlock()
		s.ServeHTTP(w, r)
	}))
	s.server.EnableHTTP2 = http2
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	config := &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, NextProtos: []string{"http/1.1"}}
	if http2 {
		config.NextProtos = []string{"h2"}
	}
	s.server.TLS = config
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		c := config.Clone()
		c.Certificates = []tls.Certificate{s.certificate}
		return c, nil
	}
	s.server.StartTLS()
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

// serve makes the server's certificate one of ca.
func (s *secured) serve(ca *consultest.Authority) {
	s.t.Helper()
	pair := verify.Result(tls.LoadX509KeyPair(ca.Issue("server", "127.0.0.1"))).Must(s.t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certificate = pair
}

// install copies a file to the name that the client knows, in one step.
func (s *secured) install(name, from string) {
	s.t.Helper()
	s.write(name, s.read(from))
}

func (s *secured) read(file string) []byte {
	s.t.Helper()
	return verify.Result(os.ReadFile(file)).Must(s.t)
}

func (s *secured) write(name string, content []byte) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	verify.NoError(s.t, os.WriteFile(path+"~", content, 0o600))
	verify.NoError(s.t, os.Rename(path+"~", path))
}

func (s *secured) installPair(certificate, key string) {
	s.install("client.pem", certificate)
	s.install("client-key.pem", key)
}

func (s *secured) client() *Client {
	s.t.Helper()
	client := verify.Result(New(Options{
		Addresses: []string{s.server.URL},
		TLS: TLSOptions{ClientTLS: certificates.ClientTLS{CA: filepath.Join(s.dir, "ca.pem"),
			Cert: filepath.Join(s.dir, "client.pem"), Key: filepath.Join(s.dir, "client-key.pem")}},
		Log: zerolog.New(&s.log),
	})).Must(s.t)
	s.t.Cleanup(client.Close)
	return client
}

// taken returns the serial numbers that clients have shown since the last call.
func (s *secured) taken() map[int64]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	shown := s.shown
	s.shown = make(map[int64]bool)
	return shown
}

// ask asks c on a new connection, again if the machine stands still for seconds.
func (s *secured) ask(c *Client) error {
	for {
		c.agents.inUse().connections.renew()
		_, err := c.Get(s.t.Context(), Query{Path: "health/service/star"}, func(io.Reader) error { return nil })
		if err == nil || !late(err) {
			return err
		}
	}
}

// late reports whether err is about time: probes or a query have taken longer than an agent may.
func late(err error) bool {
	return slices.ContainsFunc([]string{"has not answered for", "no answer within", "no TLS handshake within", "i/o timeout"},
		func(text string) bool { return strings.Contains(err.Error(), text) })
}

func (s *secured) expectLog(count int, line string) {
	s.t.Helper()
	verify.Equal(s.t, strings.Count(s.log.String(), line), count, "lines %q: %s", line, s.log.String())
}

const (
	kept     = "the certificates cannot be read, going on with the ones that were read before"
	replaced = "other certificates are used for new connections from now on"
)

// Files that cannot be used leave those before. TestFilesThatCannotBeUsed of package certificates
// shows which ones these are.
func TestNewConnectionsUseTheCertificatesOnDisk(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			ca := consultest.NewAuthority(t, "Consul CA")
			s := newSecured(t, ca, http2)
			s.install("ca.pem", ca.File)
			s.installPair(ca.Issue("first"))
			first := ca.Issued // its serial number
			client := s.client()
			verify.NoError(t, os.Remove(filepath.Join(s.dir, "client.pem")))
			for range 3 {
				verify.NoError(t, s.ask(client))
			}
			verify.DeepEqual(t, s.taken(), map[int64]bool{first: true}, "certificates that were shown")
			s.expectLog(1, kept)
			s.expectLog(0, replaced)
			s.installPair(ca.Issue("second"))
			verify.NoError(t, s.ask(client))
			verify.DeepEqual(t, s.taken(), map[int64]bool{first + 1: true}, "certificates that were shown")
			verify.Equal(t, s.protocol, map[bool]int{false: 1, true: 2}[http2], "HTTP/")
			s.expectLog(1, kept)
			s.expectLog(1, replaced)
		})
	}
}
