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
	verify.NoError(t, os.Mkdir(dir, 0o755))
	verify.NoError(t, os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(serving("a", a)), 0o600))
	pattern := dir + "/*.yaml"
	text := func(more string) string {
		return fmt.Sprintf("config: { history: %q }\ndynamic: [{ file: %q%s }]\nservices: { other: { peers: [%q] } }\nroutes: [{ path: /other, service: other }]",
			root, pattern, more, a)
	}
	r := start(t, text(""))
	r.answers("/a", "a")
	verify.NoError(t, os.Rename(dir, dir+".away"))
	verify.NoError(t, os.Mkdir(dir, 0o755))
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
	r = r.upgrade(text(""), nil)
	check("after an upgrade")
	r.write(text(", allow_empty: true"))
	r.awaitStatus("/a", http.StatusNotFound)
}

// A rollback during an outage is against what the source said last, also after a restart: something new
// ends the pin.
func TestRollBackDuringAnOutage(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	serving := func(body string) string { return serving("s", origin(t, body)) }
	text := fmt.Sprintf("config: { history: %q }\n", filepath.Join(t.TempDir(), "history")) + treeBelow(relay.URL(), own, "")
	put(t, agent, own+"/s.yaml", serving("a"))
	r := start(t, text)
	r.answers("/s", "a")
	r.awaitRevision(2) // it serves before it is recorded
	first := r.applied()
	put(t, agent, own+"/s.yaml", serving("bad"))
	r.answers("/s", "bad")
	r.await("the second revision", func() bool { return r.applied().Number == first.Number+1 })
	relay.Cut()
	r = r.restart()
	r.answers("/s", "bad")
	status, _ := r.rollBack(first.Number, r.applied().Hash)
	verify.Require(t, status == http.StatusOK, "the rollback: %d", status)
	r.answers("/s", "a")
	r = r.restart()
	r.answers("/s", "a")
	put(t, agent, own+"/s.yaml", serving("fixed"))
	relay.Heal()
	r.answers("/s", "fixed")
}

// A rollback to a revision from before the first answer of a source says nothing about it.
func TestRollBackToBeforeTheFirstAnswer(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	relay.Cut()
	a := origin(t, "a")
	put(t, agent, own+"/a.yaml", serving("a", a))
	r := startWithin(t, fmt.Sprintf("config: { history: %q }\n", filepath.Join(t.TempDir(), "history"))+treeBelow(relay.URL(), own, ""), 0)
	first := r.applied()
	relay.Heal()
	r.answers("/a", "a")
	r.await("the second revision", func() bool { return r.applied().Number == first.Number+1 })
	status, done := r.rollBack(first.Number, r.applied().Hash)
	verify.That(t, status == http.StatusOK && strings.Contains(done.Reason, "not known then, so it stays: consul_kv:"+own+"/"), "%d %+v", status, done)
	r.gets("/a", "a")
	verify.Contains(t, r.log.String(), "from before these sources were known", "the log does not say so")
}

// The documents of the history do not depend on where the configuration file is.
func TestHistoryOfAFileThatMoves(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	put(t, agent, own+"/a.yaml", serving("a", origin(t, "a")))
	text := fmt.Sprintf("config: { history: %q }\n", filepath.Join(t.TempDir(), "history")) + treeBelow(relay.URL(), own, "")
	r := start(t, text)
	r.answers("/a", "a")
	r.awaitRevision(1)
	r.end()
	relay.Cut()
	r = start(t, text) // in another directory
	r.gets("/a", "a")
}

// A rollback to a revision from before the file has moved holds, also when it moves again.
func TestRollBackOfAFileThatMoves(t *testing.T) {
	t.Parallel()
	head := fmt.Sprintf("config: { history: %q }\n", t.TempDir())
	a, b := head+static("a", origin(t, "a")), head+static("b", origin(t, "b"))
	start(t, a).end()
	r := start(t, b) // in another directory, as below
	status, done := r.rollBack(1, r.applied().Hash)
	verify.That(t, status == http.StatusOK && done.Sources[0].Name == r.file && done.Sources[0].Pinned == 1, "%d %+v", status, done)
	r.gets("/", "a")
	r.end()
	r = start(t, b)
	r.gets("/", "a")
	r.awaitState(r.file, "pinned")
	r.end()
	r = start(t, b+"# Another text.\n")
	r.gets("/", "b")
}
