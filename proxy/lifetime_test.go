package proxy

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

// exchangeOn sends a request on a connection of its own, and returns whether the response
// announces the end of it.
func exchangeOn(t *testing.T, w io.Writer, r *bufio.Reader, path string) (status int, closes bool) {
	t.Helper()
	io.WriteString(w, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
	response := verify.Result(http.ReadResponse(r, nil)).Must(t)
	_, err := io.ReadAll(response.Body)
	verify.NoError(t, err)
	return response.StatusCode, response.Close
}

// The request that reaches the limit is the last one of its connection, also if sluice
// answers it.
func TestMaxRequestsOfAConnection(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Connections: socket.ConnectionLimits{MaxRequests: 3}}, answersOK(t))
	for i, last := range []string{"/", "*"} { // "*" is malformed for GET
		conn := p.dial()
		reader := bufio.NewReader(conn)
		for n := range 3 {
			path := "/"
			if n == 2 {
				path = last
			}
			status, closes := exchangeOn(t, conn, reader, path)
			verify.That(t, closes == (n == 2) && (status == 200) == (path == "/"), "request %d: status %d, the connection ends: %v", n+1, status, closes)
		}
		expectRest(t, reader, "")
		verify.Equal(t, p.Stats().Ended, (EndedConnections{MaxRequests: uint64(i) + 1}), "p.Stats().Ended")
	}
}

// A request in flight when the age is reached is finished, and the next one is the last.
func TestMaxAgeOfAConnection(t *testing.T) {
	t.Parallel()
	origin := startHeldOrigin(t)
	const age = time.Hour
	p := startProxy(t, Options{
		Connections: socket.ConnectionLimits{MaxAge: age},
		Timeouts:    Timeouts{Idle: 2 * age, Body: 2 * age, Write: 2 * age, Head: 2 * age},
	}, origin.address())
	service := *p.service
	service.Timeouts.ResponseHeader, service.Timeouts.Idle = 2*age, 2*age
	p.setService(service)
	conn := p.dial()
	reader := bufio.NewReader(conn)
	answer := func(pass time.Duration) (closes bool) {
		go func() {
			<-origin.arrived
			p.sweeper.Advance(pass)
			origin.proceed <- struct{}{}
		}()
		status, closes := exchangeOn(t, conn, reader, "/held")
		verify.Equal(t, status, 200, "status")
		return closes
	}
	verify.That(t, !answer(0), "the first response ends the connection")
	verify.That(t, !answer(age), "a connection that was young when the request arrived ends with its response")
	verify.That(t, answer(0), "an old connection stays open")
	expectRest(t, reader, "")
	verify.Equal(t, p.Stats().Ended, (EndedConnections{MaxAge: 1}), "p.Stats().Ended")
}

// Clients that keep their connections lose no request, and none is served twice.
func TestLimitedConnectionsLoseNoRequest(t *testing.T) {
	t.Parallel()
	var served atomic.Int64
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		served.Add(1)
		return c.write(okResponse)
	}))
	p := startProxy(t, Options{Connections: socket.ConnectionLimits{MaxRequests: 10}}, origin.address())
	of3 := "https://" + p.serveHTTP3(ListenerOptions{Name: "h3"})
	for name, test := range map[string]struct {
		client *http.Client
		url    string
		body   func() io.Reader
	}{
		// A body that cannot be sent again: the end of a connection must be announced.
		"HTTP/1": {&http.Client{Transport: new(http.Transport), Timeout: patience}, "http://" + p.address, func() io.Reader { return io.MultiReader(strings.NewReader("x")) }},
		// With connections of several requests at a time, net/http refuses to send such a body
		// after GOAWAY, even if it has sent nothing of it.
		"HTTP/2": {http2Client(t), "http://" + p.address, func() io.Reader { return strings.NewReader("x") }},
		"HTTP/3": {http3Client(t), of3, func() io.Reader { return strings.NewReader("x") }},
	} {
		const clients, requests = 20, 50
		before := p.Stats().Ended.MaxRequests
		served.Store(0)
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for range requests {
					r, err := test.client.Post(test.url, "text/plain", test.body())
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					io.Copy(io.Discard, r.Body)
					r.Body.Close()
					verify.Equal(t, r.StatusCode, 200, "%s: %s", name, r.Status)
				}
			})
		}
		wg.Wait()
		test.client.CloseIdleConnections()
		verify.Equal(t, served.Load(), clients*requests, "%s: requests were served", name)
		verify.That(t, p.Stats().Ended.MaxRequests != before, "%s: no connection has reached its limit", name)
	}
}

// A client that does not answer, and opens streams after GOAWAY, does not delay the end.
func TestHTTP2GoAwayIsNotDelayed(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Connections: socket.ConnectionLimits{MaxRequests: 1}}, answersOK(t))
	c := p.dialFrames()
	goAways := 0
	for id := uint32(1); id < 10 && goAways < 2; id += 2 {
		c.request(id, http2Get, true)
		for answered := false; !answered && goAways < 2; {
			switch f := c.read().(type) {
			case nil:
				t.Fatal("the connection ended without a second GOAWAY")
			case *xhttp2.GoAwayFrame:
				goAways++
			case *xhttp2.DataFrame:
				answered = f.StreamEnded()
			}
		}
		p.skip(http2GoAwayTimeout * 6 / 10)
	}
	verify.Equal(t, goAways, 2, "GOAWAY")
}

// Connections to peers end with the request that reaches a limit; no request fails.
func TestLimitedConnectionsToPeers(t *testing.T) {
	const age = time.Hour
	for name, test := range map[string]struct {
		limits socket.ConnectionLimits
		opened int // by 10 requests, before each of which half the age passes
	}{
		"requests": {socket.ConnectionLimits{MaxRequests: 5}, 2},
		"age":      {socket.ConnectionLimits{MaxAge: age}, 4}, // each for three requests
		"none":     {socket.ConnectionLimits{}, 1},
	} {
		for _, protocol := range []string{"HTTP/1", "HTTP/2"} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				long := 1000 * age
				p := startProxy(t, Options{Timeouts: Timeouts{Idle: long, Head: long, Body: long, Write: long}})
				first := startOrigin(t, answering(okResponse))
				address, opened := first.address(), first.connections
				if protocol == "HTTP/2" {
					origin := startH2COrigin(t, func(http.ResponseWriter, *http.Request) {})
					address, opened = origin.address, func() int { return int(origin.opened.Load()) }
				}
				options := someTransport
				options.ConnectionLimits, options.IdleTimeout = test.limits, long
				p.usePeers(protocol == "HTTP/2", options, balancer.Options{Policy: balancer.PolicyRoundRobin}, address)
				conn := p.dial()
				reader := bufio.NewReader(conn)
				for n := range 10 {
					p.sweeper.Advance(age / 2)
					status, _ := exchangeOn(t, conn, reader, "/")
					verify.That(t, status == 200, "request %d: status %d", n+1, status)
				}
				verify.Equal(t, opened(), test.opened, "connections")
			})
		}
	}
}
