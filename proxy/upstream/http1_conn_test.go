package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

// What ends the wait for a peer may come before the request is sent: then the
// wait does not begin.
func TestSendThatIsWokenBeforeItSends(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	transport := startTransport(t, Options{}, func(conn net.Conn) {
		b := make([]byte, len(request))
		n, _ := io.ReadFull(conn, b)
		got <- string(b[:n])
		hanging(conn)
	})
	u := transport.opened(t)
	defer transport.discard(u)
	u.entry.Arm(transport.sweeper, time.Second)
	transport.Suspect()
	sent, err := u.Send(&socket.Buffers{Out: []byte(request)}, nil, nil, Until{Suspicion: true})
	verify.That(t, sent && err == ErrSuspected, "got %v, %v", sent, err)
	verify.Equal(t, <-got, request, "what the peer got")
}

// A transport that closes while such a request is being sent does not wait for it in vain.
func TestCloseWhileARequestIsWoken(t *testing.T) {
	t.Parallel()
	transport := startTransport(t, Options{}, hanging)
	u := transport.opened(t)
	defer transport.discard(u)
	closed := make(chan struct{})
	u.wire.Raw = hookedConn{u.wire.Raw, sync.OnceFunc(func() {
		go func() { transport.Close(); close(closed) }()
		eventually(t, "the connection is being closed", func() bool { return u.wire.Conn.SetDeadline(time.Time{}) != nil })
	})}
	u.entry.Arm(transport.sweeper, patience)
	transport.Suspect() // before the request is sent
	sent, err := u.Send(&socket.Buffers{Out: []byte(request)}, nil, nil, Until{Suspicion: true})
	verify.That(t, sent && err == ErrSuspected, "got %v, %v", sent, err)
	<-closed
}

// hookedConn calls hook before each call of step.
type hookedConn struct {
	syscall.RawConn
	hook func()
}

func (c hookedConn) Read(f func(fd uintptr) bool) error {
	return c.RawConn.Read(func(fd uintptr) bool {
		c.hook()
		return f(fd)
	})
}

