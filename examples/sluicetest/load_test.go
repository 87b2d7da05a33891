package sluicetest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
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
	await := func(what string, done func(Count) bool) Count {
		t.Helper()
		for end := time.Now().Add(startTimeout); ; time.Sleep(time.Millisecond) {
			if c := load.Count(); done(c) {
				return c
			}
			if time.Now().After(end) {
				t.Fatalf("waited too long for %s", what)
			}
		}
	}
	good := await("two apps", func(c Count) bool { return c.ByApp["star-0"] > 5 && c.ByApp["star-1"] > 5 })
	if good.Failed > 0 {
		t.Errorf("%d failed: %q", good.Failed, good.Failures)
	}
	broken.Store(1)
	await("failures", func(c Count) bool { return c.Failed > 5 })
	load.Stop()
	end := load.Count()
	if end.Requests != end.Failed+end.ByApp["star-0"]+end.ByApp["star-1"] {
		t.Errorf("%d requests are not the sum of %d failed and %v", end.Requests, end.Failed, end.ByApp)
	}
	since := end.Since(good)
	if since.Failed != end.Failed || len(since.Failures) == 0 || !strings.Contains(since.Failures[0], "no_peers") {
		t.Errorf("since the good part: %+v, want the failures with their reason", since)
	}
}

func TestIsFree(t *testing.T) {
	server := httptest.NewServer(nil)
	defer server.Close()
	if address := server.Listener.Addr().String(); IsFree(address) {
		t.Errorf("%s is taken for a free address", address)
	}
	if !IsFree(Any) {
		t.Error("no address is free")
	}
}
