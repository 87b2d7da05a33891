package proxy

import (
	"net/http"
	"testing"

	"sluice/balancer"
	"sluice/test/verify"
)

// The outcome of an attempt says what was asked for, so that a peer is compared with answers to
// the same.
func TestOutcomesHaveTheirEndpoint(t *testing.T) {
	t.Parallel()
	endpoints := make(chan uint32, 1)
	p := startProxy(t, Options{}, startServer(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }))
	p.reconfigure(balancer.Options{OnFailure: func(_ *balancer.Peer, o balancer.Outcome, _ balancer.Streak) { endpoints <- o.Endpoint }})
	of := func(method, path string) uint32 {
		t.Helper()
		request := verify.Result(http.NewRequest(method, "http://"+p.address+path, nil)).Must(t)
		verify.Result(http.DefaultClient.Do(request)).Must(t).Body.Close()
		return <-endpoints
	}
	first := of("GET", "/users/17?a=1")
	verify.That(t, first != 0 && first == of("GET", "/users/4711"), "two users differ, or have no number")
	for _, other := range [][2]string{{"POST", "/users/17"}, {"GET", "/orders/17"}, {"GET", "/"}} {
		verify.That(t, first != of(other[0], other[1]), "%v is as GET /users/17", other)
	}
}
