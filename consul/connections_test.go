package consul

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"sluice/test/verify"
)

// A request in flight continues; later requests have another connection.
func TestRenewClosesOldConnectionsAfterTheirRequests(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		started, finish := make(chan struct{}), make(chan struct{})
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(started)
				<-finish
			}
			fmt.Fprint(w, r.RemoteAddr)
		}))
		closed := make(chan string, 10)
		server.Config.ConnState = func(c net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				closed <- c.RemoteAddr().String()
			}
		}
		server.EnableHTTP2 = http2
		server.StartTLS()
		c := newConnections(func(dial dialFunc) *http.Transport {
			transport := server.Client().Transport.(*http.Transport).Clone()
			transport.DialContext = dial
			return transport
		}, (&net.Dialer{}).DialContext, true, 0)
		get := func(path string) string {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
			var address []byte
			verify.NoError(t, c.send(r, func(response *http.Response) (err error) {
				address, err = io.ReadAll(response.Body)
				return err
			}))
			return string(address)
		}

		var slow, next string
		var running sync.WaitGroup
		running.Go(func() { slow = get("/slow") })
		<-started
		c.renew()
		next = get("/")
		select {
		case address := <-closed:
			t.Errorf("HTTP/2 %v: %s was closed with a request in flight", http2, address)
		default:
		}
		close(finish)
		running.Wait()
		verify.Equal(t, <-closed, slow, "HTTP/2 %v: closed", http2)
		verify.That(t, next != slow, "HTTP/2 %v: the next request was on the former connection", http2)
		verify.Equal(t, get("/"), next, "HTTP/2 %v: the last request was on", http2)
		c.renew()
		verify.Equal(t, <-closed, next, "HTTP/2 %v: closed, when it is idle", http2)
		server.Close()
	}
}

// A former connection closes with its own request, whatever others do: an agent counts it.
func TestRenewLeavesNoIdleConnection(t *testing.T) {
	started, finish := make(chan struct{}), map[string]chan struct{}{"/a": make(chan struct{}), "/b": make(chan struct{})}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		<-finish[r.URL.Path]
	}))
	closed := make(chan struct{}, 2)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	server.Start()
	defer server.Close()
	c := newConnections(func(dial dialFunc) *http.Transport { return &http.Transport{DialContext: dial} }, (&net.Dialer{}).DialContext, false, 0)
	var running sync.WaitGroup
	for path := range finish {
		running.Go(func() {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
			verify.Succeeds(t, c.send(r, func(response *http.Response) error {
				_, err := io.Copy(io.Discard, response.Body)
				return err
			}))
		})
		<-started
	}
	c.renew()
	close(finish["/a"])
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Error("the connection of /a stays open while /b is in flight")
	}
	close(finish["/b"])
	running.Wait()
}

// The agent before continues the queries that were canceled, so they use streams of its connections
// for a while.
func TestConnectionsAreReplacedWhenThePreferredAgentReturns(t *testing.T) {
	client := verify.Result(New(Options{Addresses: []string{"http://preferred", "http://other"}})).Must(t)
	defer client.Close()
	preferred, other := client.agents.all[0], client.agents.all[1]
	client.agents.current = other
	before := other.connections.current
	client.agents.switchToBest(time.Now())
	verify.That(t, client.agents.inUse() == preferred && before.replaced, "in use %s, connections replaced: %v", client.URL(), before.replaced)
}
