package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/socket"
	"sluice/proxy/transfer"
	"sluice/test/verify"
)

// startHTTP2 returns a transport for a peer that serves each connection with serve, by HTTP/2.
func startHTTP2(t *testing.T, serve func(net.Conn)) *http2Transport {
	t.Helper()
	return startPeer(t, Options{}, serve).http2
}

// stream returns a stream to the peer for a client.
func (t *http2Transport) stream(test *testing.T, client *Client) *http2Stream {
	test.Helper()
	requirements := by(true)
	requirements.Client = client
	u, _, err := t.Connect(test.Context(), requirements, nil)
	verify.NoError(test, err)
	u.WaitAtMost(patience)
	return u.(*http2Stream)
}

// Requests wait for a connection that another one opens only if it will have a stream for them,
// too.
func TestConnectionsOfOneRequest(t *testing.T) {
	t.Parallel()
	const requests = 3
	var opened atomic.Int32
	all := make(chan struct{})
	transport := startPeer(t, Options{Keepalive: Keepalive{ConnectionLimits: socket.ConnectionLimits{MaxRequests: 1}}}, func(conn net.Conn) {
		if opened.Add(1) == requests {
			close(all)
		}
		select {
		case <-all:
		case <-t.Context().Done(): // in vain
		}
		xhttp2.NewFramer(conn, nil).WriteSettings()
		io.Copy(io.Discard, conn)
	}).http2
	var asking sync.WaitGroup
	for range requests {
		asking.Go(func() {
			u, _, err := transport.Connect(t.Context(), by(true), nil)
			if verify.That(t, err == nil, "got %v", err); err == nil {
				u.Finish(false)
			}
		})
	}
	asking.Wait()
}

const postHead = "POST / HTTP/1.1\r\nHost: a\r\n\r\n"

// startFull returns a transport with one connection, full of the body of its only stream, because
// the peer does not read. The peer does what is sent to acts.
func startFull(t *testing.T) (transport *http2Transport, c *http2Conn, acts chan<- func(*xhttp2.Framer, *net.TCPConn)) {
	t.Helper()
	script := make(chan func(*xhttp2.Framer, *net.TCPConn), 2)
	transport = startHTTP2(t, func(conn net.Conn) {
		f := xhttp2.NewFramer(conn, nil)
		f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1})
		f.WriteWindowUpdate(0, 1<<29)
		for act := range script {
			act(f, conn.(*net.TCPConn))
		}
	})
	u := transport.stream(t, &Client{Presence: there{}})
	c = u.conn
	if _, _, err := u.SendHead(&socket.Buffers{Out: []byte(postHead)}, true); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- u.WriteBody(nil, transfer.Piece{Text: make([]byte, 64<<20)}) }()
	t.Cleanup(func() {
		script <- reset
		close(script)
		verify.That(t, <-sent != nil, "all of the body was taken")
		u.Finish(false)
	})
	c.eventually(t, "the connection is full", func() bool {
		return c.protocol.Flushing && c.entry.WriteDeadline.Load() != 0 && c.hasQueuedLocked()
	})
	return transport, c, script
}

// reset ends a connection, with what is in it.
func reset(_ *xhttp2.Framer, conn *net.TCPConn) {
	conn.SetLinger(0)
	conn.Close()
}

// hasQueuedLocked reports whether a stream waits for room, or for the window of the connection.
func (c *http2Conn) hasQueuedLocked() bool {
	for _, u := range c.protocol.Streams {
		if u.Sender.IsQueued() {
			return true
		}
	}
	return false
}

// Close ends the goroutines of the connections and waits for them, also for one that sends
// to a peer that does not read.
func TestHTTP2CloseWaits(t *testing.T) {
	t.Parallel()
	transport, c, _ := startFull(t)
	// Another sending goroutine takes its time.
	proceed, ended := make(chan struct{}), new(atomic.Bool)
	c.protocol.Work.Go(func() { <-proceed; ended.Store(true) })
	waited := make(chan bool, 1)
	go func() { transport.Close(); waited <- ended.Load() }()
	eventually(t, "the connection is closed", func() bool { return len(transport.all()) == 0 })
	close(proceed)
	verify.That(t, <-waited, "a goroutine runs after Close")
	c.protocol.Mu.Lock()
	defer c.protocol.Mu.Unlock()
	verify.That(t, !c.protocol.Flushing && c.protocol.Err != nil, "after Close, flushing is %v, the error %v", c.protocol.Flushing, c.protocol.Err)
}

