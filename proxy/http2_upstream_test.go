package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/verify"
)

// An h2cOrigin is net/http's server with HTTP/2 by prior knowledge only.
type h2cOrigin struct {
	*http.Server
	address string
	opened  atomic.Int64 // connections so far
}

func startH2COrigin(t *testing.T, handler http.HandlerFunc) *h2cOrigin {
	t.Helper()
	l := listen(t)
	o := &h2cOrigin{address: l.Addr().String()}
	o.Server = &http.Server{Handler: handler, Protocols: new(http.Protocols), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			o.opened.Add(1)
		}
	}}
	o.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- o.Serve(l) }()
	t.Cleanup(func() {
		o.Close()
		verify.Equal(t, <-served, http.ErrServerClosed, "serve")
	})
	return o
}

// startProxyToH2C is startProxy for peers that speak HTTP/2.
func startProxyToH2C(t *testing.T, addresses ...string) *testProxy {
	t.Helper()
	p := startProxy(t, Options{})
	p.usePeers(true, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin, DrainTimeout: patience}, addresses...)
	p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 3}})
	return p
}

// echoH2C answers with the body, and its length and the trailer of the request as
// trailers.
func echoH2C(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Sum")
	w.(http.Flusher).Flush() // no Content-Length: HTTP/1.1 could have no trailer
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Write(body)
	w.Header().Set("X-Sum", r.Trailer.Get("X-Sum")+r.Proto)
}

// Requests in both framings, many at a time, reach the peer on one connection, with their trailers. A client
// that goes away cancels its stream, and does not end the connection.
func TestH2CUpstream(t *testing.T) {
	t.Parallel()
	arrived, canceled := make(chan struct{}), make(chan struct{})
	origin := startH2COrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-r.Context().Done()
			close(canceled)
		}
		echoH2C(w, r)
	})
	p := startProxyToH2C(t, origin.address)
	conn := p.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-arrived
	conn.Close()
	<-canceled
	var wg sync.WaitGroup
	exchange := func(length int, chunked bool) {
		body := strings.Repeat("x", length)
		r := verify.Result(http.NewRequest("POST", "http://"+p.address+"/a?b=c", strings.NewReader(body))).Must(t)
		r.Header.Set("TE", "trailers")
		want := "HTTP/2.0"
		if chunked {
			r.ContentLength, r.Trailer = -1, http.Header{"X-Sum": {"request/"}}
			if length > 0 { // net/http sends no chunks without data
				want = "request/HTTP/2.0"
			}
		}
		wg.Go(func() {
			response, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Errorf("%d bytes, chunked %v: %v", length, chunked, err)
				return
			}
			got, err := io.ReadAll(response.Body)
			response.Body.Close()
			verify.That(t, err == nil && response.StatusCode == 200 && string(got) == body && response.Trailer.Get("X-Sum") == want,
				"%d bytes, chunked %v: status %d, %d bytes, trailer %q, %v", length, chunked, response.StatusCode, len(got), response.Trailer, err)
		})
	}
	for range 3 {
		for _, length := range []int{0, 1, 1000, 20_000, 70_000, 3_000_000} {
			exchange(length, false)
			exchange(length, true)
		}
	}
	wg.Wait()
	p.expectNothingCounted()
	verify.Equal(t, origin.opened.Load(), 1, "connections")
}

// A request with the maximum number of fields reaches peers with HTTP/2 too.
func TestManyFieldsToHTTP2Peers(t *testing.T) {
	t.Parallel()
	origin := startH2COrigin(t, echoRequest)
	p := startProxyToH2C(t, origin.address)
	for _, a := range []*route.Actions{nil, visibleEdits(t)} {
		p.setActions(a)
		conn := p.dial()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("X-A: 1\r\n", 99)+"\r\n")
		status, body := readResponse(t, conn)
		verify.That(t, status == 200 && strings.Count(body, "X-A: 1") == 99, "got %d %q", status, body)
	}
}
