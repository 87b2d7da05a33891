package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/config"
	"sluice/proxy/handover"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// rollBack sends an order to the admin API.
func (r *running) rollBack(number uint64, match string) (status int, done admin.Revision) {
	r.t.Helper()
	status, body := r.send(http.MethodPost, fmt.Sprintf("%s/api/config/rollback?number=%d&why=test", r.url("admin"), number), "If-Match", strconv.Quote(match))
	_ = json.Unmarshal([]byte(body), &done) // another shape after an error
	return status, done
}

// restart ends r, and starts a gateway with the same file.
func (r *running) restart() *running {
	r.t.Helper()
	r.end()
	again := newRunning(r.t, "")
	again.file = r.file
	again.run(Options{}, patience, func(*Gateway) {})
	return again
}

// A rollback pins the tree in Consul until it changes, also after a restart and while Consul
// is away.
func TestRollBack(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	a, b, c := origin(t, "a"), origin(t, "b"), origin(t, "c")
	history := filepath.Join(t.TempDir(), "history")
	text := fmt.Sprintf("config: { history: %s }\n", history) + treeBelow(relay.URL(), "")
	serving := func(peer string) string { return serving("s", peer) }
	put(t, agent, "sluice/s.yaml", serving(a))
	r := start(t, text)
	r.answers("/s", "a")
	r.awaitState("consul_kv:sluice/", "in_use")
	r.awaitRevision(2) // it serves before it is recorded
	first := r.applied()
	put(t, agent, "sluice/s.yaml", serving(b))
	r.answers("/s", "b")
	r.await("the second revision", func() bool { return r.applied().Number == first.Number+1 })
	second := r.applied()

	if status, _ := r.rollBack(first.Number, first.Hash); status != http.StatusPreconditionFailed {
		t.Errorf("with an old hash: %d", status)
	}
	if status, _ := r.rollBack(99, second.Hash); status != http.StatusNotFound {
		t.Errorf("to an unknown revision: %d", status)
	}
	status, done := r.rollBack(first.Number, second.Hash)
	if status != http.StatusOK || done.Number != second.Number+1 || done.Hash != first.Hash || done.Reason != fmt.Sprintf("rollback to %d: test", first.Number) {
		t.Fatalf("%d %+v", status, done)
	}
	line := fmt.Sprintf("info config.rolled_back: An operator has returned to revision %d of the configuration: test", first.Number)
	verify.That(t, slices.Contains(told(r.events), line), "the feed lacks %q:\n%s", line, strings.Join(told(r.events), "\n"))
	r.gets("/s", "a")
	r.awaitState("consul_kv:sluice/", "pinned")

	// An edit of the file and the same text again release nothing.
	put(t, agent, "sluice/s.yaml", serving(b)+"\n")
	r.answers("/s", "b")
	next := done.Number + 1 // the history follows the table
	r.await("the revision without the pin", func() bool { return r.applied().Number == next })
	if status, done = r.rollBack(first.Number, r.applied().Hash); status != http.StatusOK {
		t.Fatalf("the second rollback: %d", status)
	}
	r.write(text + "routes: [{ path: /more, service: s }]")
	r.answers("/more", "a")

	r = r.restart()
	r.answers("/s", "a")
	r.awaitState("consul_kv:sluice/", "pinned")
	if got := r.applied(); got.Number <= done.Number || !slices.ContainsFunc(got.Sources, func(s admin.SourceInUse) bool { return s.Pinned == first.Number }) {
		t.Errorf("after a restart: %+v", got.Revision)
	}
	relay.Cut()
	number := r.applied().Number
	r = r.restart()
	r.gets("/s", "a")
	if got := r.applied().Number; got != number {
		t.Errorf("a restart with the same configuration makes revision %d of %d", got, number)
	}
	relay.Heal()

	// A bad text does not end the pin, a good one does.
	put(t, agent, "sluice/s.yaml", "nonsense")
	r.awaitState("consul_kv:sluice/", "refused")
	r.gets("/s", "a")
	put(t, agent, "sluice/s.yaml", serving(c))
	r.answers("/s", "c")
	r.awaitState("consul_kv:sluice/", "in_use")
	r.await("the revision without the pin", func() bool { return r.applied().Reason == "pin released: consul_kv:sluice/" })
	info, err := os.Stat(history)
	verify.That(t, err == nil && info.Mode().Perm() == 0o600, "history: %v, %v", info, err)
}

func TestRollBackOfTheFile(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	head := fmt.Sprintf("config: { history: %s }\n", t.TempDir())
	r := start(t, head+static("a", a))
	r.replace(head + static("b", b))
	if status, done := r.rollBack(1, r.applied().Hash); status != http.StatusOK || done.Sources[0].Pinned != 1 {
		t.Fatalf("%d %+v", status, done)
	}
	r.gets("/", "a")
	r.Reload()
	r = r.restart()
	r.gets("/", "a")
	// A bad text does not end the pin, nor does the return to the text that the pin is against.
	r.write("nonsense")
	r.Reload()
	r.awaitState(r.file, "refused")
	r.write(head + static("b", b))
	r.Reload()
	r.awaitState(r.file, "pinned")
	r.gets("/", "a")
	r.write(head + static("b", b) + "# Another text.\n")
	r.answers("/", "b")
	number := r.awaitRevision(4).Number // a revision serves before it is recorded
	if r = r.restart(); r.applied().Number != number {
		t.Errorf("the same configuration after a restart: revision %d, want %d", r.applied().Number, number)
	}
	r.end()
	r.write(strings.Replace(preamble, "127.0.0.1:0", "localhost:0", 1) + head + static("b", b))
	if r = r.restart(); r.applied().Number != number+1 {
		t.Errorf("another listener after a restart: revision %d, want %d", r.applied().Number, number+1)
	}

	r.write(static("a", a))
	r.awaitRevision(number + 2) // no request meets the former listener while it closes
	r = r.restart()
	if status, _ := r.rollBack(1, r.applied().Hash); status != http.StatusConflict && status != http.StatusNotFound {
		t.Errorf("without a history: %d", status)
	}
}

// A new process has the number, the history and the documents of the old one, also if nothing
// is on the disk.
func TestNewProcessHasTheHistory(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	a := origin(t, "a")
	put(t, agent, "sluice/s.yaml", serving("s", a))
	old := start(t, treeBelow(agent.URL(), ""))
	old.answers("/s", "a")
	old.await("the revision", func() bool { return old.history.Current().Number == 2 })
	var state bytes.Buffer
	verify.NoError(t, handover.Save(&state, old.parts(0)))
	var revisions []config.Revision
	history := handover.NewPart("history", func() *config.History { return nil }, func(h *config.History) { revisions = h.Revisions() })
	verify.NoError(t, handover.Restore(&state, []handover.Part{history}))
	if len(revisions) != 2 || revisions[0].Number != 2 || len(revisions[0].Sources) != 2 || revisions[0].Sources[1].Documents[0].Text != serving("s", a) {
		t.Errorf("got %+v", revisions)
	}
}