// A request that waited behind others when the connection broke may be sent again, also if its
// method is not idempotent.
func TestUnsentStreamIsUnprocessed(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(*xhttp2.Framer, *net.TCPConn){
		"reset": reset,
		"by a fault of the peer": func(f *xhttp2.Framer, _ *net.TCPConn) {
			f.WriteRawFrame(xhttp2.FramePushPromise, 0, 1, make([]byte, 4))
		},
	} {
		t.Run(name, func(t *testing.T) {
			transport, c, acts := startFull(t)
			u := transport.stream(t, &Client{Presence: there{}})
			defer u.Finish(false)
			type result struct {
				sent bool
				err  error
			}
			results := make(chan result, 1)
			go func() {
				sent, err := u.Send(&socket.Buffers{Out: []byte(postHead)}, []byte("ok"), nil, Until{})
				results <- result{sent, err}
			}()
			c.eventually(t, "the request waits", func() bool { return len(c.protocol.Streams) == 2 })
			acts <- broken
			verify.Equal(t, <-results, result{false, ErrUnprocessed}, "what Send returns")
			maybe, likely := u.ClosedIdle(ErrUnprocessed)
			verify.That(t, maybe && likely, "the request is not sent again")
		})
	}
}

// A client has its answer before the exchange gives the stream back. A request that comes meanwhile
// is the only one on a connection, and may be sent again if the peer closes it.
func TestRequestBeforeAStreamIsGivenBack(t *testing.T) {
	t.Parallel()
	transport := startHTTP2(t, func(conn net.Conn) {
		defer conn.Close()
		f := xhttp2.NewFramer(conn, conn)
		f.WriteSettings()
		io.ReadFull(conn, make([]byte, len(xhttp2.ClientPreface)))
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := frame.(*xhttp2.HeadersFrame); ok {
				if h.StreamID > 1 {
					return
				}
				const status200 = "\x88" // RFC 7541 appendix A
				f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(status200), EndHeaders: true, EndStream: true})
			}
		}
	})
	send := func(u *http2Stream) error {
		_, err := u.Send(&socket.Buffers{Out: []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")}, nil, nil, Until{})
		return err
	}
	first := transport.stream(t, &Client{Presence: there{}})
	verify.NoError(t, send(first))
	c := first.conn
	c.eventually(t, "the first answer", func() bool { return first.stream.Received })
	second := transport.stream(t, &Client{Presence: there{}})
	verify.Require(t, second.conn == c, "the second request is on another connection")
	_ = send(second) // the peer may have closed the connection already
	c.eventually(t, "the end of the connection", func() bool { return c.protocol.Err != nil })
	maybe, _ := second.ClosedIdle(socket.ErrClosedEarly)
	verify.That(t, maybe, "the request is not sent again")
	second.Finish(false)
	first.Finish(false)
}

// After a stream has failed, no more of its body is sent: the peer may end the
// connection for that.
func TestNoDataAfterReset(t *testing.T) {
	t.Parallel()
	transport := startHTTP2(t, settling(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0}))
	u := transport.stream(t, &Client{Presence: there{}})
	defer u.Finish(false)
	failed := make(chan error, 1)
	go func() {
		_, err := u.Send(&socket.Buffers{Out: []byte(postHead)}, []byte("ok"), nil, Until{})
		failed <- err
	}()
	c := u.conn
	c.eventually(t, "the body waits for the window", func() bool {
		if !u.stream.Sender.IsSending() {
			return false
		}
		before := len(c.protocol.Output.Frames)
		u.stream.StopLocked(socket.ErrClosedEarly)
		c.protocol.Output.Enlarge(&u.stream.Sender, 100)
		c.protocol.Output.Fill()
		verify.Equal(t, len(c.protocol.Output.Frames), before, "bytes to send, after the stream has failed")
		return true
	})
	verify.Equal(t, <-failed, socket.ErrClosedEarly, "what Send returns")
}

