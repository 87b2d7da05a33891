package upstream

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

// A response with a Content-Length waits for its body, as with HTTP/1.1: if the peer fails
// before, the request can still be sent to another one.
func TestHTTP2ResponseWaitsForItsBody(t *testing.T) {
	const length, soon = 4, bodyStartTimeout / 2
	for _, test := range []struct {
		name     string
		happens  func(u *http2Stream)
		bodiless bool
		err      error
		after    time.Duration
	}{
		{"the peer fails", func(u *http2Stream) { u.StopLocked(socket.ErrClosedEarly) }, false, socket.ErrClosedEarly, soon},
		{"the body arrives", func(u *http2Stream) { u.Body.Append(make([]byte, length)) }, false, nil, soon},
		{"the response is too short", func(u *http2Stream) { u.Received = true }, false, nil, soon},
		{"a part arrives", func(u *http2Stream) { u.Body.Append(make([]byte, 1)) }, false, nil, bodyStartTimeout},
		{"nothing happens", func(*http2Stream) {}, false, nil, bodyStartTimeout},
		{"the timeout of the head ends", func(u *http2Stream) {
			u.ArmRead(u.conn.transport.sweeper.Now())
			u.SweepEntry.Conn.SetReadDeadline(socket.ALongTimeAgo)
		}, false, nil, soon},
		{"there is no body", func(*http2Stream) {}, true, nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &http2Stream{conn: &http2Conn{transport: &http2Transport{sweeper: socket.NewSweeper()}}}
				u.conn.Init(http2.ConnOptions{Sweeper: u.conn.transport.sweeper})
				u.Init(&u.conn.Conn, u, &u.SweepEntry, 0)
				begin := time.Now()
				var peer sync.WaitGroup
				defer peer.Wait()
				peer.Go(func() {
					time.Sleep(soon)
					u.conn.Mu.Lock()
					defer u.conn.Mu.Unlock()
					test.happens(u)
					u.Wake()
				})
				var head http1.ResponseHead
				head.ContentLength = length
				err := u.StartBody(nil, &head, nil, test.bodiless)
				after := time.Since(begin)
				verify.That(t, err == test.err && after == test.after, "%v after %v, want %v after %v", err, after, test.err, test.after)
			})
		})
	}
}
