package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/observe/panics"
	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/verify"
)

// survivePanics makes panics end only what their goroutine serves. It needs a process of its own.
func survivePanics(t *testing.T) (total func() uint64) {
	panics.Fatal.Store(false)
	t.Cleanup(panics.Observe(func(c panics.Contained) { t.Logf("%s: %s", c.Place, c.Value) }))
	sum := func() (n uint64) {
		for at := range panics.Place(panics.NumPlaces) {
			n += panics.Total(at)
		}
		return n
	}
	before := sum()
	return func() uint64 { return sum() - before }
}

// A fault panics in the step of that name of an exchange with a peer, once.
type fault struct{ step atomic.Pointer[string] }

func (f *fault) at(step string) {
	if s := f.step.Load(); s != nil && *s == step && f.step.CompareAndSwap(s, nil) {
		panic("fault at " + step)
	}
}

// A faultyConnector is a connector whose upstreams have a fault.
type faultyConnector struct {
	upstream.Connector
	*fault
}

func (c faultyConnector) Connect(ctx context.Context, r upstream.Requirements, stale upstream.Conn) (upstream.Conn, time.Duration, error) {
	c.at("connect")
	if s, ok := stale.(faultyUpstream); ok {
		stale = s.Conn
	}
	u, d, err := c.Connector.Connect(ctx, r, stale)
	if u != nil {
		u = faultyUpstream{u, c.fault}
	}
	return u, d, err
}

type faultyUpstream struct {
	upstream.Conn
	*fault
}

func (u faultyUpstream) Send(b *socket.Buffers, body, trailer []byte, w upstream.Until) (bool, error) {
	u.at("send")
	sent, err := u.Conn.Send(b, body, trailer, w)
	u.at("sent")
	return sent, err
}

func (u faultyUpstream) SendHead(b *socket.Buffers, chunked bool) (answered, sent bool, err error) {
	u.at("sendHead")
	return u.Conn.SendHead(b, chunked)
}

func (u faultyUpstream) Await(b *socket.Buffers, w upstream.Until) error {
	u.at("await")
	return u.Conn.Await(b, w)
}

func (u faultyUpstream) WriteBody(b *socket.Buffers, p transfer.Piece) error {
	u.at("writeBody")
	return u.Conn.WriteBody(b, p)
}

func (u faultyUpstream) ReadHead(b *socket.Buffers, head *http1.ResponseHead) ([]byte, error) {
	u.at("readHead")
	return u.Conn.ReadHead(b, head)
}

func (u faultyUpstream) StartBody(b *socket.Buffers, head *http1.ResponseHead, text []byte, bodiless bool) error {
	u.at("startBody")
	return u.Conn.StartBody(b, head, text, bodiless)
}

func (u faultyUpstream) ReadBody(b *socket.Buffers, coded bool) (transfer.Piece, error) {
	u.at("readBody")
	p, err := u.Conn.ReadBody(b, coded)
	if u.step.Load() != nil && *u.step.Load() == "relay" && len(p.Text) > 0 {
		empty := ""
		u.step.Store(&empty) // a piece is passed on before the next call
	} else if s := u.step.Load(); s != nil && *s == "" {
		u.at("")
	}
	return p, err
}

func (u faultyUpstream) Finish(complete bool) {
	u.Conn.Finish(complete)
	u.at("finish")
}

