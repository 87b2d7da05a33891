package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/balancertest"
)

// An h2cOrigin is net/http's server with HTTP/2 by prior knowledge only.
type h2cOrigin struct {
	*http.Server
	address string
	opened  atomic.Int64 // connections so far
}

func startH2COrigin(t *testing.T, handler http.HandlerFunc) *h2cOrigin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
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
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return o
}

// startProxyToH2C is startProxy for peers that speak HTTP/2.
func startProxyToH2C(t *testing.T, addresses ...string) *testProxy {
	t.Helper()
	p := startProxy(t, Options{})
	p.http2 = true
	err := p.pool.Reconfigure(balancertest.Complete(balancer.Options{
		Policy: balancer.PolicyRoundRobin, NewTransport: p.NewHTTP2Transport(someTransport), DrainTimeout: patience,
	}))
	if err != nil {
		t.Fatal(err)
	}
	p.setPeers(addresses...)
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

func TestH2CUpstream(t *testing.T) {
	t.Parallel()
	origin := startH2COrigin(t, echoH2C)
	p := startProxyToH2C(t, origin.address)
	for _, length := range []int{0, 1, 1000, 20_000, 70_000, 3_000_000} {
		for _, chunked := range []bool{false, true} {
			body := strings.Repeat("x", length)
			r, err := http.NewRequest("POST", "http://"+p.address+"/a?b=c", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("TE", "trailers")
			if chunked {
				r.ContentLength, r.Trailer = -1, http.Header{"X-Sum": {"request/"}}
			}
			response, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatalf("%d bytes, chunked %v: %v", length, chunked, err)
			}
			got, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil || response.StatusCode != 200 || string(got) != body {
				t.Errorf("%d bytes, chunked %v: status %d, %d bytes, %v", length, chunked, response.StatusCode, len(got), err)
			}
			want := "HTTP/2.0"
			if chunked && length > 0 { // net/http sends no chunks without data
				want = "request/HTTP/2.0"
			}
			if got := response.Trailer.Get("X-Sum"); got != want {
				t.Errorf("%d bytes, chunked %v: trailer %q, want %q", length, chunked, got, want)
			}
		}
	}
	p.expectNothingCounted()
	if n := origin.opened.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// Many requests at a time use few connections.
func TestH2CStreamsShareConnections(t *testing.T) {
	t.Parallel()
	const clients, each = 40, 20
	body := bytes.Repeat([]byte("y"), 5000)
	origin := startH2COrigin(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Write(body)
	})
	p := startProxyToH2C(t, origin.address)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for range each {
				response, err := client.Get("http://" + p.address + "/")
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil || response.StatusCode != 200 || !bytes.Equal(got, body) {
					t.Errorf("status %d, %d bytes, %v", response.StatusCode, len(got), err)
				}
			}
		})
	}
	wg.Wait()
	p.expectNothingCounted()
	if n := origin.opened.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// A peer that restarts sends GOAWAY: no request fails, a POST neither.
func TestH2CGoAway(t *testing.T) {
	t.Parallel()
	first, second := startH2COrigin(t, echoH2C), startH2COrigin(t, echoH2C)
	p := startProxyToH2C(t, first.address, second.address)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				response, err := http.Post("http://"+p.address+"/", "text/plain", strings.NewReader("hello"))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil || response.StatusCode != 200 || string(got) != "hello" {
					t.Errorf("status %d, %q, %v", response.StatusCode, got, err)
				}
			}
		})
	}
	eventually(t, "requests at both", func() bool { return first.opened.Load() > 0 && second.opened.Load() > 0 })
	p.setPeers(second.address)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := first.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	close(stop)
	wg.Wait()
}

// A client that goes away cancels its stream, and no other.
func TestH2CCancel(t *testing.T) {
	t.Parallel()
	arrived, canceled := make(chan struct{}), make(chan struct{})
	origin := startH2COrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-r.Context().Done()
			close(canceled)
		}
	})
	p := startProxyToH2C(t, origin.address)
	conn := p.dial()
	io.WriteString(conn, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-arrived
	conn.Close()
	<-canceled
	get(t, p, "GET")
	if n := origin.opened.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// With HTTP/2 on both sides, a client and a peer talk in turns on one stream, as in
// gRPC, and trailers pass also without a body.
func TestH2CBothSides(t *testing.T) {
	t.Parallel()
	origin := startH2COrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/trailers" {
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "5")
			return
		}
		controller := http.NewResponseController(w)
		controller.Flush()
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			w.Write(bytes.ToUpper(b[:n]))
			controller.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	p := startProxyToH2C(t, origin.address)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	request := func(path string, body io.Reader) *http.Response {
		t.Helper()
		r, err := http.NewRequest("POST", "http://"+p.address+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("TE", "trailers")
		response, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}

	reader, writer := io.Pipe()
	response := request("/talk", reader)
	for _, word := range []string{"a", "bc", "def"} {
		io.WriteString(writer, word)
		got := make([]byte, len(word))
		if _, err := io.ReadFull(response.Body, got); err != nil || string(got) != strings.ToUpper(word) {
			t.Fatalf("%q for %q: %v", got, word, err)
		}
	}
	writer.Close()
	if rest, err := io.ReadAll(response.Body); err != nil || len(rest) > 0 || response.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("end: %q, %v, trailer %v", rest, err, response.Trailer)
	}

	response = request("/trailers", nil)
	if _, err := io.ReadAll(response.Body); err != nil || response.Trailer.Get("Grpc-Status")+response.Header.Get("Grpc-Status") != "5" {
		t.Errorf("without a body: %v, trailer %v, header %v", err, response.Trailer, response.Header)
	}
	p.expectNothingCounted()
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
		if status, body := readResponse(t, conn); status != 200 || strings.Count(body, "X-A: 1") != 99 {
			t.Errorf("got %d %q", status, body)
		}
	}
}
