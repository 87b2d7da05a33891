package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/admin"
	"sluice/config"
	"sluice/gateway"
	"sluice/test/consultest"
	"sluice/test/proof"
	"sluice/test/sluicetest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

const (
	requestEvery = 10 * time.Millisecond
	mostRequests = 20          // at a time: more would only keep a busy machine busy
	slowRequest  = time.Second // is in the log
	lostRequest  = time.Minute // has failed: it takes milliseconds
)

// sluice is a running gateway, in this process.
type sluice struct {
	*gateway.Gateway
	t          *testing.T
	web, admin string // addresses
	client     *http.Client

	mu      sync.Mutex
	noticed []string // mu guards it
}

// notice logs what may explain a failure, and keeps it for the end of the log of t.
func (s *sluice) notice(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	s.t.Log(line)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noticed = append(s.noticed, line)
}

// repeat logs what was noticed, if t has failed.
func (s *sluice) repeat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.t.Failed() {
		s.t.Logf("what sluice and the requests have had to say:\n%s", strings.Join(s.noticed, "\n"))
	}
}

func startSluice(t *testing.T, c *cluster) *sluice {
	t.Helper()
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", consultest.ReservePort(t)) }
	// A new connection for each request: net/http repeats a GET if a reused
	// connection is closed.
	s := &sluice{t: t, web: address(), admin: address(), client: &http.Client{Timeout: lostRequest, Transport: &http.Transport{DisableKeepAlives: true}}}
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	text := fmt.Sprintf(`
listeners: [{ name: web, address: %q }]
admin: { address: %q }
access_log: { path: "off" }
shutdown: { idle: 0s, grace: 1s }
consul: { addresses: [%q], token_file: %q, wait: 2s }
services: { star: { consul: {}, balance: { policy: round_robin }, timeouts: { connect: 10s } } } # the machine may be busy
routes: [{ service: star }]
`, s.web, s.admin, c.relay.URL(), c.tokenFile)
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	log := new(subprocess.Output)
	rules := proof.New(nil)
	s.Gateway = verify.Result(gateway.New(gateway.Options{Input: config.Input{File: file}, Version: "test", Log: log, Witness: rules.Witness})).Must(t)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		for _, text := range rules.Violations() {
			s.notice("%s", text)
			t.Error("the proof has found a violation")
		}
		if t.Failed() {
			t.Logf("sluice's log:\n%s", log)
		}
	})
	return s
}

// get sends a request once. It returns the body or the text of the error, and the time until the
// connection was open.
func (s *sluice) get() (answer string, connected time.Duration) {
	begin := time.Now()
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = time.Since(begin) }}
	ctx := httptrace.WithClientTrace(context.Background(), trace)
	got, err := sluicetest.Ask(ctx, s.client, http.MethodGet, "http://"+s.web+"/")
	switch {
	case err != nil:
		return err.Error(), connected
	case got.StatusCode != http.StatusOK:
		return fmt.Sprintf("status %d: %s", got.StatusCode, got.Text), connected
	}
	return got.Text, connected
}

// pool returns the sorted addresses of the peers, with the states of those that are not up.
// It omits draining peers and, unless complete is set, peers that failed on probation.
func (s *sluice) pool(complete bool) []string {
	response, err := s.client.Get("http://" + s.admin + "/api/peers")
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	var peers []admin.Peer
	verify.Succeeds(s.t, json.NewDecoder(response.Body).Decode(&peers))
	pool := []string{}
	for _, p := range peers {
		switch p.State {
		case "up":
			pool = append(pool, p.Address)
		case "draining":
		case "unhealthy":
			if p.Probation == nil || complete {
				pool = append(pool, p.Address+" "+p.State)
			}
		default:
			pool = append(pool, p.Address+" "+p.State)
		}
	}
	slices.Sort(pool)
	return pool
}

type load struct {
	sent, failed atomic.Int64
	longest      atomic.Int64 // in ns
	answered     sync.Map     // the ids of apps that have answered
	stop         func()
}

func (l *load) heardOf(a *app) bool {
	_, ok := l.answered.Load(a.id)
	return ok
}

func (l *load) slowest() time.Duration { return time.Duration(l.longest.Load()) }

// startLoad sends about 100 requests a second until stop, or as many as the machine can.
func (s *sluice) startLoad() *load {
	l := new(load)
	l.stop = sluicetest.Pace(requestEvery, mostRequests, func() { l.send(s) }, func() {})
	s.t.Cleanup(l.stop)
	return l
}

func (l *load) send(s *sluice) {
	l.sent.Add(1)
	begin := time.Now()
	got, connected := s.get()
	duration := time.Since(begin)
	for longest := l.longest.Load(); int64(duration) > longest && !l.longest.CompareAndSwap(longest, int64(duration)); {
		longest = l.longest.Load()
	}
	failed := !strings.HasPrefix(got, "app-")
	if failed {
		l.failed.Add(1)
	} else {
		l.answered.Store(got, true)
	}
	if failed || duration >= slowRequest {
		s.notice("%s: a request took %v, with %v to connect to sluice: %s", begin.UTC().Format(time.RFC3339Nano), duration, connected, got)
	}
}
