package proxy

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// What holds for peers over TCP holds over TLS. Left out are the tests of what is
// below: sockets, memory, resets.
func TestPeersOverTLS(t *testing.T) {
	t.Parallel()
	runAll(t,
		TestStickyCookie, TestUpstreamConnectionsAreReused, TestStaleConnection,
		TestRetryAfterConnectFailure, TestPerTryTimeout, TestResponseHeaderTimeoutBoundsAllTries,
		TestKeptBodyIsSentAgain, TestRequestHeadAsSent, TestResponseAsSent, TestStreamsAtOnce,
		TestSurplusBytesReachNobody,
		TestHeadWaitsForItsBody, TestKeptBodyGoesOnBehindEarlyAnswer,
		TestClientThatDoesNotRead, TestClientThatGoesAwayWaiting, TestClientThatWaits,
		TestSlowBodyPutsDeadlineOff, TestIdleConnectionsTimeOut,
		TestShutdownFinishesRequests, TestPeerThatBreaksUsedConnections, TestUsedConnectionIsLostByThePeer,
		TestTunnel, TestTunnelIdleTimeout, TestTunnelOfStalledReader,
		TestConnectionGoesOnBehindLostUpload, TestAnswerReachesClientThatSendsOn, TestExpectContinue, TestBodyLimitOfARoute,
		TestStream, TestStreamToAnotherPeer, TestStreamOfManyBytes, TestStreamHalfClosesAfterAPause, TestStreamsOfADrainingPeer,
		TestShutdownCutsStreams, TestDrainResetsStreams, TestStreamEndWithTheLastBytes, TestStreamBytesAreCountedMeanwhile, TestProxyHeaderToPeers,
	)
}

// startSecure starts a peer that answers one request on each connection, and returns its address.
func startSecure(t *testing.T, config *tls.Config) (address string) {
	t.Helper()
	return serveMember(t, config, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "ok")
	})
}

// useTLS makes p use o for its peers.
func (p *testProxy) useTLS(o certificates.ClientOptions) *certificates.Client {
	p.t.Helper()
	secure := verify.Result(certificates.NewClient(o)).Must(p.t)
	options := someTransport
	options.TLS = func(bool) certificates.Security { return secure }
	p.reconfigure(balancer.Options{NewTransport: p.NewTransport(options)})
	return secure
}

// Peers are verified by CA and name, which may be configured. A failure is a connect
// failure with its own reason. Sessions are resumed until the certificates change.
func TestPeerVerification(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good, other := testcert.Write(t, dir, "peer.example"), testcert.Write(t, dir, "other.example")
	pair := verify.Result(tls.LoadX509KeyPair(good.Cert, good.Key)).Must(t)
	for _, test := range []struct {
		name    string
		options certificates.ClientOptions
		want    string
	}{
		{"the right name", certificates.ClientOptions{ClientTLS: certificates.ClientTLS{CA: good.Cert, ServerName: "peer.example"}}, "200 OK"},
		{"the address as the name", certificates.ClientOptions{ClientTLS: certificates.ClientTLS{CA: good.Cert}}, "upstream_tls_failed"},
		{"another name", certificates.ClientOptions{ClientTLS: certificates.ClientTLS{CA: good.Cert, ServerName: "a.example"}}, "upstream_tls_failed"},
		{"another CA", certificates.ClientOptions{ClientTLS: certificates.ClientTLS{CA: other.Cert, ServerName: "peer.example"}}, "upstream_tls_failed"},
		{"no verification", certificates.ClientOptions{ClientTLS: certificates.ClientTLS{SkipVerify: true}}, "200 OK"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var full, resumed atomic.Int64
			p := startProxy(t, Options{})
			p.useTLS(test.options)
			p.setPeers(startSecure(t, &tls.Config{Certificates: []tls.Certificate{pair}, VerifyConnection: func(s tls.ConnectionState) error {
				if s.DidResume {
					resumed.Add(1)
				} else {
					full.Add(1)
				}
				return nil
			}}))
			for range 3 {
				verify.Contains(t, p.raw(closingRequest), test.want, "the answer")
			}
			if test.want == "200 OK" {
				verify.That(t, full.Load() == 1 && resumed.Load() == 2, "%d full handshakes and %d resumed ones, want 1 and 2", full.Load(), resumed.Load())
			} else if n := p.pool.Snapshot().All[0].Outcomes()[balancer.OutcomeConnectFailure]; n == 0 {
				t.Error("no connect failure was counted")
			}
		})
	}
}

