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

	"sluice/admin"
	"sluice/discovery"
	"sluice/operator"
	"sluice/test/verify"
)

// post sends an order to the admin API, which must accept it, and decodes the answer into v.
func (r *running) post(path string, v any) {
	r.t.Helper()
	status, body := r.send(http.MethodPost, r.url("admin")+path)
	verify.Require(r.t, status == http.StatusOK, "%s: %d %s", path, status, body)
	verify.NoError(r.t, json.Unmarshal([]byte(body), v))
}

// A drain and a weight survive a restart, and count before the first request.
func TestOrdersSurviveARestart(t *testing.T) {
	t.Parallel()
	a, b, c := origin(t, "a"), origin(t, "b"), origin(t, "c")
	text := func(orders string) string {
		return fmt.Sprintf(`
admin: { address: "127.0.0.1:0", orders: %q }
services: { star: { peers: [%q, %q, %q], balance: { policy: round_robin } } }
routes: [{ service: star }]
`, orders, a, b, c)
	}
	r := start(t, text(filepath.Join(t.TempDir(), "orders.json")))
	r.get("/") // waits for the peers
	var done admin.Operated
	r.post("/api/peers/star/"+a+"/drain?why=new+disk&by=root@vm&for=1h", &done)
	drained := done.Peer
	verify.That(t, drained != nil && drained.State == "draining" && strings.HasPrefix(drained.Reasons[0], "drain: new disk, until ") && !done.Shared, "drain: %+v", done)
	r.post("/api/peers/star/"+b+"/weight?weight=3", &done)
	r = r.restart()
	counts := make(map[string]int)
	for range 40 {
		_, body := r.get("/")
		counts[body]++
	}
	verify.That(t, counts["a"] == 0 && counts["b"] == 30 && counts["c"] == 10, "after a restart: %v", counts)
	if p := r.peers()[a]; len(p.Orders) != 1 || p.Orders[0].Kind != operator.Drain || p.Orders[0].By != "root@vm" || p.Orders[0].Until.IsZero() || p.Orders[0].Replica == "" {
		t.Errorf("the drained peer: %+v", p)
	}
	p := r.peers()[b]
	verify.That(t, p.Weight == 3 && len(p.Orders) == 1 && p.Orders[0].Weight == 3 && p.State == "up", "the peer with a weight: %+v", p)
	r.post("/api/peers/star/"+a+"/enable", &done)
	r.post("/api/peers/star/"+b+"/weight/release", &done)
	verify.That(t, done.Peer.Weight == 1 && r.peers()[a].State == "up", "afterwards: %+v, %+v", done.Peer, r.peers()[a])
}

// An upgrade passes on the orders, that sluice is not ready, and the level of the log. While the new
// process starts, the old one accepts no order.
func TestAnUpgradeKeepsOrders(t *testing.T) {
	t.Parallel()
	consul, at := startStar(t, "a", "b")
	text := starAnd(consul.URL(), "")
	old := start(t, text)
	old.await("star is served", func() bool { return len(old.peers()) == 2 })
	var done admin.Operated
	old.post("/api/peers/star/star-1/weight?weight=7", &done)
	old.drain("star", "star-2")
	var ready admin.Readiness
	old.post("/api/ready/off?why=tests", &ready)
	var level operator.LogLevel
	old.post("/api/log/debug?by=root@vm", &level)
	next := old.upgrade(text, nil)
	peers := next.peers()
	verify.That(t, peers[at[0]].Weight == 7 && peers[at[1]].State == "draining", "peers %+v", peers)
	status := next.api("/readyz", &ready)
	verify.That(t, status == http.StatusServiceUnavailable && strings.Contains(ready.Missing[0], "tests"), "readyz %d %+v", status, ready)
	next.api("/api/log", &level)
	verify.That(t, level.Level == "debug" && level.By == "root@vm" && level.Configured == "info", "log %+v", level)
	_, err := old.orders.End(next.orders.Set().All()[0].Key(), "")
	verify.That(t, err != nil, "the old process accepts an order")
}

