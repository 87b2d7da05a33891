package gateway

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/release"
	"sluice/test/verify"
)

// canaries are the instances of the service star: two with the tag v1 and one with v2, whose group
// canary has a split with a judge.
type canaries struct {
	t       *testing.T
	peers   string      // the file with the instances
	failing atomic.Bool // the answers of the canary have status 500
}

func newCanaries(t *testing.T) *canaries {
	t.Helper()
	c := &canaries{t: t, peers: filepath.Join(t.TempDir(), "peers")}
	canary := serveOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		if c.failing.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		io.WriteString(w, "canary")
	})
	var instances []string
	for i, address := range []string{origin(t, "old"), origin(t, "old"), canary} {
		instances = append(instances, fmt.Sprintf(`{"host":"127.0.0.1","port":%d,"tags":["v%d"]}`, port(t, address), i/2+1))
	}
	verify.NoError(t, os.WriteFile(c.peers, []byte("["+strings.Join(instances, ",")+"]"), 0o600))
	return c
}

// text is a configuration with more keys.
func (c *canaries) text(more, share, judge string) string {
	return preamble + fmt.Sprintf(`
%s
services:
  star:
    file: %s
    health: { passive: { consecutive_failures: 0, consecutive_5xx: 0 } }
    groups: { canary: { tags: [v2] } }
    split: { canary: %s, key: header X-User }
    judge: { %s }
routes: [{ service: star }]
`, more, c.peers, share, judge)
}

// canaryRun is a gateway with these instances.
type canaryRun struct {
	*running
	of      *canaries
	clients int
}

// run runs a gateway whose judge looks all the time.
func (c *canaries) run(text string) *canaryRun {
	c.t.Helper()
	return c.in(start(c.t, text, func(g *Gateway) { g.judge.Interval, g.judge.WarmUp = time.Millisecond, 0 }))
}

// in returns a gateway that runs.
func (c *canaries) in(r *running) *canaryRun { return &canaryRun{running: r, of: c} }

// request is a request of a new client. It returns which version has answered.
func (c *canaryRun) request() (body string) {
	c.t.Helper()
	c.clients++
	_, body = c.send(http.MethodGet, c.url("web"), "X-User", fmt.Sprint(c.clients))
	return body
}

func (c *canaryRun) split() release.State {
	c.t.Helper()
	states := fetch[[]release.State](c.running, "/api/shares")
	verify.Require(c.t, len(states) == 1, "%d splits", len(states))
	return states[0]
}

// order is an order of an operator about the split.
func (c *canaryRun) order(path string) {
	c.t.Helper()
	verify.Equal(c.t, c.command("/api/shares/"+path), http.StatusOK, "%s", path)
}

// awaitShare waits until the gateway uses a share that was given by by.
func (c *canaryRun) awaitShare(share float64, by string) {
	c.t.Helper()
	c.await(fmt.Sprintf("share %v by %q", share, by), func() bool {
		s := c.split()
		return s.Share == share && (by == "" && s.Override == nil || s.Override != nil && s.Override.By == by)
	})
}

// failUntilVerdict sends requests, which the canary fails, until the judge has a verdict.
func (c *canaryRun) failUntilVerdict() {
	c.t.Helper()
	c.of.failing.Store(true)
	c.await("the judge has seen the release", func() bool { s := c.split(); return s.Judge != nil && !s.Judge.Since.IsZero() })
	c.await("the judge has a verdict", func() bool {
		c.request()
		s := c.split()
		return s.Judge != nil && s.Judge.Verdict != ""
	})
}
