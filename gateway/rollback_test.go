package gateway

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/admin"
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
	again.run(Options{})
	return again
}

// A rollback pins the file until it changes, also after a restart.
func TestRollBackOfTheFile(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	head := fmt.Sprintf("config: { history: %s }\n", t.TempDir())
	r := start(t, head+static("a", a))
	r.replace(head + static("b", b))
	status, done := r.rollBack(1, r.applied().Hash)
	verify.Require(t, status == http.StatusOK && done.Sources[0].Pinned == 1, "%d %+v", status, done)
	const line = "info config.rolled_back: An operator has returned to revision 1 of the configuration: test"
	verify.That(t, slices.Contains(told(r.events), line), "the feed lacks %q:\n%s", line, strings.Join(told(r.events), "\n"))
	r.gets("/", "a")
	r.Reload()
	r = r.restart()
	r.gets("/", "a")
	// A bad text does not end the pin, another one does.
	r.write("nonsense")
	r.Reload()
	r.awaitState(r.file, "refused")
	r.gets("/", "a")
	r.write(head + static("b", b) + "# Another text.\n")
	r.answers("/", "b")
	number := r.awaitRevision(4).Number // a revision serves before it is recorded
	r = r.restart()
	verify.Equal(t, r.applied().Number, number, "the revision of the same configuration after a restart")
	r.end()
	r.write(strings.Replace(preamble, "127.0.0.1:0", "localhost:0", 1) + head + static("b", b))
	r = r.restart()
	verify.Equal(t, r.applied().Number, number+1, "the revision of another listener after a restart")
	r.write(static("a", a))
	r.awaitRevision(number + 2) // no request meets the former listener while it closes
	r = r.restart()
	status, _ = r.rollBack(1, r.applied().Hash)
	verify.That(t, status == http.StatusConflict || status == http.StatusNotFound, "without a history: %d", status)
}

// A new process has the listeners and the access log of a rollback of which only the old process
// knows, as the file names another history.
func TestNewProcessAfterARollBackOfListeners(t *testing.T) {
	t.Parallel()
	const web, more = "{ name: web, address: '127.0.0.1:0' }", "{ name: more, address: '127.0.0.2:0' }"
	a := origin(t, "a")
	for name, listeners := range map[string]struct{ first, second []string }{
		"one more": {[]string{web, more}, []string{web}}, "one less": {[]string{web}, []string{web, more}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			text := func(n int, listeners []string) string {
				return fmt.Sprintf("config: { history: %s/history%d }\naccess_log: { path: %s/log%d }\n", dir, n, dir, n) + listening(a, listeners...)
			}
			old := start(t, text(1, listeners.first))
			old.replace(text(2, listeners.second))
			status, _ := old.rollBack(1, old.applied().Hash)
			verify.Require(t, status == http.StatusOK, "the rollback: %d", status)
			next := old.upgrade("", nil)
			next.Reload()
			next.await("the listeners", func() bool {
				return len(next.listeners.all()) == len(listeners.first) && (next.Address("more") != nil) == (len(listeners.first) == 2)
			})
			for _, l := range next.listeners.all() {
				status, body := next.send(http.MethodGet, next.url(l.config.Name))
				verify.That(t, status == http.StatusOK && body == "a", "%s: %d %s", l.config.Name, status, body)
			}
			next.end()
			old.end()
			for n, want := range map[int]int{1: len(listeners.first), 2: 0} {
				text, _ := os.ReadFile(filepath.Join(dir, fmt.Sprintf("log%d", n)))
				verify.Equal(t, strings.Count(string(text), "\n"), want, "requests in the log of revision %d", n)
			}
		})
	}
}

// The tokens of the admin API protect the address that is served: a new process does not serve that
// of its file with the tokens of a rollback to another address, which may have none.
func TestNewProcessAfterARollBackOfTheAdminAPI(t *testing.T) {
	t.Parallel()
	dir, a, token := t.TempDir(), origin(t, "a"), writeToken(t, "token", "s3cret")
	text := func(n int, admin string) string {
		return fmt.Sprintf("config: { history: %s/history%d }\nadmin: { %s }\n", dir, n, admin) + listening(a, "{ name: web, address: '127.0.0.1:0' }")
	}
	old := start(t, text(1, "address: '127.0.0.1:0'"))
	old.replace(text(2, "address: '127.0.0.2:0', token_file: "+token))
	status, _ := old.rollBack(1, old.applied().Hash)
	verify.Require(t, status == http.StatusOK, "the rollback: %d", status)
	next := old.upgrade("", nil)
	host, _, _ := net.SplitHostPort(next.Address("admin").String())
	verify.Equal(t, host, "127.0.0.2", "the host of the admin API")
	verify.Equal(t, next.statusOf(http.MethodGet, next.url("admin")+"/metrics", ""), http.StatusUnauthorized, "without a token")
	verify.Equal(t, next.statusOf(http.MethodGet, next.url("admin")+"/metrics", "s3cret"), http.StatusOK, "with the token")
}