// A changed client certificate is shown on the next connection.
func TestClientCertificateForPeersChanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := testcert.Write(t, dir, "peer.example")
	client := testcert.Write(t, dir, "client")
	pair := verify.Result(tls.LoadX509KeyPair(server.Cert, server.Key)).Must(t)
	var shown atomic.Pointer[x509.Certificate]
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}
	config.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
		c, err := x509.ParseCertificate(raw[0])
		shown.Store(c)
		return err
	}
	p := startProxy(t, Options{})
	secure := p.useTLS(certificates.ClientOptions{ClientTLS: certificates.ClientTLS{CA: server.Cert, Cert: client.Cert, Key: client.Key, ServerName: "peer.example"}})
	p.setPeers(startSecure(t, config))
	var seen []*x509.Certificate
	for range 2 {
		p.expect(closingRequest, "200")
		seen = append(seen, shown.Load())
		testcert.Write(t, dir, "client")
		secure.Read()
	}
	verify.That(t, !seen[0].Equal(seen[1]), "the certificate before was shown again")
}

// A peer can tell a connection that sluice closes between requests from one that broke,
// and from a request that sluice cuts.
func TestPeersOverTLSGetCloseNotify(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, answer string
		want         bool
	}{
		{"idle", okResponse, true},
		{"not persistent", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", true},
		{"malformed", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", false},
	} {
		notified := make(chan bool, 1)
		p := startProxy(t, Options{}, startOrigin(t, afterRequest(func(c *originConn) bool {
			c.write(test.answer)
			rest, _ := io.ReadAll(c.Conn.(*tls.Conn).NetConn())
			notified <- len(rest) > 0
			return false
		})).address())
		p.raw(closingRequest)
		p.setPeers() // closes idle connections
		verify.Equal(t, <-notified, test.want, "%s: the peer got close_notify", test.name)
	}
}

// A response without a length is complete only after a close_notify (RFC 9112, section 9.8):
// without it, the connection may have been cut.
func TestPeersOverTLSCutAnswer(t *testing.T) {
	t.Parallel()
	raw := func(c *originConn) net.Conn { return c.Conn.(*tls.Conn).NetConn() }
	type test struct {
		end      func(c *originConn)
		complete bool
	}
	eachCase(t, map[string]test{
		"close_notify":            {func(c *originConn) { c.Conn.(*tls.Conn).CloseWrite() }, true},
		"end between two records": {func(c *originConn) { raw(c).Close() }, false},
		"end in a record": {func(c *originConn) {
			raw(c).Write([]byte{23, 3, 3, 0, 50, 1, 2, 3})
			raw(c).Close()
		}, false},
		"end in the header of a record": {func(c *originConn) {
			raw(c).Write([]byte{23, 3})
			raw(c).Close()
		}, false},
	}, func(t *testing.T, test test) {
		begun := make(chan struct{}, 1)
		origin := startOrigin(t, afterRequest(func(c *originConn) bool {
			io.WriteString(c.Conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart")
			<-begun // the client has the start, so that nothing is sent again
			test.end(c)
			return false
		}))
		p := startProxy(t, Options{}, origin.address())
		for _, version := range []string{"1.0", "1.1"} {
			conn := p.send("GET / HTTP/" + version + "\r\nHost: a\r\n\r\n")
			reader := bufio.NewReader(conn)
			r := verify.Result(http.ReadResponse(reader, nil)).Must(t)
			b := make([]byte, len("part"))
			_, err := io.ReadFull(r.Body, b)
			verify.Require(t, err == nil && string(b) == "part", "HTTP/%s: got %q, %v", version, b, err)
			begun <- struct{}{}
			rest, err := io.ReadAll(r.Body)
			verify.That(t, len(rest) == 0 && (err == nil) == test.complete, "HTTP/%s: the response ended with %q, %v", version, rest, err)
		}
		c := p.dialFrames()
		c.request(1, http2Get, true)
		begun <- struct{}{}
		r := c.response(1)
		verify.That(t, r.ended == test.complete && (r.body == "part" || !test.complete), "HTTP/2: got %+v", r)
		eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 })
	})
}