// A connection that is idle holds nothing of the exchange that it served.
func TestIdleConnectionPinsNothing(t *testing.T) {
	t.Parallel()
	transport := startTransport(t, Options{}, answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	if u := transport.exchange(t); u.out.request != nil || u.out.body != nil || u.buffers != nil || u.client.Load() != nil {
		t.Errorf("it holds %d bytes of a request, %d of its body, buffers: %v, a client: %v", cap(u.out.request), cap(u.out.body), u.buffers != nil, u.client.Load() != nil)
	}
}

// The waits for a peer are the client's while there is one, and else the peer's.
func TestWaitsAreOfTheirClient(t *testing.T) {
	t.Parallel()
	transport := startTransport(t, Options{}, answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	client := &Client{Presence: there{}}
	ofClient := func(o interface{ Parties() (client, peer any) }, want any, transport any) bool {
		waits, peer := o.Parties()
		return waits == want && peer == transport
	}
	idle := transport.exchange(t)
	verify.That(t, ofClient(idle, nil, transport), "who waits without a request")
	conn, _, err := transport.Connect(t.Context(), Requirements{Picked: time.Now(), Timeout: patience, Client: client}, nil)
	verify.NoError(t, err)
	verify.That(t, conn == idle && ofClient(idle, "a client", transport), "who waits")
	conn.Finish(false)
	c := &http2Conn{transport: &http2Transport{common: &transport.common}}
	c.protocol.Init(http2.ConnOptions{Sweeper: transport.sweeper})
	u := newHTTP2Stream(c, Requirements{Client: client})
	verify.That(t, ofClient(u, "a client", c.transport), "who waits on a stream")
}

// What a peer says of how long it keeps a connection counts also where its
// response is chunked.
func TestKeepAliveOfChunkedResponse(t *testing.T) {
	t.Parallel()
	transport := startTransport(t, Options{}, answering("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: as long as it takes to be where the fields of the head were before\r\n\r\n"))
	verify.Equal(t, transport.exchange(t).idleTimeout, 2*time.Second, "kept for")
}

// A peer may answer before it is asked, as one at its limit does when it accepts
// a connection. Its answer is not waited for in vain where all of it has arrived
// before send begins, so that nothing is heard of it any more.
func TestAnswerAtAccept(t *testing.T) {
	t.Parallel()
	const busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	answered := make(chan struct{})
	transport := startTransport(t, Options{}, func(conn net.Conn) {
		io.WriteString(conn, busy)
		conn.(*net.TCPConn).CloseWrite()
		close(answered)
		io.Copy(io.Discard, conn)
	})
	u := transport.opened(t)
	defer transport.discard(u)
	<-answered
	eventually(t, "the answer has arrived", func() bool { return !u.quiet() })
	u.wire.Conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	u.wire.Raw.Read(func(uintptr) bool { return false }) // hears of it, and leaves it
	u.wire.Conn.SetReadDeadline(time.Time{})
	u.entry.Arm(transport.sweeper, time.Second)
	b := socket.Buffers{Out: []byte(request)}
	_, err := u.Send(&b, nil, nil, Until{})
	verify.That(t, err == nil && string(b.From[:u.end]) == busy, "got %q, %v", b.From[:u.end], err)
}

// What a peer has sent before it closed the connection is its answer, also if the request cannot be
// sent any more.
func TestAnswerBeforeAWriteThatFails(t *testing.T) {
	t.Parallel()
	const busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
	transport := startTransport(t, Options{}, func(conn net.Conn) { io.WriteString(conn, busy) }) // then it closes
	u := transport.opened(t)
	eventually(t, "the answer has arrived", func() bool { return !u.quiet() })
	eventually(t, "the peer has reset the connection", func() bool {
		_, err := u.wire.Conn.Write([]byte("x"))
		return err != nil
	})
	statuses, _, err := receive(u)
	verify.That(t, err == nil && statuses[0] == 503, "got %v, %v", statuses, err)
	u.Finish(true)
	transport.expect(t, 0, 0, 0) // the request is not whole
}

// A peer that does not take part in the handshake costs a request no more than
// timeouts.connect.
func TestHandshakeWithPeerTimesOut(t *testing.T) {
	t.Parallel()
	secure := verify.Result(certificates.NewClient(certificates.ClientOptions{ClientTLS: certificates.ClientTLS{SkipVerify: true}})).Must(t)
	transport := startTransport(t, Options{TLS: func(bool) certificates.Security { return secure }}, hanging)
	_, _, err := transport.Connect(t.Context(), Requirements{Picked: time.Now(), Timeout: 100 * time.Millisecond, Client: &Client{Presence: there{}}}, nil)
	verify.That(t, err != nil && strings.Contains(err.Error(), "timeout"), "got %v", err)
	transport.expect(t, 0, 0, 0)
}

// A head that came in time is passed on, also if its time ends in the short wait for the body.
func TestTimeEndsBehindTheHead(t *testing.T) {
	t.Parallel()
	transport := startTransport(t, Options{}, answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"))
	u := transport.opened(t)
	defer transport.discard(u)
	u.WaitAtMost(patience)
	b := &socket.Buffers{Out: []byte(request)}
	defer b.GiveBack()
	_, err := u.Send(b, nil, nil, Until{})
	verify.NoError(t, err)
	var head http1.ResponseHead
	text := verify.Result(u.ReadHead(b, &head)).Must(t)
	transport.sweeper.Advance(patience)
	verify.NoError(t, u.StartBody(b, &head, text, false))
}

// Who leaves in a handshake with a peer leaves no line in the log that says that the peer is at
// fault.
func TestLeftTLSHandshakeIsNotLogged(t *testing.T) {
	t.Parallel()
	secure := verify.Result(certificates.NewClient(certificates.ClientOptions{ClientTLS: certificates.ClientTLS{SkipVerify: true}})).Must(t)
	ctx, leave := context.WithCancel(t.Context())
	transport := startTransport(t, Options{}, func(conn net.Conn) {
		conn.Read(make([]byte, 1)) // of the ClientHello
		leave()
		hanging(conn)
	})
	var log bytes.Buffer
	transport.tls.log = zerolog.New(&log)
	_, err := transport.dial(ctx, transport.acquire(time.Now()), time.Now(), patience, 0, agreement{secure: secure}, socket.ALPNHTTP1)
	verify.That(t, errors.Is(err, context.Canceled), "the error is %v", err)
	verify.Equal(t, log.String(), "", "the log")
}
