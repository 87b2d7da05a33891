package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"syscall"
	"testing"

	consulapi "github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/verify"
)

// Orders of an operator are in force in every process from its first request on: after upgrades,
// also while Consul hangs, and after a restart, which gets them from the file while Consul is away,
// or from Consul without a file. An order ends in the process that serves then.
func TestReplaceWithOrders(t *testing.T) {
	t.Parallel()
	long.Test(t)
	for name, test := range map[string]struct {
		keys func(dir string) (admin, consul string) // where orders are kept
		away bool                                    // Consul, at the restart
	}{
		"in a file": {func(dir string) (string, string) {
			return fmt.Sprintf(", orders: %q", filepath.Join(dir, "orders.json")), ""
		}, true},
		"in Consul": {func(string) (string, string) { return "", ", orders: orders/test" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent := consultest.Start(t, consultest.Options{})
			var requests [3]atomic.Int64 // by instance
			for i := range requests {
				app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					requests[i].Add(1)
					io.WriteString(w, "ok")
				}))
				t.Cleanup(app.Close)
				at := netip.MustParseAddrPort(app.Listener.Addr().String())
				verify.NoError(t, agent.Client().Agent().ServiceRegister(&consulapi.AgentServiceRegistration{
					Name: "star", ID: fmt.Sprint("star-", i), Address: at.Addr().String(), Port: int(at.Port()),
				}))
			}
			moon := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(moon.Close)
			dir := t.TempDir()
			inAdmin, inConsul := test.keys(dir)
			s := newServing(t, "", "")
			s.adminKeys = inAdmin
			s.configure(fmt.Sprintf("consul: { addresses: [%q], wait: 1s%s }\ndiscovery: { snapshot: %q }\nservices: { star: { consul: {}, balance: { policy: round_robin } }, moon: { peers: [%q] } }\nroutes: [{ service: star }, { path: /moon, service: moon }]\n",
				agent.URL(), inConsul, filepath.Join(dir, "snapshot"), moon.Listener.Addr()))
			s.serve()
			peer := func(i int) admin.Peer {
				for _, p := range get[[]admin.Peer](s, "/api/peers") {
					if p.ID == fmt.Sprint("star-", i) {
						return p
					}
				}
				return admin.Peer{}
			}
			awaitThat(t, "all peers", func() bool { return len(get[[]admin.Peer](s, "/api/peers")) == len(requests)+1 })
			ask := func(path, want string) func(int) (*http.Request, string) {
				return func(int) (*http.Request, string) {
					r, err := http.NewRequest(http.MethodGet, "http://"+s.address+path, nil)
					if err != nil {
						panic(err)
					}
					return r, want
				}
			}
			l := startLoad(t, 4, ask("/", "ok"))
			l.more(50)

			s.post("/api/peers/star/star-0/drain?why=new+disk")
			s.post("/api/peers/star/star-1/weight?weight=7&for=1h&why=bigger")
			s.post("/api/services/moon/maintenance/on?why=new+disk")
			const works = "503 Service Unavailable: the service is in maintenance: new disk\n"
			told := startLoad(t, 2, ask("/moon", works))
			awaitThat(t, "Consul has the orders", func() bool { return get[admin.Orders](s, "/api/orders").Pending == 0 }) // an answer waits for 2 s
			ordered := get[admin.Orders](s, "/api/orders")
			l.more(50) // whose peers were chosen after the drain
			awaitThat(t, "the drained instance is idle", func() bool { return peer(0).Inflight == 0 })
			before := requests[0].Load()
			inForce := func(when string) {
				t.Helper()
				got := get[admin.Orders](s, "/api/orders")
				verify.That(t, len(got.Orders) == 3 && reflect.DeepEqual(got.Orders, ordered.Orders), "%s the orders are %+v\nwant %+v", when, got.Orders, ordered.Orders)
				p := peer(0)
				verify.That(t, p.State == "draining" && reflect.DeepEqual(p.Reasons, []string{"drain: new disk"}), "%s the drained peer is %+v", when, p)
				p = peer(1)
				verify.That(t, p.State == "up" && p.Weight == 7, "%s the peer with another weight is %+v", when, p)
				n := requests[0].Load() - before
				verify.That(t, n <= 0, "%s the drained instance has got %d requests", when, n)
			}
			inForce("at once")

			l.more(50)
			s.replace()
			l.more(50)
			told.more(20)
			inForce("after an upgrade")
			verify.NoError(t, agent.Pause())
			s.replace()
			l.more(50)
			told.more(20)
			inForce("after an upgrade while Consul hangs")
			l.stop()
			told.stop()

			verify.NoError(t, agent.Resume())
			if test.away {
				verify.NoError(t, agent.Kill())
			}
			s.restart()
			for range 50 {
				status, body := s.get("http://" + s.address + "/")
				verify.Require(t, status == http.StatusOK, "after a restart: %d %s", status, body)
				status, body = s.get("http://" + s.address + "/moon")
				verify.Require(t, status == http.StatusServiceUnavailable && body == works, "in maintenance, after a restart: %d %s", status, body)
			}
			inForce("after a restart")

			s.post("/api/peers/star/star-2/drain?for=2s")
			s.replace()
			awaitThat(t, "the end of an order from before the upgrade", func() bool {
				p := peer(2)
				return p.State == "up" && len(p.Orders) == 0 && len(get[admin.Orders](s, "/api/orders").Orders) == 3
			})
			s.post("/api/peers/star/star-0/enable")
			s.post("/api/services/moon/maintenance/off")
			s.replace()
			awaitThat(t, "an order that has ended does not come back", func() bool { return peer(0).State == "up" })
			status, body := s.get("http://" + s.address + "/moon")
			verify.That(t, status == http.StatusNotFound, "after the maintenance: %d %s", status, body)
			s.end()
		})
	}
}

// get returns the answer of the admin API.
func get[T any](s *serving, path string) (v T) {
	s.t.Helper()
	r := verify.Result(http.Get("http://" + s.admin + path)).Must(s.t)
	defer r.Body.Close()
	err := json.NewDecoder(r.Body).Decode(&v)
	verify.Require(s.t, err == nil && r.StatusCode == http.StatusOK, "%s: %s, %v", path, r.Status, err)
	return v
}

// post gives an order.
func (s *serving) post(path string) {
	s.t.Helper()
	r := verify.Result(http.Post("http://"+s.admin+path, "", nil)).Must(s.t)
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	verify.Require(s.t, r.StatusCode == http.StatusOK, "%s: %s %s", path, r.Status, text)
}

// restart kills the current process, which a predecessor has started, and starts another one.
func (s *serving) restart() {
	s.t.Helper()
	old := s.pid
	s.signal(syscall.SIGKILL)
	s.awaitEnd(old)
	s.command = exec.Command(s.command.Path, s.command.Args[1:]...)
	s.start()
	s.pid = awaitPID(s.t, s.pidFile, old)
}
