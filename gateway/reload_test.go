package gateway

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

func TestReloadPreservesPeersAndTheirState(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	r := start(t, static("a", a, "b", b))
	r.get("/")
	pool := r.services.get("a").pool
	peer := pool.Snapshot().All[0]
	r.await("the request has ended", func() bool { return peer.Inflight() == 0 })

	// A new policy, a new timeout and one more peer do not replace the first peer.
	r.replace("services: { a: { peers: [" + a + ", 127.0.0.1:1 weight=0], balance: { policy: round_robin }, timeouts: { idle: 1s } } }\nroutes: [{ service: a }]")
	verify.Equal(t, r.services.get("a").pool, pool, "the pool was replaced")
	r.await("the second peer", func() bool { return len(pool.Snapshot().All) == 2 })
	var after *balancer.Peer
	for _, p := range pool.Snapshot().All {
		if p.Address() == a {
			after = p
		}
	}
	verify.That(t, after == peer && after.Requests() == 1, "peer %v became %v", peer, after)
	verify.Equal(t, pool.Snapshot().Policy, balancer.PolicyRoundRobin, "policy")
	verify.Equal(t, r.table().Routes()[0].Service.Timeouts.Idle, time.Second, "idle timeout")
	r.await("the other service is removed", func() bool { return len(r.services.pools()) == 1 })
}

func TestBadReloadChangesNothing(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	r := start(t, static("a", a))
	before := r.table()
	r.write(preamble + "services: { a: { peers: [x], color: red } }\nroutes: [{ service: b }]")
	r.await("the file is refused", func() bool { return r.history.Reloads().Refused > 0 })

	shown := r.applied()
	verify.Require(t, shown.Number == 1 && shown.Reloads.LastError != nil && len(shown.Reloads.LastError.Errors) == 3, "/api/config shows %+v", shown)
	want := r.file + `:5: services.a.peers[0]: value "x": want "HOST:PORT"`
	got := shown.Reloads.LastError.Errors[0]
	verify.That(t, strings.HasPrefix(got, want), "first error:\n got  %s\n want %s", got, want)
	r.awaitLog(`"in_use":`)
	verify.Equal(t, r.table(), before, "the route table was replaced")
	r.gets("/", "a")

	r.write(static("a", a)) // unchanged: no new revision, and the error ends
	r.await("the error has ended", func() bool { return r.history.Reloads().Last == nil })
	verify.Equal(t, r.history.Current().Number, 1, "revision")
}

func TestRemovedServiceFinishesItsRequests(t *testing.T) {
	t.Parallel()
	arrived, finish := make(chan struct{}), make(chan struct{})
	slow := serveOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-finish
		io.WriteString(w, "slow")
	})
	a := origin(t, "a")
	r := start(t, static("a", a, "slow", slow))
	var body string
	var request sync.WaitGroup
	request.Go(func() { _, body = r.get("/slow") })
	<-arrived

	r.replace(static("a", a))
	r.gets("/slow", "a")
	p := r.peers()[slow]
	verify.That(t, p.State == "draining" && p.Inflight == 1, "the draining peer is not listed: %+v", p)
	close(finish)
	request.Wait()
	verify.Equal(t, body, "slow", "the request in flight")
	r.await("the pool is removed", func() bool { return len(r.services.pools()) == 1 })
}

// A route changes to a service whose first set arrives late: no request goes to a service
// without peers.
func TestNewServiceIsRoutedWhenItHasPeers(t *testing.T) {
	t.Parallel()
	consul := discoverytest.New()
	a, b := origin(t, "a"), origin(t, "b")
	consul.Set("b", discoverytest.Instance("b", "b-1", port(t, b)))
	address, asked, answer := gatedConsul(t, consul)
	head := "consul: { addresses: [" + address + "] }\nservices:\n  a: { peers: [" + a + "] }\n"
	r := start(t, preamble+head+"routes: [{ service: a }]")
	r.write(preamble + head + "  b: { consul: {} }\nroutes: [{ service: b }]")
	<-asked
	for range 20 {
		r.gets("/", "a")
	}

	var stop atomic.Bool
	var asking sync.WaitGroup
	asking.Go(func() {
		for !stop.Load() {
			status, body := r.get("/")
			verify.That(t, status == 200, "got %d %q", status, body)
		}
	})
	answer()
	r.awaitRevision(2)
	stop.Store(true)
	asking.Wait()
	r.gets("/", "b")
}

func TestKeysThatNeedARestartDoNotChange(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	r := start(t, static("a", a))
	address := r.Address("admin").String()
	r.write(strings.Replace(preamble, "127.0.0.1:0\" }\naccess", "127.0.0.1:1\" }\naccess", 1) + "health: { max_checks: 7 }\n" + static("b", b))
	want := []string{"admin.address", "health.max_checks"}
	verify.DeepEqual(t, r.awaitRevision(2).Pending, want, "pending")
	_, body := r.get("/")
	verify.That(t, body == "b", "the other keys were not applied: got %q", body)
	verify.Equal(t, r.Address("admin").String(), address, "listens on")
	r.write(static("b", b)) // the first values again
	got := r.awaitRevision(3).Pending
	verify.That(t, got == nil, "pending %q", got)
}

func TestReloadChangesTheLog(t *testing.T) {
	t.Parallel()
	r := start(t, "log: { level: error }\n"+static("a", "127.0.0.1:1"))
	r.await("readiness", func() bool { return closed(r.readiness.became) })
	got := r.log.String()
	verify.Require(t, got == "", "logged at level error: %s", got)
	r.write("log: { level: info, format: console }\n" + static("a", "127.0.0.1:1"))
	r.awaitLog(" INF ")
}
