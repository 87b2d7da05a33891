package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/test/verify"
)

// repeat sends requests for a path over one persistent connection until stop, and reports each that
// fails. answered is the number of answers so far.
func (r *running) repeat(path string) (answered *atomic.Uint64, stop func()) {
	url := r.url("web") + path
	ctx, cancel := context.WithCancel(context.Background())
	client := &http.Client{Timeout: patience, Transport: &http.Transport{}}
	requests := new(atomic.Uint64)
	var running sync.WaitGroup
	running.Go(func() {
		defer client.CloseIdleConnections()
		for pace := time.Tick(time.Millisecond); ctx.Err() == nil; <-pace {
			response, err := client.Get(url)
			if err != nil {
				r.t.Errorf("%s: request %d: %v", path, requests.Load(), err)
				return
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			n := requests.Add(1)
			verify.That(r.t, err == nil && response.StatusCode == http.StatusOK, "%s: request %d: %d %q, %v", path, n, response.StatusCode, body, err)
		}
	})
	return requests, func() {
		cancel()
		running.Wait()
	}
}

// The configuration file, a document in a file and one in Consul change ten times a second. No
// request fails, and the service that does not change keeps its peer, its connections and its
// counters.
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	const rounds = 30
	var connections atomic.Int64
	kept := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "kept") }))
	kept.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	kept.Start()
	t.Cleanup(kept.Close)
	peers := []string{origin(t, "even"), origin(t, "odd")}

	agent, own := shared.Agent(t)
	document := filepath.Join(t.TempDir(), "document.yaml")
	changing := func(name string, round int) string {
		return serving(name, peers[round%2]) + fmt.Sprintf("# %d\n", round)
	}
	text := func(round int) string {
		return fmt.Sprintf("consul: { addresses: [%q] }\ndynamic: [{ file: %q }, { consul_kv: { prefix: %s/ } }]\n", agent.URL(), document, own) + preamble +
			fmt.Sprintf("services: { kept: { peers: [%q], keepalive: { idle: 1h } } }\nroutes: [{ service: kept }, { path: /round%d, service: kept }]\n",
				kept.Listener.Addr(), round)
	}
	replaceFile(t, document, changing("file", 0))
	put(t, agent, own+"/kv.yaml", changing("kv", 0))
	r := start(t, text(0))
	r.answers("/kv", "even")
	pool := r.services.get("kept").pool
	peer := pool.Snapshot().All[0]
	first := r.history.Current().Number
	before := peer.Requests()

	paths := []string{"/", "/other", "/file", "/kv"}
	requests, stop := make([]*atomic.Uint64, len(paths)), make([]func(), len(paths))
	for i, path := range paths {
		requests[i], stop[i] = r.repeat(path)
	}
	answered := make([]uint64, len(paths)) // when a round began
	pace := time.Tick(100 * time.Millisecond)
	for round := 1; round <= rounds; round++ {
		<-pace
		for i := range requests {
			answered[i] = requests[i].Load()
		}
		replaceFile(t, document, changing("file", round))
		put(t, agent, own+"/kv.yaml", changing("kv", round))
		r.write(text(round))
		r.Reload()
		r.await("the file is in use", func() bool {
			routes := r.effective.Load().Routes
			return strings.Contains(fmt.Sprint(routes[0].Path, routes[1].Path), fmt.Sprintf("/round%d", round))
		})
		for i, path := range paths {
			r.await(path+" is answered in each round", func() bool { return requests[i].Load() > answered[i] || t.Failed() })
		}
	}
	r.answers("/file", "even")
	r.answers("/kv", "even")
	for i := range stop {
		stop[i]()
	}
	t.Logf("%d requests of the peer that stays, %d revisions, %d connections", requests[0].Load()+requests[1].Load(), r.history.Current().Number-first, connections.Load())
	got := r.history.Current().Number - first
	verify.That(t, got >= rounds, "%d revisions, want %d", got, rounds)
	reloads := r.history.Reloads()
	verify.That(t, reloads.Refused == 0, "%d refused: %v", reloads.Refused, reloads.Last)
	verify.That(t, r.services.get("kept").pool == pool && pool.Snapshot().All[0] == peer, "the peer was replaced")
	r.await("the last request has ended", func() bool { return peer.Inflight() == 0 })
	got, want := peer.Requests()-before, requests[0].Load()+requests[1].Load()
	verify.That(t, got == want, "the peer has counted %d requests of %d", got, want)
	// Two requests at a time; a client may have the answer before the connection is free again.
	opened := connections.Load()
	verify.That(t, opened <= 8, "%d connections to the peer: they were not kept", opened)
}
