package proxy

import (
	"net/http"
	"testing"
	"time"

	"sluice/proxy/http1"
	"sluice/route"
	"sluice/test/verify"
)

// A peer is not slow because it gets the requests of a slow route, or with a slow method.
func TestLatencyByComparisonWithTheRoute(t *testing.T) {
	t.Parallel()
	for _, slow := range []struct{ method, path string }{{"GET", "/slow"}, {"POST", "/"}} {
		p := startProxy(t, Options{}, startServer(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == slow.method && r.URL.Path == slow.path {
				time.Sleep(200 * time.Millisecond)
			}
		}))
		p.SetTable(verify.Result(route.NewTable([]route.Route{{Path: "/", Service: p.service}, {Path: "/slow", Service: p.service}})).Must(t), nil)
		send := func(method, path string) {
			t.Helper()
			request := verify.Result(http.NewRequest(method, "http://"+p.address+path, nil)).Must(t)
			response := verify.Result(http.DefaultClient.Do(request)).Must(t)
			response.Body.Close()
			verify.Equal(t, response.StatusCode, 200, "status of %s %s", method, path)
			eventually(t, "the attempt has ended", func() bool { return p.inflight() == 0 })
		}
		eventually(t, "the peer has a latency", func() bool {
			send("GET", "/") // the first answer is no sample
			return p.pool.Snapshot().All[0].Latency() > 0
		})
		for range 50 { // until the pool's usual latency is known
			send("GET", "/")
		}
		before := p.pool.Snapshot().All[0].Latency()
		send(slow.method, slow.path)
		after := p.pool.Snapshot().All[0].Latency()
		verify.That(t, after <= before*115/100, "%s %s: the peer's latency was %v and is %v", slow.method, slow.path, before, after)
	}
	verify.That(t, len(route.Latencies{}) > int(http1.MethodPatch), "latencies of %d methods", len(route.Latencies{}))
}
