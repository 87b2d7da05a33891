package gateway

import (
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/test/verify"
)

// A peer whose checks fail gets no request from a new process either, nor from a service that a
// reload or an upgrade has renamed, although these cannot know yet that they still do: the peer
// hangs. Its first check that passes puts it to use.
func TestNewProcessDoesNotUseAPeerWhoseChecksFail(t *testing.T) {
	t.Parallel()
	reload := func(r *running, text string) *running {
		r.replace(text)
		return r
	}
	upgrade := func(r *running, text string) *running { return r.upgrade(text, nil) }
	for name, test := range map[string]struct {
		next    func(r *running, text string) *running
		renames bool
		file    bool // has the peers, and not the configuration
	}{
		"upgrade":         {upgrade, false, false},
		"upgrade renames": {upgrade, true, false}, "upgrade renames with a file": {upgrade, true, true},
		"reload renames": {reload, true, false}, "reload renames with a file": {reload, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var hangs atomic.Bool
			recovers := make(chan struct{})
			good := newCheckedOrigin(t, "good").address
			bad := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path != "/health":
					t.Errorf("the peer gets a request for %s", r.URL)
				case hangs.Load():
					<-recovers
				default:
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			})
			text := checkedService("{ active: { path: /health, interval: 20ms, failing_interval: 10ms, timeout: 5m, unhealthy_threshold: 1 } }", good, bad)
			if test.file {
				path := writeFile(t, t.TempDir(), "peers", []byte(good+"\n"+bad+"\n"))
				text = regexp.MustCompile(`peers: \[[^]]*\]`).ReplaceAllString(text, "file: "+path)
			}
			r := start(t, text)
			r.await("the failing peer is unhealthy", func() bool { return r.peers()[bad].State == "unhealthy" })
			hangs.Store(true)
			if test.renames {
				text = strings.NewReplacer("{ a: {", "{ renamed: {", "service: a }", "service: renamed }").Replace(text)
			}
			r = test.next(r, text)
			for range 10 {
				r.gets("/", "good")
			}
			if !test.renames {
				got := r.peers()[bad]
				verify.That(t, got.State == "unhealthy" && len(got.Reasons) == 1 &&
					got.Reasons[0] == "active: http GET /health: status 503, want 200-299", "the peer %+v", got)
			}
			close(recovers)
			r.await("the peer is up", func() bool { return r.peers()[bad].State == "up" })
		})
	}
}

// A peer that is ejected in the old process gets no request from a new one before its time is over.
func TestNewProcessDoesNotUseAnEjectedPeer(t *testing.T) {
	t.Parallel()
	var replaced atomic.Bool
	good := origin(t, "good")
	bad := serveOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		verify.That(t, !replaced.Load(), "the new process sends a request to the peer")
		w.WriteHeader(http.StatusBadGateway)
	})
	text := checkedService("{ passive: { consecutive_failures: 1, ejection: 1h, max_ejection: 1h } }", good, bad)
	old := start(t, text)
	old.await("the peer is ejected", func() bool {
		old.get("/")
		return old.peers()[bad].State == "ejected"
	})
	replaced.Store(true)
	next := old.upgrade(text, nil)
	for range 10 {
		next.gets("/", "good")
	}
	got := next.peers()[bad]
	verify.That(t, got.State == "ejected" && len(got.Reasons) == 1 && strings.HasPrefix(got.Reasons[0], "ejected: "), "the peer %+v", got)
}
