package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// What holds for HTTP/1.1 over TCP holds over TLS. Left out are the tests of what
// is below: sockets, memory, handing over.
func TestOverTLS(t *testing.T) {
	t.Parallel()
	runAll(t,
		TestStickyCookie, TestEditsOfInterimResponsesAndCookies,
		TestUpstreamConnectionsAreReused, TestStaleConnection,
		TestRetryAfterConnectFailure, TestPerTryTimeout, TestResponseHeaderTimeoutBoundsAllTries,
		TestKeptBodyIsSentAgain, TestWhatPeersDoIsCounted,
		TestHalfClosedTunnelGoesOn, TestRequestHeadAsSent, TestResponseAsSent,
		TestStreamsAtOnce,
		TestSurplusBytesReachNobody, TestPeerThatDiesWhileItAnswers,
		TestEarlyAnswerToKeptBody, TestKeptBodyGoesOnBehindEarlyAnswer,
		TestSlowClients, TestTricklingHead, TestClientThatDoesNotRead,
		TestDrainWithOpenStream, TestClientThatGoesAwayWaiting, TestClientThatWaits,
		TestLimitsAreAnsweredAtOnce,
		TestAnswerReachesClientThatSendsOn, TestWhatIsNotForwarded,
		TestSlowBodyPutsDeadlineOff, TestIdleConnectionsTimeOut,
		TestShutdownFinishesRequests, TestWhatIsLeftIsCut, TestShutdownOfIdleConnections,
		TestPeerThatBreaksUsedConnections, TestUsedConnectionIsLostByThePeer,
		TestTunnel, TestTunnelIdleTimeout, TestTunnelOfStalledReader,
		TestUpgradeToOneOfSeveral, TestConnectionGoesOnBehindLostUpload,
		TestBodyLimitOfARoute,
	)
}

// runAll runs tests as subtests with their names.
func runAll(t *testing.T, tests ...func(*testing.T)) {
	for _, test := range tests {
		name := runtime.FuncForPC(reflect.ValueOf(test).Pointer()).Name()
		t.Run(name[strings.LastIndexByte(name, '.')+1:], test)
	}
}

// recorder is a client's connection that keeps what comes from the server, and
// sends at most so many bytes at a time.
type recorder struct {
	net.Conn
	got  bytes.Buffer
	most int
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.got.Write(b[:n])
	return n, err
}

func (r *recorder) Write(b []byte) (int, error) {
	for i := 0; i < len(b); i += r.most {
		if n, err := r.Conn.Write(b[i:min(i+r.most, len(b))]); err != nil {
			return i + n, err
		}
	}
	return len(b), nil
}

// dialRecorded connects to p by TLS of that version.
func (p *testProxy) dialRecorded(version uint16, most int) (*tls.Conn, *recorder) {
	p.t.Helper()
	r := &recorder{Conn: p.stream(), most: most}
	return tls.Client(r, &tls.Config{InsecureSkipVerify: true, MaxVersion: version}), r
}

// Records may come in pieces, and a piece may have several.
func TestOverTLSRecordsInPieces(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, returning).address())
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, size := range []int{10, 40_000} {
			for _, most := range []int{1, 700, 100_000} {
				conn, _ := p.dialRecorded(version, most)
				body := strings.Repeat("0123456789", size/10)
				reader := bufio.NewReader(conn)
				for range 2 {
					fmt.Fprintf(conn, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, body)
					status, got := readResponseFrom(t, reader, "PUT")
					verify.That(t, status == 200 && got == body, "%s, %d bytes, %d at a time: got %d and %d bytes", tls.VersionName(version), size, most, status, len(got))
				}
				conn.Close()
			}
		}
	}
}

