package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/socket"
	"sluice/route/places"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// certificate is of a listener in tests, whose clients do not check it.
var certificate = sync.OnceValue(func() tls.Certificate {
	pair, err := tls.X509KeyPair(testcert.PEM("localhost"))
	if err != nil {
		panic(err)
	}
	return pair
})

// overTLS reports whether the listeners of a test speak TLS, and its clients:
// those of tests whose name begins so.
func overTLS(t testing.TB) bool { return strings.HasPrefix(t.Name(), "TestOverTLS") }

// serverTLS is the configuration of the test's listeners, or nil.
func serverTLS(t testing.TB) *tls.Config {
	if !overTLS(t) {
		return nil
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"http/1.1"}}
}

// clientSide returns conn as a client of the test uses it.
func clientSide(t testing.TB, conn net.Conn) net.Conn {
	if !overTLS(t) {
		return conn
	}
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
}

// CloseWrite ends what a client or an origin sends.
func closeWrite(t testing.TB, conn net.Conn) {
	t.Helper()
	verify.Succeeds(t, conn.(interface{ CloseWrite() error }).CloseWrite())
}

// What holds for HTTP/1.1 over TCP holds over TLS. Left out are the tests of what
// is below: sockets, memory, handing over.
func TestOverTLS(t *testing.T) {
	t.Parallel()
	for _, test := range []func(*testing.T){
		TestNoRoute, TestAnswerAsJSON, TestMaxForwardsZero, TestStickyCookie, TestStickyCookieAndInterimResponses,
		TestUpstreamConnectionsAreReused, TestStaleConnection, TestRetryWhereSafe,
		TestRetryAfterConnectFailure, TestPerTryTimeout, TestResponseHeaderTimeoutBoundsAllTries,
		TestKeptBodyIsSentAgain, TestWhatPeersDoIsCounted,
		TestHalfClosedTunnelGoesOn, TestRequestHeadAsSent, TestResponseAsSent,
		TestStreamsAtOnce, TestRefusedResponses,
		TestSurplusBytesReachNobody, TestHedge, TestHedgeFirstPeerWins, TestNoHedge,
		TestHedgeForGoneClient, TestPeerThatDiesWhileItAnswers, TestHeadWaitsForItsBody,
		TestEarlyAnswerToKeptBody, TestKeptBodyGoesOnBehindEarlyAnswer,
		TestSlowClients, TestTricklingHead, TestClientThatDoesNotRead, TestClientThatGoesAway,
		TestDrainWithOpenStream, TestIdleConnectionsAreClosed, TestClientThatGoesAwayWaiting, TestClientThatWaits,
		TestLimitsAreAnsweredAtOnce, TestPendingRequestsAreBounded,
		TestAnswerReachesClientThatSendsOn, TestLastAnswerOfDrainingServer, TestWhatIsNotForwarded,
		TestSlowBodyPutsDeadlineOff, TestForwards,
		TestIdleConnectionsTimeOut,
		TestShutdownFinishesRequests, TestShutdownCutsWhatIsLeft, TestShutdownServesIdleConnectionsOnceMore,
		TestPeerThatBreaksUsedConnections, TestUsedConnectionIsLostByThePeer,
		TestRequestLeavesAPeerWhoseChecksFail,
		TestTunnel, TestRefusedUpgrade, TestTunnelIdleTimeout, TestTunnelOfStalledReader, TestTunnelEndsWithServer,
		TestUpgradeToOneOfSeveral, TestConnectionGoesOnBehindReadBody, TestConnectionGoesOnBehindLostUpload,
		TestEarlyAnswerToUpload, TestExpectContinue, TestBodyLimitOfARoute,
	} {
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
func dialRecorded(t *testing.T, p *testProxy, version uint16, most int) (*tls.Conn, *recorder) {
	t.Helper()
	conn := verify.Result(net.Dial("tcp", p.address)).Must(t)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	r := &recorder{Conn: conn, most: most}
	return tls.Client(r, &tls.Config{InsecureSkipVerify: true, MaxVersion: version}), r
}

// Records may come in pieces, and a piece may have several.
func TestOverTLSRecordsInPieces(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		fmt.Fprintf(c.Conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return true
	}))
	p := startProxy(t, Options{}, origin.address())
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, size := range []int{10, 40_000} {
			for _, most := range []int{1, 700, 100_000} {
				conn, _ := dialRecorded(t, p, version, most)
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
			conn, r := dialRecorded(t, p, tls.VersionTLS13, 1000)
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			io.Copy(io.Discard, conn)
			last := r.got.Bytes()
			last = last[max(0, len(last)-len(closeNotify)-19):]
			verify.Equal(t, bytes.HasPrefix(last, closeNotify), test.want, "close_notify")
		})
	}
}