// A connection whose mutex is held, by whatever fault, delays no timeout of another one.
func TestStuckTransportDelaysNoTimeout(t *testing.T) {
	t.Parallel()
	transport := startHTTP2(t, settled)
	asked := make(chan struct{}, 1000)
	u := transport.stream(t, &Client{Presence: presence(func() { asked <- struct{}{} })})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		u.Send(&socket.Buffers{Out: []byte(postHead)}, nil, nil, Until{})
		u.Finish(false)
	}()
	defer func() { transport.Close(); <-ended }()
	<-asked // it waits, and the sweeper knows it
	for _, mu := range []sync.Locker{&transport.mu, &u.conn.protocol.Mu} {
		mu.Lock()
		defer mu.Unlock()
	}
	for range 3 {
		<-asked
	}
	ours, _ := connected(t)
	var other socket.SweepEntry
	transport.sweeper.Add(&other, ours, 0)
	defer other.Remove()
	other.ArmRead(transport.sweeper.Now() + 1)
	_, err := ours.Read(make([]byte, 1))
	verify.That(t, errors.Is(err, os.ErrDeadlineExceeded), "got %v", err)
}

// A probe is late where the sweeper has to wait after it has asked: the request that it was for has
// ended, and its stream serves another one.
func TestLateProbeIsNotForTheNextRequest(t *testing.T) {
	t.Parallel()
	sweeper := socket.NewSweeper()
	ours, _ := connected(t)
	var u socket.SweepEntry
	sweeper.Add(&u, ours, 0)
	defer u.Remove()
	client := new(Client)
	client.Presence = leaving{client}
	client.Gone.Store(true) // the client has reset the stream
	var p probe
	u.Arm(sweeper, time.Hour)
	next := p.sweep(&u, client, sweeper.Now())
	p.sweep(&u, client, next)
	verify.That(t, u.Deadline.Load() == 1, "the wait for the peer goes on")
	verify.That(t, !client.Gone.Load(), "the next request of the stream counts as left")
}

// leaving is a client whose stream serves another request as soon as it was asked.
type leaving struct{ client *Client }

func (leaving) Parties() (client, peer any) { return nil, nil }

func (l leaving) IsGone() bool { return l.client.Gone.Swap(false) }

// A presence is a client that stays, and is called when it is asked.
type presence func()

func (presence) Parties() (client, peer any) { return nil, nil }

func (f presence) IsGone() bool { f(); return false }

// A request that leaves as the connection which it has opened becomes ready does not take it from
// the others that use it by then.
func TestDialIsLeftAsOthersUseIt(t *testing.T) {
	t.Parallel()
	transport := startHTTP2(t, settled)
	for range 20 { // both ends of the wait have come, and either is taken
		ctx, cancel := context.WithCancel(t.Context())
		var used *http2Conn
		before := len(transport.all())
		deadline := transport.sweeper.Now() + int64(patience)
		_, err := transport.dial(lookedAt{ctx, func() {
			if all := transport.all(); len(all) > before && used == nil {
				used = all[before]
				eventually(t, "a stream for another request", func() bool { return used.reserve(agreement{}, false, false) })
				cancel()
			}
		}}, deadline, agreement{}, 0)
		verify.That(t, err == nil || err == context.Canceled, "got %v", err)
		verify.Require(t, used != nil, "nobody has waited for the connection")
		verify.NoError(t, used.wire.Raw.Control(func(uintptr) {})) // it is open
	}
}

// lookedAt is a context that calls look before it says when it ends.
type lookedAt struct {
	context.Context
	look func()
}

func (c lookedAt) Done() <-chan struct{} {
	c.look()
	return c.Context.Done()
}

// Of a dial that fails, one request reports the failure, and the ones that have waited for it know
// that.
func TestFailedDialIsReportedOnce(t *testing.T) {
	t.Parallel()
	const requests = 5
	fail := make(chan struct{})
	transport := startHTTP2(t, func(net.Conn) { <-fail })
	errs := transport.connectAll(t, requests)
	transport.awaitDials(t, 1, requests-1)
	close(fail)
	reported := 0
	for range requests {
		err := <-errs
		var shared SharedError
		verify.That(t, err != nil, "a connection was opened")
		if !errors.As(err, &shared) {
			reported++
		}
	}
	verify.Equal(t, reported, 1, "requests that report the failure")
}

// connectAll asks for n streams at the same time, and returns the errors.
func (t *http2Transport) connectAll(test *testing.T, n int) <-chan error {
	errs := make(chan error, n)
	var asking sync.WaitGroup
	test.Cleanup(asking.Wait)
	for range n {
		asking.Go(func() {
			u, _, err := t.Connect(test.Context(), by(true), nil)
			if errs <- err; err == nil {
				<-test.Context().Done()
				u.Finish(false)
			}
		})
	}
	return errs
}

