package sluicetest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/test/consultest"
	"sluice/test/verify"
)

func TestLoadCountsAnswersByApp(t *testing.T) {
	var n, broken atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() > 0 {
			w.Header().Set("X-Sluice-Reason", "no_peers")
			http.Error(w, "nobody there", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "Hello from star-%d, process 1\n", n.Add(1)%2)
	}))
	defer server.Close()
	load := StartLoad(server.URL, 500)
	await := func(what string, done func(Count) bool) (c Count) {
		t.Helper()
		consultest.Await(t, what, func() bool {
			c = load.Count()
			return done(c)
		})
		return c
	}
	good := await("two apps", func(c Count) bool { return c.ByApp["star-0"] > 5 && c.ByApp["star-1"] > 5 })
	verify.That(t, good.Failed <= 0, "%d failed: %q", good.Failed, good.Failures)
	broken.Store(1)
	begin := time.Now()
	await("failures", func(c Count) bool { return c.Failed > 5 })
	load.Stop()
	end := load.Count()
	verify.Equal(t, end.Requests, end.Failed+end.ByApp["star-0"]+end.ByApp["star-1"], "requests are not the sum of %d failed and %v", end.Failed, end.ByApp)
	sent := end.LastSent["star-0"]
	verify.That(t, !sent.IsZero() && !sent.After(begin), "the last answered request was sent at %v", sent)
	since := end.Since(good)
	if since.Failed != end.Failed || since.Refused["no_peers"] != end.Failed || len(since.Failures) == 0 || !strings.Contains(since.Failures[0], "no_peers") {
		t.Errorf("since the good part: %+v, want the failures with their reason", since)
	}
}

func TestIsFree(t *testing.T) {
	server := httptest.NewServer(nil)
	defer server.Close()
	address := server.Listener.Addr().String()
	verify.That(t, !IsFree(address), "%s is taken for a free address", address)
	verify.That(t, IsFree(Any), "no address is free")
}

// Without responses, at most the requests of one second are in flight.
func TestLoadDoesNotPileUp(t *testing.T) {
	var underWay, most atomic.Int64
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for n, m := underWay.Add(1), most.Load(); n > m && !most.CompareAndSwap(m, n); {
			m = most.Load()
		}
		defer underWay.Add(-1)
		<-release
		fmt.Fprintln(w, "Hello from star-1")
	}))
	defer server.Close()
	const perSecond = 200
	load := StartLoad(server.URL, perSecond)
	consultest.Await(t, "requests that are not sent", func() bool { return load.Count().Unsent > 10 })
	close(release)
	load.Stop()
	if c := load.Count(); most.Load() > perSecond || c.Failed > 0 {
		t.Errorf("%d were under way at a time; %+v", most.Load(), c)
	}
}
