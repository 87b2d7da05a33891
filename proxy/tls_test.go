package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/test/verify"
)

// What holds for HTTP/1.1 over TCP holds over TLS. Left out are the tests of what
// is below: sockets, memory, handing over.
func TestOverTLS(t *testing.T) {
	t.Parallel()
	runAll(t,
		TestNoRoute, TestStickyCookie, TestEditsOfInterimResponsesAndCookies,
		TestUpstreamConnectionsAreReused, TestStaleConnection,
		TestRetryAfterConnectFailure, TestPerTryTimeout, TestResponseHeaderTimeoutBoundsAllTries,
		TestKeptBodyIsSentAgain, TestWhatPeersDoIsCounted,
		TestHalfClosedTunnelGoesOn, TestRequestHeadAsSent, TestResponseAsSent,
		TestStreamsAtOnce,
		TestSurplusBytesReachNobody, TestPeerThatDiesWhileItAnswers, TestHeadWaitsForItsBody,
		TestEarlyAnswerToKeptBody, TestKeptBodyGoesOnBehindEarlyAnswer,
		TestSlowClients, TestTricklingHead, TestClientThatDoesNotRead,
		TestDrainWithOpenStream, TestClientThatGoesAwayWaiting, TestClientThatWaits,
		TestLimitsAreAnsweredAtOnce,
		TestAnswerReachesClientThatSendsOn, TestWhatIsNotForwarded,
		TestSlowBodyPutsDeadlineOff, TestIdleConnectionsTimeOut,
		TestShutdownFinishesRequests, TestWhatIsLeftIsCut, TestShutdownOfIdleConnections,
		TestPeerThatBreaksUsedConnections, TestUsedConnectionIsLostByThePeer,
		TestTunnel, TestTunnelIdleTimeout, TestTunnelOfStalledReader,
		TestUpgradeToOneOfSeveral, TestConnectionGoesOnBehindReadBody, TestConnectionGoesOnBehindLostUpload,
		TestExpectContinue, TestBodyLimitOfARoute,
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
