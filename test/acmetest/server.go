// Package acmetest runs Pebble, an ACME server, for tests and examples.
package acmetest

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/test/consultest"
	"sluice/test/pinned"
	"sluice/test/subprocess"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// Options configure a server.
type Options struct {
	HTTPPort, TLSPort int       // on which it expects the answers of challenges; 0: a free one
	DNS               string    // address of the name server that it asks; "": one of its own, for which every name has the address 127.0.0.1
	Progress          io.Writer // gets the lines of a build of Pebble, if one is needed; may be nil
}

// Server is an ACME server. Its certificates are from an authority of its own.
type Server struct {
	Options
	Directory string // URL of its API
	CA        string // file with the certificate of the API
	Log       *subprocess.Output

	management string    // "host:port"
	files      string    // the directory
	ports      io.Closer // reserves them
	processes  []*subprocess.Process
}

// Start runs a server until t ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	o.Progress = os.Stderr
	s, err := StartServer(t.Context(), t.TempDir(), o)
	verify.Require(t, err == nil, "start pebble: %v", err)
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("pebble: %s", s.Log)
		}
	})
	return s
}

// StartServer runs a server with its files in a directory until Close, and waits until it listens.
func StartServer(ctx context.Context, directory string, o Options) (s *Server, err error) {
	s = &Server{Options: o, CA: filepath.Join(directory, "pebble.pem"), Log: new(subprocess.Output), files: directory}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	first := 0
	if first, s.ports, err = consultest.ReserveBlock(); err != nil {
		return s, err
	}
	s.HTTPPort, s.TLSPort = cmp.Or(o.HTTPPort, first+4), cmp.Or(o.TLSPort, first+5)
	address := func(n int) string { return fmt.Sprintf("127.0.0.1:%d", first+n) }
	s.Directory, s.management = "https://"+address(0)+"/dir", address(1)
	if s.DNS == "" {
		s.DNS = address(2)
		if err := s.run(ctx, "pebble-challtestsrv", "-dnsserver", s.DNS, "-doh", "", "-http01", "", "-https01", "",
			"-tlsalpn01", "", "-defaultIPv6", "", "-management", address(3)); err != nil {
			return s, err
		}
	}
	if err := s.configure(address(0)); err != nil {
		return s, err
	}
	if err := s.run(ctx, "pebble", "-config", s.file("pebble.json"), "-dnsserver", s.DNS); err != nil {
		return s, err
	}
	return s, s.awaitListener(ctx, address(0))
}

func (s *Server) file(name string) string { return filepath.Join(s.files, name) }

// configure writes the files of the server.
func (s *Server) configure(address string) error {
	cert, key := testcert.PEM("localhost", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
	text, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": address, "managementListenAddress": s.management,
		"certificate": s.CA, "privateKey": s.file("pebble.key"),
		"httpPort": s.HTTPPort, "tlsPort": s.TLSPort,
	}})
	return errors.Join(err, os.WriteFile(s.CA, cert, 0o600), os.WriteFile(s.file("pebble.key"), key, 0o600),
		os.WriteFile(s.file("pebble.json"), text, 0o600))
}

// run starts one of Pebble's programs.
func (s *Server) run(ctx context.Context, name string, arguments ...string) error {
	program := pinned.Program{
		Name: name, Title: "Pebble", Module: "github.com/letsencrypt/pebble/v2",
		Package: "github.com/letsencrypt/pebble/v2/cmd/" + name, Dir: "test/pebble",
	}
	binary, err := program.Binary(ctx, s.Progress)
	if err != nil {
		return err
	}
	process, err := subprocess.Start(subprocess.Options{
		Program: binary, Args: arguments, Output: s.Log, Env: []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=20"},
	})
	if err == nil {
		s.processes = append(s.processes, process)
	}
	return err
}

func (s *Server) awaitListener(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, consultest.Patience)
	defer cancel()
	for tick := time.Tick(consultest.Poll); ; <-tick {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("pebble does not listen: %w\n%s", err, s.Log)
		}
	}
}

// Root returns the certificate of the authority, of which all that the server issues are.
func (s *Server) Root(ctx context.Context) (*x509.CertPool, error) {
	own, err := os.ReadFile(s.CA)
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(own)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.management+"/roots/0", nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		err = errors.Join(err, fmt.Errorf("pebble's root is %q", text))
	}
	return roots, err
}

// Issued returns how many certificates the server has issued.
func (s *Server) Issued() int { return strings.Count(s.Log.String(), "Issued certificate serial") }

// Close ends the server.
func (s *Server) Close() (err error) {
	for _, p := range s.processes {
		err = errors.Join(err, p.Kill())
	}
	if s.ports != nil {
		err = errors.Join(err, s.ports.Close())
	}
	return err
}