// An exchange that panics in any of its steps, between clients and peers of each protocol, ends
// alone: its client gets a 500 or the end of the response, the next request is served, and
// nothing is left.
func TestPanickedExchangeEndsAlone(t *testing.T) {
	if !alone(t) {
		return
	}
	panicked := survivePanics(t)
	address := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, strings.Repeat("x", 300<<10))
	})
	for _, peers := range []string{"HTTP/1", "HTTP/2"} {
		var f fault
		p := startProxy(t, Options{})
		factory := p.NewTransport(someTransport)
		if peers == "HTTP/2" {
			factory = p.NewHTTP2Transport(someTransport)
		}
		p.reconfigure(balancer.Options{NewTransport: func(peer *balancer.Peer) balancer.Transport {
			return faultyConnector{factory(peer).(upstream.Connector), &f}
		}})
		p.setPeers(address)
		p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 2}})
		goroutines := 0
		for _, front := range p.fronts() {
			front.ask(t, "GET", "/", "")
			for _, step := range []string{"connect", "send", "sent", "readHead", "startBody", "readBody", "relay", "finish", "sendHead", "await", "writeBody"} {
				t.Run(fmt.Sprintf("%s to %s, %s", front.name, peers, step), func(t *testing.T) {
					before := panicked()
					f.step.Store(&step)
					var body io.Reader
					if step == "sendHead" || step == "await" || step == "writeBody" {
						body = io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20))) // of unknown length: it is streamed
					}
					r := verify.Result(http.NewRequest("POST", front.url, body)).Must(t)
					if response, err := front.client.Do(r); err == nil {
						_, err = io.Copy(io.Discard, response.Body)
						if response.Body.Close(); response.StatusCode != 500 && err == nil && step != "finish" {
							t.Errorf("status %d and a whole body, want 500 or an error", response.StatusCode)
						}
						verify.That(t, response.StatusCode != 500 || response.Header.Get("X-Sluice-Reason") == "internal_error", "the answer has no reason: %v", response.Header)
					}
					eventually(t, "it has panicked", func() bool { return panicked() > before })
					response, text := front.ask(t, "GET", "/", "")
					verify.That(t, response.StatusCode == 200 && len(text) == 300<<10, "the next request got %d, %d bytes", response.StatusCode, len(text))
					verify.Equal(t, panicked()-before, 1, "panics")
				})
			}
			front.close()
			p.expectNothingLeft(t, goroutines)
			eventually(t, "no connection to the peer is in use", p.peersAreIdle)
			p.expectNothingCounted()
			if goroutines == 0 {
				goroutines = runtime.NumGoroutine()
			}
		}
	}
}

// total returns the number of places that are taken.
func (a *admission) total() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, of := range a.perBlock {
		n += of
	}
	return n
}

// A panic in the code of an HTTP/2 connection, under its mutex, ends that connection with all
// its streams, in whichever goroutine it happens.
func TestPanicUnderMutexEndsConnection(t *testing.T) {
	if !alone(t) {
		return
	}
	panicked := survivePanics(t)
	asked, answer := make(chan struct{}, 4), make(chan struct{})
	h2c := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			asked <- struct{}{}
			<-answer
		}
	})
	answerBoth := func() { answer <- struct{}{}; answer <- struct{}{} }
	for name, use := range map[string]func(h *http2ClientConn, c *frameClient){ // the queue of streams, with mu held
		"reader": func(_ *http2ClientConn, c *frameClient) { c.WritePing(false, [8]byte{}) },
		"stream": func(*http2ClientConn, *frameClient) { go answerBoth() },
		"sender": func(h *http2ClientConn, _ *frameClient) {
			h.protocol.Output.Frames = http2.AppendPing(h.protocol.Output.Frames, 0, goAwayPing)
			h.protocol.FlushLocked()
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxyToH2C(t, h2c)
			c := p.dialFrames()
			_ = c.request(1, http2Get+"wait", true)
			_ = c.request(3, http2Get+"wait", true)
			<-asked
			<-asked
			h := p.onlyHTTP2Client()
			before := panicked()
			eventually(t, "all is sent", func() bool {
				h.protocol.Mu.Lock()
				defer h.protocol.Mu.Unlock()
				if h.protocol.Flushing {
					return false
				}
				h.protocol.Output.Send(new(http2.Sender), nil, nil, nil, true) // without an owner
				use(h, c)
				return true
			})
			for {
				if _, err := c.ReadFrame(); err != nil {
					break
				}
			}
			eventually(t, "it has panicked", func() bool { return panicked() > before })
			if name != "stream" {
				answerBoth()
			}
			eventually(t, "the connection has ended", func() bool { return p.Connections() == 0 && p.admission.total() == 0 })
			p.expect(closingRequest, "200") // for another client
		})
	}
}
