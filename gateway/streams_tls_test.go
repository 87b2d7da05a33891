package gateway

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"sluice/test/discoverytest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// TestTLSOfStreams ends the TLS of clients, begins it to peers, and lets it through, by server
// names of the file and of tags.
func TestTLSOfStreams(t *testing.T) {
	t.Parallel()
	site := testcert.Write(t, t.TempDir(), "*.example.com")
	here := x509.NewCertPool()
	here.AppendCertsFromPEM(verify.Result(os.ReadFile(site.Cert)).Must(t))
	passed, there := secureGreeter(t, "passed")
	encrypted, _ := secureGreeter(t, "encrypted")
	consul := discoverytest.Start(t)
	consul.Set("tagged", withTags(t, "tagged", "tagged-1", greeter(t, "tagged"),
		"traefik.enable=true", "traefik.tcp.routers.t.rule=HostSNI(`tag.example.com`)", "traefik.tcp.routers.t.tls=true"))
	ofAddress := verify.Result(tls.X509KeyPair(testcert.PEM("", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(127, 0, 0, 1)} }))).Must(t)
	strange := listen(t, verify.Result(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ofAddress}})).Must(t),
		func(conn net.Conn) { fmt.Fprintln(conn, "strange") })
	consul.Set("strange", withTags(t, "strange", "strange-1", strange, "traefik.enable=true", "traefik.tcp.routers.s.rule=HostSNI(`strange.example.com`)",
		"traefik.tcp.routers.s.tls=true", "traefik.tcp.services.s.loadbalancer.server.tls=true"))
	r := start(t, fmt.Sprintf(`consul: { addresses: [%q] }
catalog: { tags: [traefik], claims: [{ service: tagged, hosts: [tag.example.com] }, { service: strange, hosts: [strange.example.com] }] }
listeners:
- { name: plain, address: "127.0.0.1:0", protocol: tcp }
- name: db
  address: "127.0.0.1:0"
  protocol: tcp
  tls: { certificates: [{ cert: %q, key: %q }] }
  service: other
  sni:
  - { host: ended.example.com, service: ended }
  - { host: again.example.com, service: again }
  - { host: wrong.example.com, service: wrong }
  - { host: passed.example.com, service: passed, passthrough: true }
services:
  other: { peers: [%q] }
  ended: { peers: [%q] }
  again: { peers: [%q], upstream: { tls: { skip_verify: true, server_name: inner.example.com } } }
  wrong: { peers: [%[7]q], upstream: { tls: { ca: %[2]q, server_name: inner.example.com } } }
  passed: { peers: [%[8]q] }
`, consul.URL(), site.Cert, site.Key, greeter(t, "other"), greeter(t, "ended"), encrypted, encrypted, passed))
	says := func(host string, roots *x509.CertPool) string {
		conn := tls.Client(r.connect("db"), &tls.Config{ServerName: host, RootCAs: roots})
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.TrimSpace(line)
	}
	for host, want := range map[string]string{
		"ended.example.com": "ended", "unknown.example.com": "other", "again.example.com": "encrypted inner.example.com",
		"wrong.example.com": "", // its certificate is of somebody else
	} {
		verify.Equal(t, says(host, here), want, "%s", host)
	}
	verify.Equal(t, says("passed.example.com", there), "passed passed.example.com", "through")
	verify.Equal(t, says("passed.example.com", here), "", "through, with the certificate of the listener")
	r.await("the route of a tag", func() bool { return says("tag.example.com", here) == "tagged" })
	// server.tls begins TLS to the instance: it has a certificate for its address, which nobody
	// has signed whom the system trusts.
	refused := fmt.Sprintf(`"peer":"strange-1","address":%q,"error":"TLS handshake: tls: failed to verify certificate: x509: certificate signed by unknown authority"`, strange)
	r.await("the route of a tag with TLS to the instance", func() bool {
		return says("strange.example.com", here) == "" && strings.Contains(r.log.String(), refused)
	})

	// Who does not begin with TLS gets nothing, whatever the service says first.
	for _, listener := range []string{"plain", "db"} {
		conn := r.connect(listener)
		fmt.Fprint(conn, "SELECT 1;\n")
		got := conn.line()
		verify.That(t, got == "" || listener == "db" && !strings.Contains(got, "other"), "%s: a client without TLS got %q", listener, got)
	}
}

// A connection that has sent no ClientHello yet goes by the server names of a reload, unless that
// is for other clients.
func TestServerNamesChangeBeforeTheClientHello(t *testing.T) {
	t.Parallel()
	former, _ := secureGreeter(t, "former")
	now, _ := secureGreeter(t, "now")
	text := func(service, more string) string {
		return fmt.Sprintf(`client: { timeouts: { head: %s } }
listeners: [{ name: db, address: "127.0.0.1:0", protocol: tcp, sni: [{ host: git.example.com, service: %s }]%s }]
services: { former: { peers: [%q] }, now: { peers: [%q] } }
`, patience, service, more, former, now)
	}
	for _, c := range []struct{ more, want string }{
		{"", "now git.example.com\n"},
		{`, proxy_protocol: { from: ["127.0.0.0/8"] }`, "former git.example.com\n"},
	} {
		r := start(t, text("former", ""))
		conn := r.connect("db")
		r.await("the connection is accepted", func() bool { return r.proxy.Stats().Connections == 1 })
		r.replace(text("now", c.more))
		got, err := io.ReadAll(tls.Client(conn, &tls.Config{ServerName: "git.example.com", InsecureSkipVerify: true}))
		verify.That(t, err == nil && string(got) == c.want, "%s: got %q %v, want %q", c.more, got, err, c.want)
	}
}