// An order at one replica is obeyed by all.
func TestReplicasShareOrders(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	first, second := origin(t, "a"), origin(t, "b")
	text := fmt.Sprintf("consul: { addresses: [%q], orders: %s }\nservices: { star: { peers: [%q, %q] } }\nroutes: [{ service: star }]", agent.URL(), own, first, second)
	a, b := start(t, text), start(t, text)
	for _, r := range []*running{a, b} {
		r.get("/") // waits for the peers
	}
	var done admin.Operated
	a.post("/api/peers/star/"+first+"/drain?why=deploy&by=root@vm", &done)
	verify.That(t, done.Shared && (done.Pending == "" || done.Pending == "no answer of Consul yet"), "the answer says %+v", done) // it waits for 2 s
	b.await("the other drains it", func() bool {
		p := b.peers()[first]
		return p.State == "draining" && slices.Equal(p.Reasons, []string{"drain: deploy"}) && len(p.Orders) == 1 && p.Orders[0].Replica == a.replica.name()
	})
	b.await("its feed says so", func() bool {
		return slices.ContainsFunc(told(b.events), func(line string) bool {
			return strings.HasPrefix(line, "info order.given: An operator has ordered: drain of star/"+first) && strings.HasSuffix(line, ": deploy (by root@vm)")
		})
	})
	later := start(t, text)
	later.gets("/", "b")
	verify.Equal(t, later.peers()[first].State, "draining", "a later replica has it")
	b.post("/api/peers/star/"+first+"/enable", &done)
	a.await("the first has it again", func() bool { return a.peers()[first].State == "up" })
}

// A replica that is not ready by order serves on.
func TestNotReadyByOrder(t *testing.T) {
	t.Parallel()
	r := start(t, fmt.Sprintf("services: { star: { peers: [%q] } }\nroutes: [{ service: star }]", origin(t, "a")))
	v := r.awaitReady()
	r.post("/api/ready/off?why=maintenance&by=root@vm", &v)
	if status := r.api("/readyz", &v); status != http.StatusServiceUnavailable || v.Ready || len(v.Missing) != 1 ||
		!strings.HasPrefix(v.Missing[0], "an operator has made sluice not ready, since ") || !strings.HasSuffix(v.Missing[0], ": maintenance") {
		t.Errorf("readyz %d %+v", status, v)
	}
	status := r.api("/api/ready", &v)
	verify.That(t, status == http.StatusOK && !v.Ready, "ready %d %+v", status, v)
	r.gets("/", "a")
	ready, _ := r.readiness.now()
	verify.That(t, !ready, "the registration in Consul says that it is ready")
	r.post("/api/ready/on?by=root@vm", &v)
	verify.Equal(t, r.api("/readyz", &v), http.StatusOK, "readyz %+v", v)
	if lines := told(r.events); !slices.Contains(lines, "info sluice.not_ready: An operator has made sluice not ready, and requests are still served: maintenance (by root@vm)") ||
		!slices.Contains(lines, "info sluice.ready: An operator has made sluice ready again (by root@vm)") {
		t.Errorf("told\n%s", strings.Join(lines, "\n"))
	}
	r.post("/api/ready/off", &v)
	if again := r.restart(); again != nil {
		again.await("a restart ends it", func() bool { return again.api("/readyz", &v) == http.StatusOK })
	}
}

// The level that an operator sets lasts until the configuration has another one.
func TestTheLevelOfTheLogByOrder(t *testing.T) {
	t.Parallel()
	services := fmt.Sprintf("services: { star: { peers: [%q] } }\nroutes: [{ service: star }]", origin(t, "a"))
	r := start(t, services)
	expect := func(level, configured string, set bool) {
		t.Helper()
		l := fetch[operator.LogLevel](r, "/api/log")
		if l.Level != level || l.Configured != configured || l.Since.IsZero() == set || r.logs.Level().String() != level {
			t.Errorf("got %+v, and the log has %v", l, r.logs.Level())
		}
	}
	var l operator.LogLevel
	expect("info", "info", false)
	r.post("/api/log/debug", &l)
	expect("debug", "info", true)
	r.replace(services + "\nshutdown: { delay: 1ms }")
	expect("debug", "info", true)
	r.post("/api/log/release", &l)
	expect("info", "info", false)
	r.post("/api/log/error", &l)
	verify.Contains(t, r.log.String(), "The level of the log is error", "the log does not say that it says less")
	r.replace(services + "\nlog: { level: warn }")
	expect("warn", "warn", false)
}

// An order about a service that is not there yet counts when it comes.
func TestOrdersWaitForTheirService(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	services := func(name string) string {
		return fmt.Sprintf("services: { star: { peers: [%q] }%s }\nroutes: [{ service: star }]", a, name)
	}
	r := start(t, services(""))
	o := operator.About(discovery.Key{Service: "moon", ID: b, Address: b}, "")
	o.Kind = operator.Drain
	verify.NoError(t, r.orders.Give(o))
	r.replace(services(fmt.Sprintf(", moon: { peers: [%q] }", b)))
	p := r.peers()[b]
	verify.That(t, p.State == "draining", "the peer is %s", p.State)
	all := fetch[operator.Status](r, "/api/orders")
	verify.That(t, len(all.Orders) == 1 && time.Since(all.Orders[0].Since) <= time.Hour, "orders %+v", all)
}
