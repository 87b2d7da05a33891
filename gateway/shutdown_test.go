package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"sluice/observe/wake"
	"sluice/test/verify"
)

// hanging starts a gateway with a request in flight that ends with finish.
func hanging(t *testing.T, settings string) (r *running, finish func(), result func() (string, error)) {
	t.Helper()
	slow, arrived, finish := slowOrigin(t)
	r = start(t, settings+"services: { slow: { peers: ["+slow+"], timeouts: { response_header: 1h } } }\nroutes: [{ service: slow }]")
	r.client.Timeout = 0 // only r ends the request
	var body string
	var err error
	var request sync.WaitGroup
	request.Go(func() {
		var status int
		if status, body = read(r.client.Get(r.url("web") + "/")); status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, body)
		}
	})
	<-arrived
	return r, finish, func() (string, error) { request.Wait(); return body, err }
}

// awaitEnd waits until Run has returned.
func (r *running) awaitEnd() {
	r.t.Helper()
	r.await("Run returns", func() bool { return wake.Closed(r.ended) })
}

func TestShutdownFinishesRequests(t *testing.T) {
	t.Parallel()
	r, finish, result := hanging(t, "")
	r.stop()
	r.awaitRefused(r.Address("web"))
	status, v := r.readyz()
	verify.That(t, status == 503 && v.Missing[0] == "sluice is stopping", "readyz: %d %+v", status, v)
	finish()
	body, err := result()
	verify.That(t, err == nil && body == "slow", "the request in flight: %q, %v", body, err)
	r.awaitEnd()
	verify.That(t, r.err == nil, "Run: %v", r.err)
	_, log, _ := strings.Cut(r.log.String(), `"message":"stopping"`)
	verify.That(t, !strings.Contains(log, `"level":"warn"`), "log: %s", log)
}

func TestShutdownDelayAcceptsConnections(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	r := start(t, "shutdown: { delay: 10m }\n"+static("a", a))
	r.stop()
	r.await("readyz fails", func() bool { status, _ := r.readyz(); return status == 503 })
	r.gets("/", "a")
	r.Cut() // also ends the delay
	r.awaitEnd()
}

func TestShutdownCutsRequestsAfterTheGrace(t *testing.T) {
	t.Parallel()
	r, _, result := hanging(t, "shutdown: { grace: 50ms }\n")
	r.end()
	_, err := result()
	verify.That(t, err != nil, "the request in flight was answered")
	verify.That(t, r.err == nil, "Run: %v", r.err)
	verify.Contains(t, r.log.String(), `"level":"warn"`, "the log does not report it")
}

// A permanent error of a listener ends Run, and names the listener.
func TestRunEndsWhenAListenerFails(t *testing.T) {
	t.Parallel()
	r := start(t, static("a", "127.0.0.1:1"))
	for _, l := range r.listeners.all() {
		if l.config.Name == "web" {
			l.Close()
		}
	}
	r.awaitEnd()
	verify.That(t, r.err != nil && strings.Contains(r.err.Error(), `listener "web"`), "Run: %v", r.err)
}

// What a new process has taken over stays, also if this one is to stop at the same moment.
func TestStopWhenReplaced(t *testing.T) {
	t.Parallel()
	replaced := make(chan struct{})
	close(replaced)
	for range 3 {
		r := newRunning(t, "shutdown: { delay: 10m }\n"+static("a", "127.0.0.1:1"))
		r.run(Options{Replaced: replaced}, func(g *Gateway) { g.fail(errors.New("also")) })
		r.awaitEnd() // without the delay
		r.awaitLog("replaced by a new process")
	}
}
