package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/certificates"
	"sluice/route"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// A request is a call of gRPC only if it is a POST request over HTTP/2 to peers with HTTP/2. No
// content type makes anything else one: not the refusals, nor what counts against a peer, nor
// the names that pass, nor the timeouts.
func TestContentTypeMakesNoCall(t *testing.T) {
	t.Parallel()
	for _, peersUseHTTP2 := range []bool{false, true} {
		p := startProxyTo(t, peersUseHTTP2, Options{}, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, "%q %q %s", r.Header["X_real_ip"], r.Header["X_mine"], r.Header.Get("Grpc-Timeout"))
		})
		client := p.fronts()[2]
		for _, method := range []string{"GET", "PUT", "POST", "HEAD"} {
			if method == "POST" && peersUseHTTP2 {
				continue // it is a call
			}
			response, body := client.ask(t, method, "/", "", "Content-Type: application/grpc", "X_Real_IP: 6.6.6.6", "X_Mine: 1", "Grpc-Timeout: 0m")
			verify.That(t, response.StatusCode == 200 && (method == "HEAD" || body == `[] [] 0m`), "%s, HTTP/2 to peers %v: got %d %q", method, peersUseHTTP2, response.StatusCode, body)
		}
		for range 30 {
			client.ask(t, "POST", "/", "", "Content-Type: application/grpc") // to a server without gRPC
		}
		p.expectNothingCounted()
		p.setActions(&route.Actions{Access: access("192.0.2.0/24", "")})
		for _, method := range []string{"GET", "POST"} {
			response, _ := client.ask(t, method, "/", "", "Content-Type: application/grpc")
			isCall := method == "POST" && peersUseHTTP2
			status := map[bool]int{true: 200, false: 403}[isCall]
			h := response.Header
			verify.That(t, response.StatusCode == status && (h.Get("Grpc-Status") != "") == isCall && (isCall || h.Get("Cache-Control") == "no-store"),
				"%s, HTTP/2 to peers %v: the refusal has the status %d, %v", method, peersUseHTTP2, response.StatusCode, h)
		}
		many := []string{"Content-Type: application/grpc"} // the head is refused before its route is known
		for i := range 101 {
			many = append(many, fmt.Sprintf("A%d: b", i))
		}
		response, _ := client.ask(t, "GET", "/app.js", "", many...)
		verify.That(t, response.StatusCode == 431 && response.Header.Get("Grpc-Status") == "", "HTTP/2 to peers %v: the refusal has the status %d, %v", peersUseHTTP2, response.StatusCode, response.Header)
		p.setRoutes()
		response, _ = client.ask(t, "GET", "/", "", "Content-Type: application/grpc")
		verify.That(t, response.StatusCode == 404, "without a route: got %d", response.StatusCode)
	}
}

// The pauses of a request's body are those of a stream of gRPC only in one.
func TestPausesOfBodiesByKind(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Timeouts: Timeouts{Body: 100 * time.Millisecond}}, answersOK(t))
	c := p.dialFrames()
	c.request(1, grpcPost, false)
	c.WriteData(1, false, []byte("a"))
	r := c.response(1)
	verify.Equal(t, r.status, "408", "the status of a request to a peer with HTTP/1.1")
}

// A client cannot make its peers fail by its own deadline.
func TestDeadlineOfClientCountsForNobody(t *testing.T) {
	t.Parallel()
	p := startProxyToH2C(t, startServer(t, func(http.ResponseWriter, *http.Request) { t.Error("a peer got the call") }))
	c := p.dialFrames()
	for i, test := range []struct{ timeout, status string }{
		{"0m", "4"}, {"0H", "4"}, {"00000000n", "4"}, {"", "13"}, {"m", "13"}, {"-1m", "13"}, {"1", "13"}, {"1x", "13"}, {"123456789S", "13"}, {"1S|grpc-timeout=2S", "13"},
	} {
		r := c.ask(uint32(2*i+1), grpcPost+"|grpc-timeout="+test.timeout)
		verify.That(t, r.status == "200" && r.header["grpc-status"] == test.status, "%q: got %+v", test.timeout, r)
	}
	p.expectNothingCounted()
}

