package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/admin"
	"sluice/proxy/socket"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// command sends an order to the admin API, and returns the status of the answer.
func (r *running) command(path string) (status int) {
	r.t.Helper()
	status, _ = r.send(http.MethodPost, r.url("admin")+path, "If-Match", `"`+r.applied().Hash+`"`)
	return status
}

// While a new process starts, no order is accepted: it has the state of before.
func TestNoOrderWhileANewProcessStarts(t *testing.T) {
	t.Parallel()
	old := startCanary(t, "act: report")
	old.await("the peers are there", func() bool { return len(old.peers()) == 3 })
	old.order("star?share=0.25", http.StatusOK)
	n := &canaryRun{running: old.upgrade(old.text("50%", "act: report"), afterHandover(t, func() {
		for _, path := range []string{
			"/api/shares/star?share=0", "/api/shares/star/resume", "/api/shares/star/release", "/api/ready/off", "/api/ready/on",
			"/api/log/debug", "/api/nodes/node-1/drain", "/api/config/rollback?number=1",
		} {
			verify.Equal(t, old.command(path), http.StatusServiceUnavailable, "%s", path)
		}
	}))}
	got := n.split()
	verify.That(t, got.Share == 0.25, "the share is %v", got.Share)
	verify.Equal(t, n.command("/api/ready/off"), http.StatusOK, "the new process answers")
	var ready admin.Readiness
	verify.Equal(t, n.api("/readyz", &ready), http.StatusServiceUnavailable, "then it is ready")
}

// A new process that does not serve writes no revision, and the old one takes orders again.
func TestANewProcessThatFailsWritesNothing(t *testing.T) {
	t.Parallel()
	consul, _ := startStar(t, "a")
	history := filepath.Join(t.TempDir(), "history.jsonl")
	text := func(selection, connect string) string {
		return fmt.Sprintf("config: { history: %q }\nconsul: { addresses: [%q] }\nservices: { star: { consul: %s, timeouts: { connect: %s } } }\nroutes: [{ service: star }]",
			history, consul.URL(), selection, connect)
	}
	old := start(t, text("{}", "1s"))
	old.awaitStatus("/", 200)
	before, _ := os.ReadFile(history)
	consul.Break(discoverytest.Fault{Status: 500, Body: "no", Only: func(r discoverytest.Request) bool { return r.Filter != "" }})
	next := old.succeed(text("{ filter: wrong }", "2s"), nil, 100*time.Millisecond)
	next.fails()
	after, err := os.ReadFile(history)
	verify.That(t, err == nil && string(after) == string(before), "the history is %s, %v", after, err)
	old.await("the old process takes orders", func() bool { return old.command("/api/log/debug") == http.StatusOK })
	old.replace(text("{}", "3s"))
	again := old.restart()
	if got := again.applied(); got.Number != 2 || len(again.history.Revisions()) != 2 {
		t.Errorf("after a restart: revision %d of %d; log: %s", got.Number, len(again.history.Revisions()), again.log)
	}
}

// A rollback that takes time when a new process asks for the state does not delay that, and is refused: the new
// process does not know of it. If it fails, the configuration of before is in use.
func TestRollBackWhileANewProcessStarts(t *testing.T) {
	t.Parallel()
	binding, bind := make(chan struct{}), make(chan struct{})
	var times atomic.Int64
	a := origin(t, "a")
	head := fmt.Sprintf("config: { history: %s }\n", t.TempDir())
	const web, more = "{ name: web, address: '127.0.0.1:0' }", "{ name: more, address: '127.0.0.2:0' }"
	old := newRunning(t, head+listening(a, web, more))
	old.run(Options{Listen: func(name, network, address string) (net.Listener, error) {
		if name == "more" && times.Add(1) == 2 { // by the rollback
			close(binding)
			<-bind
		}
		return socket.Listen(network, address)
	}}, patience, func(*Gateway) {})
	old.replace(head + listening(a, web))
	hash := old.applied().Hash
	var status int
	var rollingBack sync.WaitGroup
	rollingBack.Go(func() { status, _ = old.rollBack(1, hash) })
	<-binding
	old.ReplaceBy(func(give func(io.Writer) error) error {
		given := make(chan error, 1)
		go func() { given <- give(io.Discard) }()
		select {
		case err := <-given:
			verify.Succeeds(t, err)
		case <-time.After(patience):
			t.Error("the state waits for the rollback")
		}
		close(bind)
		rollingBack.Wait()
		return errors.New("the new process has ended")
	})
	verify.Equal(t, status, http.StatusServiceUnavailable, "the rollback")
	old.await("the configuration of before", func() bool { return old.Address("more") == nil })
	verify.Equal(t, old.applied().Number, 2, "the revision")
}