// awaitDials waits until so many dials are in progress, for which so many requests wait.
func (t *http2Transport) awaitDials(test *testing.T, dials, waiting int) {
	test.Helper()
	eventually(test, fmt.Sprint(dials, " dials, for which ", waiting, " wait"), func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.dials == dials && t.waiting == waiting
	})
}

// settling is a peer that sends these settings, and takes what comes.
func settling(settings ...xhttp2.Setting) func(net.Conn) {
	return func(conn net.Conn) {
		xhttp2.NewFramer(conn, nil).WriteSettings(settings...)
		hanging(conn)
	}
}

// settled is a peer that has streams.
var settled = settling()

// A dial that fails ends no wait while another one is in progress.
func TestFailedDialBesideAnother(t *testing.T) {
	t.Parallel()
	acts := make(chan func(net.Conn), 3)
	transport := startPeer(t, Options{Keepalive: Keepalive{ConnectionLimits: socket.ConnectionLimits{MaxRequests: 2}}}, func(conn net.Conn) {
		select {
		case act := <-acts:
			act(conn)
		case <-t.Context().Done():
		}
	}).http2
	errs := transport.connectAll(t, 4)
	transport.awaitDials(t, 2, 2)
	acts <- func(net.Conn) {} // it closes the connection
	var shared SharedError
	err := <-errs
	verify.That(t, err != nil && !errors.As(err, &shared), "got %v of the request whose dial has failed", err)
	transport.awaitDials(t, 1, 2)
	acts <- settled // for one of them, and the other one opens another
	acts <- settled
	for range 3 {
		verify.NoError(t, <-errs)
	}
}

// Who waits for a dial that fails takes a stream that is free by then.
func TestFailedDialBesideAFreeStream(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	fail := make(chan struct{})
	transport := startHTTP2(t, func(conn net.Conn) {
		if opened.Add(1) > 1 {
			<-fail
			return
		}
		settling(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 2})(conn)
	})
	client := &Client{Presence: there{}}
	defer transport.stream(t, client).Finish(false)
	other := transport.stream(t, client)
	errs := transport.connectAll(t, 2)
	transport.awaitDials(t, 1, 1)
	other.Finish(false)
	close(fail)
	first, second := <-errs, <-errs
	verify.That(t, (first == nil) != (second == nil), "got %v, %v, want one error", first, second)
}

// Who waits for a connection gets the error of the dial that ended first, not the one of another
// that has failed since: the connection is there.
func TestWaitEndsWithTheFirstDial(t *testing.T) {
	t.Parallel()
	transport := startHTTP2(t, hanging)
	ended := make(chan error, 1)
	go func() {
		transport.mu.Lock()
		defer transport.mu.Unlock()
		_, err := transport.awaitDialLocked(t.Context(), transport.sweeper.Now()+int64(patience), agreement{}, false)
		ended <- err
	}()
	eventually(t, "it waits", func() bool {
		transport.mu.Lock()
		defer transport.mu.Unlock()
		if transport.waiting == 0 {
			return false
		}
		transport.endDialLocked(nil)
		transport.endDialLocked(errNoStreams)
		return true
	})
	verify.NoError(t, <-ended)
}

// The log says why a peer that accepts no streams gets no request.
func TestNoStreamsAreLogged(t *testing.T) {
	t.Parallel()
	transport := startHTTP2(t, settling(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 0}))
	_, _, err := transport.Connect(t.Context(), by(true), nil)
	verify.That(t, errors.Is(err, errNoStreams), "got %v", err)
	verify.Equal(t, transport.tls.logged, errNoStreams.Error(), "the error in the log")
}

// A request with credentials for its connection gets none of others, also if its peer accepts no
// other one.
func TestPrivateRequestSharesNoConnection(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	transport := startHTTP2(t, func(conn net.Conn) {
		if opened.Add(1) == 1 {
			settled(conn)
		}
	})
	client := &Client{Presence: there{}}
	defer transport.stream(t, client).Finish(false)
	for _, body := range []bool{false, true} {
		private := by(true)
		private.Client, private.Body, private.Private = client, body, true
		_, _, err := transport.Connect(t.Context(), private, nil)
		verify.That(t, err != nil, "body: %t: it got the connection of another request", body)
	}
	verify.Equal(t, opened.Load(), 3, "connections")
}