// stallHandshake begins a handshake with p that does not end.
func stallHandshake(t *testing.T, p *testProxy) net.Conn {
	t.Helper()
	conn := verify.Result(net.Dial("tcp", p.address)).Must(t)
	t.Cleanup(func() { conn.Close() })
	hello := new(recorded)
	tls.Client(hello, &tls.Config{InsecureSkipVerify: true}).Handshake() // fails
	_, err := conn.Write(hello.sent.Bytes())
	verify.NoError(t, err)
	return conn
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

// Handshakes that wait for their clients hold back no other one, up to a number.
func TestOverTLSHandshakesInProgress(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	p := startProxy(t, Options{Timeouts: Timeouts{Head: time.Hour}}, origin.address())
	others := socket.MaxHandshakesPerBlock - 2 // not so many that places are scarce
	for range others {
		p.handshakes.Places.Take(places.BlockOf(netip.MustParseAddr("127.0.0.1")), nil)
	}
	for range runtime.GOMAXPROCS(0) - 1 {
		p.handshakes.Turns.Take(places.Many, nil)
	}
	inProgress := func() int { return p.Stats().Handshakes.InProgress - others }
	request := "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	first := stallHandshake(t, p)
	eventually(t, "one handshake", func() bool { return inProgress() == 1 })
	answer := p.raw(request)
	verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 200 "), "beside one: got %q", answer)
	stallHandshake(t, p)
	eventually(t, "two handshakes", func() bool { return inProgress() == 2 })
	got := make(chan string)
	third := p.dial()
	go func() {
		io.WriteString(third, request)
		answer, _ := io.ReadAll(third)
		got <- string(answer)
	}()
	eventually(t, "a third one that waits", func() bool { return p.Stats().Handshakes.Waiting == 1 })
	first.Close()
	answer = <-got
	verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 200 "), "the third: got %q", answer)
	eventually(t, "the end of the first", func() bool {
		h := p.Stats().Handshakes
		return inProgress() == 1 && h.Full == 2 && h.Failed == 1
	})
}

func TestOverTLSHandshakeTimesOut(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Timeouts: Timeouts{Head: 100 * time.Millisecond}})
	for name, hello := range map[string]string{"a part of a hello": "\x16\x03\x01\x02\x00", "HTTP": "GET / HTTP/1.1\r\nHost: a\r\n\r\n"} {
		conn := verify.Result(net.Dial("tcp", p.address)).Must(t)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, hello)
		_, err := io.Copy(io.Discard, conn)
		verify.That(t, !errors.Is(err, os.ErrDeadlineExceeded), "%s: the connection stays open", name)
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
		conn := verify.Result(net.Dial("tcp", p.address)).Must(t)
		conn.SetDeadline(time.Now().Add(patience))
		wire := &heldBack{Conn: conn}
		client := tls.Client(wire, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		verify.NoError(t, client.Handshake())
		wire.released = true
		io.WriteString(client, "GET / HTTP/1.1\r\n\r\n") // no Host
		expectResponse(t, client, 400)
		conn.Close()
	}
}
