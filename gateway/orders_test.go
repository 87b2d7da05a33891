package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/operator"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// post sends an order to the admin API, which must accept it, and returns the answer.
func post[T any](r *running, path string) (v T) {
	r.t.Helper()
	status, body := r.send(http.MethodPost, r.url("admin")+path)
	verify.Require(r.t, status == http.StatusOK, "%s: %d %s", path, status, body)
	verify.NoError(r.t, json.Unmarshal([]byte(body), &v))
	return v
}

// A drain and a weight survive a restart, and count before the first request.
func TestOrdersSurviveARestart(t *testing.T) {
	t.Parallel()
	a, b, c := origin(t, "a"), origin(t, "b"), origin(t, "c")
	r := start(t, fmt.Sprintf(`
admin: { address: "127.0.0.1:0", orders: %q }
services: { star: { peers: [%q, %q, %q], balance: { policy: round_robin } } }
routes: [{ service: star }]
`, filepath.Join(t.TempDir(), "orders.json"), a, b, c))
	r.get("/") // waits for the peers
	post[any](r, "/api/peers/star/"+a+"/drain?why=new+disk&by=root@vm&for=1h")
	post[any](r, "/api/peers/star/"+b+"/weight?weight=3")
	r = r.restart()
	counts := make(map[string]int)
	for range 40 {
		_, body := r.get("/")
		counts[body]++
	}
	verify.That(t, counts["a"] == 0 && counts["b"] == 30 && counts["c"] == 10, "after a restart: %v", counts)
	drained := r.peers()[a]
	verify.That(t, len(drained.Orders) == 1 && drained.Orders[0].By == "root@vm" && strings.HasPrefix(drained.Reasons[0], "drain: new disk, until "),
		"the drained peer: %+v", drained)
}

// A reload reads the orders that stand for a new service. Those that come at that moment are newer,
// whichever is slower.
func TestANewServiceObeysTheLatestOrders(t *testing.T) {
	t.Parallel()
	pool := balancer.NewPool("star", balancertest.Complete(balancer.Options{}))
	defer pool.Close()
	store := operator.New(operator.Options{Backing: operator.Backing{Log: zerolog.Nop()}})
	reads, given := make(chan struct{}, 1), make(chan struct{})
	reads <- struct{}{}
	var s *services
	s = &services{byName: map[string]*service{"star": {name: "star", pool: pool}}, orders: func() operator.Set {
		stand := store.Set()
		select {
		case <-reads: // the first one
			verify.NoError(t, store.Give(operator.Order{Kind: operator.Maintenance, Service: "star"}))
			go func() {
				s.applyOrders()
				close(given)
			}()
			select {
			case <-given:
			case <-time.After(100 * time.Millisecond): // it waits for this one
			}
		default:
		}
		return stand
	}}
	s.applyOrdersTo(pool)
	<-given
	verify.That(t, pool.Maintenance.Load() != nil, "there is no maintenance")
}

// A replica that is not ready by order serves on.
func TestNotReadyByOrder(t *testing.T) {
	t.Parallel()
	r := start(t, static("star", origin(t, "a")))
	r.awaitReady()
	post[any](r, "/api/ready/off?why=maintenance&by=root@vm")
	status, v := r.readyz()
	verify.Require(t, status == http.StatusServiceUnavailable && !v.Ready && len(v.Missing) == 1, "readyz %d %+v", status, v)
	verify.That(t, strings.HasPrefix(v.Missing[0], "an operator has made sluice not ready, since ") && strings.HasSuffix(v.Missing[0], ": maintenance"), "missing: %s", v.Missing[0])
	r.gets("/", "a")
	ready, _ := r.readiness.now()
	verify.That(t, !ready, "the registration in Consul says that it is ready")
	post[any](r, "/api/ready/on?by=root@vm")
	r.awaitReady()
	for _, line := range []string{"info sluice.not_ready: An operator has made sluice not ready, and requests are still served: maintenance (by root@vm)",
		"info sluice.ready: An operator has made sluice ready again (by root@vm)"} {
		verify.That(t, slices.Contains(told(r.events), line), "%q is not told", line)
	}
	post[any](r, "/api/ready/off")
	r.restart().awaitReady()
}

// The level that an operator sets lasts until the configuration has another one.
func TestTheLevelOfTheLogByOrder(t *testing.T) {
	t.Parallel()
	services := static("star", origin(t, "a"))
	r := start(t, services)
	expect := func(level, configured string, set bool) {
		t.Helper()
		l := fetch[operator.LogLevel](r, "/api/log")
		verify.That(t, l.Level == level && l.Configured == configured && l.Since.IsZero() != set && r.logs.Level().String() == level,
			"got %+v, and the log has %v", l, r.logs.Level())
	}
	post[any](r, "/api/log/error")
	verify.Contains(t, r.log.String(), "The level of the log is error", "the log does not say that it says less")
	r.replace(services + "\nshutdown: { delay: 1ms }")
	expect("error", "info", true)
	post[any](r, "/api/log/release")
	expect("info", "info", false)
	post[any](r, "/api/log/debug")
	r.replace(services + "\nlog: { level: warn }")
	expect("warn", "warn", false)
}

// An order about a service that is not there yet counts when it comes.
func TestOrdersWaitForTheirService(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	r := start(t, static("star", a))
	o := operator.About(discovery.Key{Service: "moon", ID: b, Address: b}, "")
	o.Kind = operator.Drain
	verify.NoError(t, r.orders.Give(o))
	r.replace(static("star", a, "moon", b))
	verify.Equal(t, r.peers()[b].State, "draining", "the peer")
	all := fetch[operator.Status](r, "/api/orders")
	verify.That(t, len(all.Orders) == 1 && time.Since(all.Orders[0].Since) <= time.Hour, "orders %+v", all)
}
