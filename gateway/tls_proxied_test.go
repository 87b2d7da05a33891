package gateway

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/proxy/proxyprotocol"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// A proxyConn is a connection of a proxy, which sends a header before the first bytes of its
// client: together with them, or octet by octet.
type proxyConn struct {
	net.Conn
	header []byte
	slow   bool
}

func (c *proxyConn) Write(b []byte) (int, error) {
	header := c.header
	if c.header = nil; len(header) == 0 {
		return c.Conn.Write(b)
	}
	for c.slow && len(header) > 0 {
		if _, err := c.Conn.Write(header[:1]); err != nil {
			return 0, err
		}
		header = header[1:]
	}
	_, err := c.Conn.Write(append(header, b...))
	return len(b), err
}

// ask returns the status and the body of an answer over TLS; 0: there was none.
func (c *proxyConn) ask(config *tls.Config) (status int, body string, resumed bool) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	conn := tls.Client(c, config)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"); err != nil {
		return 0, "", false
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "", false
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text), conn.ConnectionState().DidResume
}

// Behind a proxy that speaks before TLS, a listener keeps its policy: its profile, its clients'
// certificates with the revoked ones, and sessions, which belong to no address: each request has
// the address of its connection. Who sends no header gets nothing.
func TestTLSPolicyBehindProxies(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(verify.Seed(t), 0))
	dir, a := t.TempDir(), testcert.NewAuthority(t, "ca.example")
	site := testcert.Write(t, dir, "a.example")
	leaf := func(name string, serial int64) *tls.Certificate {
		_, _, pair := a.Chain(t, "/"+name, func(c *x509.Certificate) { c.Subject, c.SerialNumber = pkix.Name{CommonName: name}, big.NewInt(serial) })
		return &pair
	}
	certificates := map[string]*tls.Certificate{"good": leaf("good", 7), "revoked": leaf("revoked", 8), "none": nil}
	now := time.Now()
	ca, crl := writeFile(t, dir, "ca.pem", a.Root), writeFile(t, dir, "crl.pem", a.CRL(t, now.Add(-time.Hour), now.Add(time.Hour), []int64{8}))
	tickets := writeFile(t, dir, "tickets", []byte("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n"))
	peer := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-For"), " ", strings.Contains(r.Header.Get("X-Forwarded-Client-Cert"), "CN=good"))
	})
	var r *running
	for n := range 6 {
		profile := []string{"modern", "intermediate"}[random.IntN(2)]
		auth := []string{"", "required", "optional"}[random.IntN(3)]
		more := ", profile: " + profile
		if auth == "" {
			more += fmt.Sprintf(", ticket_keys: %q", tickets)
		} else {
			more += fmt.Sprintf(", client_ca: %q, client_crl: %q, client_auth: %s", ca, crl, auth)
		}
		text := "listeners:\n" + strings.Replace(secureListener("web", site, more), ", tls:", ", proxy_protocol: { from: [127.0.0.0/8] }, tls:", 1) + static("star", peer)
		text += fmt.Sprintf("shutdown: { idle: %ds }\n", 1+n) // another one each time
		if r == nil {
			r = start(t, text)
		} else {
			r.replace(text)
		}
		for range 8 {
			name := []string{"good", "good", "revoked", "none"}[random.IntN(4)]
			config := &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
			config.MaxVersion = []uint16{tls.VersionTLS12, tls.VersionTLS13}[random.IntN(2)]
			if c := certificates[name]; c != nil {
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }
			} else {
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
			}
			allowed := (profile == "intermediate" || config.MaxVersion == tls.VersionTLS13) &&
				(auth == "" || name == "good" || name == "none" && auth == "optional")
			for again := range 2 {
				client := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + random.IntN(250))})
				c := &proxyConn{Conn: verify.Result(net.Dial("tcp", r.Address("web").String())).Must(t), slow: random.IntN(2) == 0}
				speaks := random.IntN(8) > 0
				if speaks {
					c.header = proxyprotocol.Header(byte(1+random.IntN(2)), proxyprotocol.Addresses{Client: netip.AddrPortFrom(client, 4711), Server: netip.MustParseAddrPort("192.0.2.254:443")})
				}
				status, body, resumed := c.ask(config)
				what := fmt.Sprintf("%s, client_auth %q, client %s with %s and at most %s, header %t", profile, auth, client, name, tls.VersionName(config.MaxVersion), speaks)
				if !speaks || !allowed {
					verify.Require(t, status == 0, "%s: got %d %s", what, status, body)
					break
				}
				verify.Require(t, status == 200 && body == fmt.Sprint(client, " ", name == "good" && auth != ""), "%s: got %d %q", what, status, body)
				verify.Require(t, resumed == (again > 0 && auth == ""), "%s: resumed %t, connection %d", what, resumed, again+1)
			}
		}
	}
}
