package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/operator"
	"sluice/proxy/socket"
	"sluice/release"
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
	s := newCanaries(t)
	old := s.run(s.text("", "50%", "act: report"))
	old.await("the peers are there", func() bool { return len(old.peers()) == 3 })
	old.order("star?share=0.25")
	var peer string
	for _, p := range old.peers() {
		peer = p.ID
	}
	verify.Equal(t, old.command("/api/log/debug?by=root@vm"), http.StatusOK, "the level of the log")
	n := s.in(old.upgrade(s.text("", "50%", "act: report"), afterHandover(t, func() {
		for _, path := range []string{
			"/api/shares/star?share=0", "/api/shares/star/resume", "/api/shares/star/release", "/api/ready/off", "/api/ready/on",
			"/api/log/debug", "/api/peers/star/" + peer + "/drain", "/api/config/rollback?number=1",
		} {
			verify.Equal(t, old.command(path), http.StatusServiceUnavailable, "%s", path)
		}
	})))
	verify.Equal(t, n.split().Share, 0.25, "the share")
	level := fetch[operator.LogLevel](n.running, "/api/log")
	verify.That(t, level.Level == "debug" && level.By == "root@vm" && level.Configured == "info", "log %+v", level)
	verify.Equal(t, n.command("/api/ready/off"), http.StatusOK, "the new process answers")
	status, _ := n.readyz()
	verify.Equal(t, status, http.StatusServiceUnavailable, "then it is ready")
}

// A new process that does not serve ends no share in Consul, although its configuration has another
// split, and writes neither orders nor a revision. The old one takes orders again.
func TestANewProcessThatFailsWritesNothing(t *testing.T) {
	t.Parallel()
	s := newSharers(t)
	dir := t.TempDir()
	text := strings.Replace(s.text(s.agent.URL(), "50%", "act: report"), "admin: {", fmt.Sprintf("admin: { orders: %q,", dir+"/orders"), 1) +
		fmt.Sprintf("config: { history: %q }\n", dir+"/history")
	a := s.in(start(t, text))
	a.order("star?share=0.2")
	a.await("the peers are there", func() bool { return len(a.peers()) == 3 })
	for _, peer := range a.peers() {
		verify.Equal(t, a.command("/api/peers/star/"+peer.ID+"/drain?why=disk"), http.StatusOK, "drain")
	}
	a.await("Consul has the share", func() bool { return !a.shares.Store.Entry("shares/star").Changing })
	a.await("the history has the share", func() bool { return a.applied().Number == 2 })
	written := func() (texts string) {
		for _, file := range []string{"/orders", "/history"} {
			texts += string(verify.Result(os.ReadFile(dir + file)).Must(t))
		}
		return texts
	}
	before := written()
	other := strings.Replace(text, "canary: 50%", "canary: 40%", 1)
	next := a.succeed(strings.Replace(other, s.peers, s.peers+".missing", 1), func(given io.ReadCloser) io.ReadCloser {
		return edited(given, `"why":"disk"`, `"why":"else"`)
	}, time.Second)
	next.fails()
	verify.Equal(t, written(), before, "the files")
	a.await("the old process takes orders", func() bool { return a.command("/api/log/debug") == http.StatusOK })
	verify.That(t, s.inConsul(true)(), "Consul has no share")
	a.awaitShare(0.2, release.ByOperator)
	a.replace(other)
	again := a.restart()
	verify.Equal(t, len(again.history.Revisions()), 3, "revisions after a restart: %s", again.log)
}

// A rollback that takes time when a new process asks for the state does not delay that, and is
// refused: the new process does not know of it. If it fails, the configuration of before is in use.
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
	}})
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