// Proxies write ports into X-Forwarded-For, and words. Nobody becomes the proxy by that.
// TestClientAddressBehindProxies has more of what they write.
func TestClientThatCannotBeUnderstood(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{TrustedProxies: loopback}, answersOK(t))
	p.setRoutes(
		route.Route{Path: "/allow", Service: p.service, Actions: &route.Actions{Access: access("127.0.0.0/8", "")}},
		route.Route{Path: "/deny", Service: p.service, Actions: &route.Actions{Access: access("", "9.9.9.0/24")}},
		route.Route{Path: "/when", Service: p.service, Conditions: route.Conditions{Clients: loopback}},
		route.Route{Path: "/not", Service: p.service, Conditions: route.Conditions{Not: &route.Conditions{Any: []route.Conditions{{Clients: loopback}}}}},
		route.Route{Path: "/not2", Service: p.service, Conditions: route.Conditions{Not: &route.Conditions{Clients: loopback}}},
	)
	for _, test := range []struct {
		forwarded              string
		allow, deny, when, not int
	}{
		{"127.0.0.9", 200, 200, 200, 404},
		{"9.9.9.9", 403, 403, 404, 200},
		{"9.9.9.9:1234", 403, 403, 404, 200},
		{"[2001:db8::1]:80", 403, 200, 404, 200},
		{"unknown", 403, 403, 404, 404},
		{"9.9.9.9, unknown", 403, 403, 404, 404},
	} {
		for path, want := range map[string]int{"/allow": test.allow, "/deny": test.deny, "/when": test.when, "/not": test.not, "/not2": test.not} {
			p.expect("GET "+path+" HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: "+test.forwarded+"\r\nConnection: close\r\n\r\n", fmt.Sprint(want))
		}
	}
}

// Unknown clients have one rate limit together, and share it with no address.
func TestNetworksOfClients(t *testing.T) {
	for _, test := range []struct {
		a, b string // "": unknown
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true}, {"192.0.2.1", "192.0.2.2", false}, {"2001:db8::1", "2001:db8::2", true}, {"2001:db8::1", "2001:db8:0:1::1", false},
		{"", "", true}, {"", "::1", false}, {"", "0.0.0.0", false}, {"", "2001:db8::1", false},
	} {
		of := func(text string) string {
			address, _ := netip.ParseAddr(text)
			return string(appendClientNetwork(nil, address))
		}
		verify.Equal(t, of(test.a) == of(test.b), test.same, "%q and %q", test.a, test.b)
	}
}

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
	origin := startOrigin(t, greeting)
	p := startProxy(t, Options{}, origin.address())
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
	for protocol, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		lists.Store(nil)
		transport := &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: http2}
		client := &http.Client{Transport: transport, Timeout: patience}
		ask := func() (*http.Response, error) {
			answer, err := client.Get("https://" + web + "/")
			if err == nil {
				io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
			}
			return answer, err
		}
		before := origin.got()
		first := verify.Result(ask()).Must(t)
		verify.That(t, first.Proto == protocol && first.StatusCode != 403, "%s: got %s %s", protocol, first.Proto, first.Status)
		eventually(t, "the peer has the first request", func() bool { return origin.got() != before })
		lists.Store(contents.Revocations)
		before = origin.got()
		second := verify.Result(ask()).Must(t)
		verify.That(t, second.StatusCode == 403 && second.Header.Get("X-Sluice-Reason") == "certificate_revoked", "%s: got %s", protocol, second.Status)
		verify.Equal(t, origin.got(), before, "%s: what the peer got", protocol)
		transport.CloseIdleConnections()
		_, err := ask()
		verify.That(t, err != nil, "%s: a new connection", protocol)
	}
}
