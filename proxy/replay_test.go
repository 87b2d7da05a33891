package proxy

import (
	"bufio"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"sluice/route"
	"sluice/test/verify"
)

// A refusingPeer refuses some streams, after their head, after a part of their body, or after all
// of it, and answers the others with their body.
type refusingPeer struct {
	refuse  func(p *framePeer, stream uint32)
	when    string // "head", "part" or "end"
	left    atomic.Int64
	refused chan struct{}

	mu     sync.Mutex
	bodies map[*framePeer]map[uint32]string
}

func (r *refusingPeer) frame(p *framePeer, frame xhttp2.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, at := frame.Header().StreamID, "head"
	ends := false
	switch f := frame.(type) {
	case *xhttp2.HeadersFrame:
		if r.bodies[p] == nil {
			r.bodies[p] = make(map[uint32]string)
		}
		r.bodies[p][id] = ""
	case *xhttp2.DataFrame:
		if _, ok := r.bodies[p][id]; !ok {
			return // it was refused
		}
		r.bodies[p][id] += string(f.Data())
		if ends, at = f.StreamEnded(), "part"; ends {
			at = "end"
		}
	default:
		return
	}
	if at == r.when && r.left.Add(-1) >= 0 {
		delete(r.bodies[p], id)
		r.refuse(p, id)
		r.refused <- struct{}{}
		return
	}
	if ends {
		p.headers(id, false, ":status", "200")
		p.WriteData(id, true, []byte(r.bodies[p][id]))
	}
}

// A request that a peer has not processed is sent again with its body also if nobody knew how long
// that is, and whatever has arrived of it meanwhile.
func TestBodyOfUnknownLengthIsSentAgain(t *testing.T) {
	t.Parallel()
	refusals := map[string]func(p *framePeer, stream uint32){
		"REFUSED_STREAM": func(p *framePeer, stream uint32) { p.WriteRSTStream(stream, xhttp2.ErrCodeRefusedStream) },
		"GOAWAY":         func(p *framePeer, stream uint32) { p.WriteGoAway(stream-1, xhttp2.ErrCodeNo, nil) },
	}
	type test struct {
		refuse func(p *framePeer, stream uint32)
		when   string
	}
	tests := make(map[string]test)
	for name, refuse := range refusals {
		for _, when := range []string{"head", "part", "end"} {
			tests[name+" after the "+when] = test{refuse, when}
		}
	}
	eachCase(t, tests, func(t *testing.T, test test) {
		r := &refusingPeer{refuse: test.refuse, when: test.when, refused: make(chan struct{}, 2), bodies: make(map[*framePeer]map[uint32]string)}
		p := startProxyToH2C(t, startFramePeerWith(t, framePeerOptions{frame: r.frame, answer: func(*framePeer, uint32) {}}))
		p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 1, BodyBytes: 1 << 10}})
		// between is called after the first part was sent.
		between := func() {
			if test.when != "end" {
				<-r.refused
			}
		}
		conn := p.dial()
		in := bufio.NewReader(conn)
		for range 2 {
			r.left.Store(1)
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6;x=1\r\nhello \r\n")
			between()
			io.WriteString(conn, "5\r\nworld\r\n0\r\n\r\n")
			response := verify.Result(http.ReadResponse(in, nil)).Must(t)
			body, err := io.ReadAll(response.Body)
			verify.That(t, err == nil && response.StatusCode == 200 && string(body) == "hello world", "got %d %q, %v", response.StatusCode, body, err)
			if test.when == "end" {
				<-r.refused
			}
		}
		c := p.dialFrames()
		for id := uint32(1); id < 5; id += 2 {
			r.left.Store(1)
			c.request(id, http2Post, false)
			c.WriteData(id, false, []byte("hello "))
			between()
			c.WriteData(id, true, []byte("world"))
			got := c.response(id)
			verify.That(t, got.status == "200" && got.body == "hello world", "got %+v", got)
			if test.when == "end" {
				<-r.refused
			}
		}
		conn.Close()
		c.conn.Close()
		eventually(t, "no memory is kept", func() bool { return p.keptBodies.Taken() == 0 })
		p.expectNothingCounted()
	})
}