// The end of a response is told by close_notify, and a response that was cut has
// none: else its client might take it for whole.
func TestOverTLSEnd(t *testing.T) {
	t.Parallel()
	closeNotify := []byte{23, 3, 3, 0, 19} // the head of the record that has it, in TLS 1.3
	for _, test := range []struct {
		name, response string
		want           bool
	}{
		{"whole", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole", true},
		{"cut", "HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + strings.Repeat("x", 40000), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			origin := startOrigin(t, func(c *originConn) bool {
				c.request()
				io.WriteString(c.Conn, test.response)
				return false
			})
			p := startProxy(t, Options{}, origin.address())
			conn, r := p.dialRecorded(tls.VersionTLS13, 1000)
			io.WriteString(conn, closingRequest)
			io.Copy(io.Discard, conn)
			last := r.got.Bytes()
			last = last[max(0, len(last)-len(closeNotify)-19):]
			verify.Equal(t, bytes.HasPrefix(last, closeNotify), test.want, "close_notify")
		})
	}
}

// recorded is a connection that only keeps what is sent.
type recorded struct {
	net.Conn
	sent bytes.Buffer
}

func (r *recorded) Write(b []byte) (int, error) { return r.sent.Write(b) }
func (r *recorded) Read([]byte) (int, error)    { return 0, io.EOF }
func (r *recorded) Close() error                { return nil }

func (r *recorded) SetWriteDeadline(time.Time) error { return nil }

func TestOverTLSHandshakeTimesOut(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Timeouts: Timeouts{Head: 100 * time.Millisecond}})
	for name, hello := range map[string]string{"a part of a hello": "\x16\x03\x01\x02\x00", "HTTP": getRequest} {
		conn := p.stream()
		io.WriteString(conn, hello)
		expectCut(t, conn, name)
	}
	eventually(t, "no connection", func() bool { return p.Connections() == 0 })
}

// heldBack keeps what is written after the first message until released.
type heldBack struct {
	net.Conn
	begun, released bool
	held            []byte
}

func (h *heldBack) Write(b []byte) (int, error) {
	h.held = append(h.held, b...)
	if h.begun && !h.released {
		return len(b), nil
	}
	h.begun = true
	all := h.held
	h.held = nil
	if _, err := h.Conn.Write(all); err != nil {
		return 0, err
	}
	return len(b), nil
}

// A request that came with the end of the handshake is served, even if the time after which
// a connection counts as idle passes before anything is read.
func TestOverTLSRequestThatCameWithTheHandshake(t *testing.T) {
	t.Parallel()
	const long = 10000 * time.Hour
	p := startProxy(t, Options{Timeouts: Timeouts{Head: long, Body: long, Write: long, Idle: long}})
	stop := make(chan struct{})
	var sweeping sync.WaitGroup
	defer sweeping.Wait()
	defer close(stop)
	sweeping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				p.sweeper.Advance(idleSetDelay)
				p.sweeper.Sweep(0)
			}
		}
	})
	for range 100 {
		conn := p.stream()
		wire := &heldBack{Conn: conn}
		client := tls.Client(wire, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		verify.NoError(t, client.Handshake())
		wire.released = true
		io.WriteString(client, "GET / HTTP/1.1\r\n\r\n") // no Host
		expectResponse(t, client, 400)
		conn.Close()
	}
}

// What holds for peers over TCP holds over TLS. Left out are the tests of what is
// below: sockets, memory, resets.
func TestPeersOverTLS(t *testing.T) {
	t.Parallel()
	runAll(t,
		TestStickyCookie, TestUpstreamConnectionsAreReused, TestStaleConnection,
		TestRetryAfterConnectFailure, TestPerTryTimeout, TestResponseHeaderTimeoutBoundsAllTries,
		TestKeptBodyIsSentAgain, TestRequestHeadAsSent, TestResponseAsSent, TestStreamsAtOnce,
		TestSurplusBytesReachNobody,
		TestKeptBodyGoesOnBehindEarlyAnswer,
		TestClientThatDoesNotRead, TestClientThatGoesAwayWaiting, TestClientThatWaits,
		TestSlowBodyPutsDeadlineOff, TestIdleConnectionsTimeOut,
		TestShutdownFinishesRequests, TestPeerThatBreaksUsedConnections, TestUsedConnectionIsLostByThePeer,
		TestTunnel, TestTunnelIdleTimeout, TestTunnelOfStalledReader,
		TestConnectionGoesOnBehindLostUpload, TestAnswerReachesClientThatSendsOn, TestBodyLimitOfARoute,
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
