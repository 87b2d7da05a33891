package gateway

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// A volume that is unmounted leaves its mount point, an empty directory: its documents stay in use, also
// after a restart. With allow_empty they do not.
func TestUnmountedVolume(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	root := t.TempDir()
	dir := filepath.Join(root, "routes.d")
	must := func(err error) {
		t.Helper()
		verify.NoError(t, err)
	}
	must(os.Mkdir(dir, 0o755))
	must(os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(serving("a", a)), 0o600))
	pattern := dir + "/*.yaml"
	text := func(more string) string {
		return fmt.Sprintf("config: { history: %q }\ndynamic: [{ file: %q%s }]\nservices: { other: { peers: [%q] } }\nroutes: [{ path: /other, service: other }]",
			root, pattern, more, a)
	}
	r := start(t, text(""))
	r.answers("/a", "a")
	must(os.Rename(dir, dir+".away"))
	must(os.Mkdir(dir, 0o755))
	check := func(when string) {
		t.Helper()
		r.Reload()
		r.await(when+": the lost document is named", func() bool { // at first a new process has no answer yet
			s := r.awaitState(pattern, "stale")
			return len(s.Errors) == 1 && strings.Contains(s.Errors[0], "a.yaml")
		})
		r.gets("/a", "a", when)
	}
	check("unmounted")
	r = r.restart()
	check("after a restart")
	next := r.succeed(text(""), nil, patience)
	must(<-next.outcome)
	r = next.running
	check("after an upgrade")
	r.write(text(", allow_empty: true"))
	r.awaitStatus("/a", http.StatusNotFound)
}

// Consul loses its KV store, and somebody writes the documents again, one by one: those that are not
// written yet stay in use.
func TestDocumentsThatComeBackOneByOne(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	for range 20 {
		put(t, agent, "other", "x")
	}
	a, b := origin(t, "a"), origin(t, "b")
	put(t, agent, "sluice/a.yaml", serving("a", a))
	put(t, agent, "sluice/b.yaml", serving("b", a))
	r := start(t, treeBelow(agent.URL(), ""))
	r.answers("/a", "a")
	r.answers("/b", "a")
	for _, act := range []func() error{
		agent.Kill, func() error { return agent.Launch(t.Context()) }, func() error { return agent.WaitReady(t.Context()) },
	} {
		verify.NoError(t, act())
	}
	r.await("the loss is told", func() bool { return strings.Contains(r.log.String(), "has lost documents") })
	put(t, agent, "sluice/a.yaml", serving("a", b))
	r.answers("/a", "b")
	r.gets("/b", "a")
	put(t, agent, "sluice/b.yaml", serving("b", b))
	r.answers("/b", "b")
	r.awaitState("consul_kv:sluice/", "in_use")
}

// A rollback during an outage is against what the source said last, also after a restart: something new
// ends the pin.
func TestRollBackDuringAnOutage(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	serving := func(body string) string { return serving("s", origin(t, body)) }
	text := fmt.Sprintf("config: { history: %q }\n", filepath.Join(t.TempDir(), "history")) + treeBelow(relay.URL(), "")
	put(t, agent, "sluice/s.yaml", serving("a"))
	r := start(t, text)
	r.answers("/s", "a")
	r.awaitRevision(2) // it serves before it is recorded
	first := r.applied()
	put(t, agent, "sluice/s.yaml", serving("bad"))
	r.answers("/s", "bad")
	r.await("the second revision", func() bool { return r.applied().Number == first.Number+1 })
	relay.Cut()
	r = r.restart()
	r.answers("/s", "bad")
	if status, done := r.rollBack(first.Number, r.applied().Hash); status != http.StatusOK {
		t.Fatal(status, done)
	}
	r.answers("/s", "a")
	r = r.restart()
	r.answers("/s", "a")
	put(t, agent, "sluice/s.yaml", serving("fixed"))
	relay.Heal()
	r.answers("/s", "fixed")
}

// A rollback to a revision from before the first answer of a source says nothing about it.
func TestRollBackToBeforeTheFirstAnswer(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	relay.Cut()
	a := origin(t, "a")
	put(t, agent, "sluice/a.yaml", serving("a", a))
	r := newRunning(t, fmt.Sprintf("config: { history: %q }\n", filepath.Join(t.TempDir(), "history"))+treeBelow(relay.URL(), ""))
	r.run(Options{}, 0, func(*Gateway) {})
	first := r.applied()
	relay.Heal()
	r.answers("/a", "a")
	r.await("the second revision", func() bool { return r.applied().Number == first.Number+1 })
	status, done := r.rollBack(first.Number, r.applied().Hash)
	verify.That(t, status == http.StatusOK && strings.Contains(done.Reason, "not known then, so it stays: consul_kv:sluice/"), "%d %+v", status, done)
	r.gets("/a", "a")
	verify.Contains(t, r.log.String(), "from before these sources were known", "the log does not say so")
}

// The documents of the history do not depend on where the configuration file is.
func TestHistoryOfAFileThatMoves(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	put(t, agent, "sluice/a.yaml", serving("a", origin(t, "a")))
	text := fmt.Sprintf("config: { history: %q }\n", filepath.Join(t.TempDir(), "history")) + treeBelow(relay.URL(), "")
	r := start(t, text)
	r.answers("/a", "a")
	r.awaitRevision(1)
	r.stop()
	<-r.ended
	relay.Cut()
	r = start(t, text) // in another directory
	r.gets("/a", "a")
}
