//go:build unix

package rolling

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/config"
	"sluice/gateway"
	"sluice/test/consultest"
)

// Settings that lose no request: see docs/rolling.md.
const (
	lossless = `
    retry: { attempts: 3 }
    health: { passive: { consecutive_failures: 3, ejection: 2s, max_ejected: 50% } }
`
	hangSettings = `
    retry: { attempts: 4, per_try_timeout: 1s, hedge: { after: 100ms } }
    health: { passive: { consecutive_failures: 3, ejection: 2s, max_ejected: 50% } }
`
)

// controlService has peers that do not change. The latency of its requests shows the load of
// the machine.
const controlService = "control"

// maxLatency limits a GET, in addition to the time until Consul's check of a hanging instance
// fails, on an idle machine.
const maxLatency = 4 * time.Second

// TestRollingDeploy is described in the package comment.
func TestRollingDeploy(t *testing.T) {
	t.Parallel()
	testRolling(t, func(m mode) string { return cmp.Or(m.settings, lossless) })
}

// TestRollingDeployWithDefaults is the same with default settings.
func TestRollingDeployWithDefaults(t *testing.T) {
	t.Parallel()
	testRolling(t, func(mode) string { return "" })
}

func testRolling(t *testing.T, settings func(mode) string) {
	p := pace{replaced: 4, before: 1500 * time.Millisecond, pause: 300 * time.Millisecond, misbehaved: 4 * time.Second}
	list := modes()
	switch {
	case os.Getenv("SLUICE_ROLLING") == "long":
		p = pace{replaced: 12, before: 10 * time.Second, pause: time.Second, misbehaved: 20 * time.Second}
		for i := range list {
			if list[i].instances == 4 {
				list[i].instances = 12
			}
		}
	case testing.Short():
		p = pace{replaced: 2, before: 500 * time.Millisecond, pause: 100 * time.Millisecond}
		list = slices.DeleteFunc(list, func(m mode) bool { return !slices.Contains([]string{"stop", "abrupt", "hang"}, m.name) })
	}

	agent := consultest.Start(t, consultest.Options{})
	control := startControl(t)
	g := startGateway(t, agent, list, settings, control)
	var outcomes []outcome
	var uses []use
	for _, m := range list {
		run := func(m mode) (outcome, use) {
			registered := watchRegistry(t, agent.Client(), m.name)
			d := &deploy{mode: m, pace: p, t: t, consul: agent.Client(), ledger: newLedger(), direct: control[0]}
			o := d.run(g.Address("web").String(), g.added.of)
			return o, useOf(o, registered(), g.added.times())
		}
		o, u := run(m)
		if o.slowness() > m.check/2 && m.check < patientCheck {
			t.Logf("%s: the machine made a hundredth of a second's work last %v, and Consul's check waits for %v: once more", m.name, o.slowness(), m.check)
			o, u = run(m.again())
		}
		outcomes, uses = append(outcomes, o), append(uses, u)
		o.check(t, g)
	}
	t.Logf("\n%s\n%s", table(outcomes), useTable(uses))
}

// slowness returns the longest duration of 10 ms of work on the machine.
func (o outcome) slowness() time.Duration { return max(o.stall, o.direct) }

// check asserts what must be true on any machine.
func (o outcome) check(t *testing.T, g *runningGateway) {
	const shown = 10
	wrong := 0
	for _, r := range o.control {
		if r.err != nil {
			wrong++
			if wrong <= shown {
				t.Errorf("%s: %s of the service that never changes failed: %v", o.name, r.kind, r.err)
			}
		}
	}
	for _, r := range o.results {
		reached := o.visited(r.id)
		var problem string
		switch {
		case r.err != nil && r.kind.method == "GET":
			problem = "failed"
		case r.err != nil && !o.lost(r.id) && !o.crossed(g.peerOf(o.name, r.id), r.due):
			problem = "failed, though it had reached no instance that died or hung"
		case r.kind.method == "GET" && r.latency > o.mode.check+maxLatency+10*o.slowness():
			problem = fmt.Sprintf("latency %v", r.latency.Round(time.Millisecond))
		case r.kind.method == "POST" && len(reached) > 1:
			problem = "was sent twice"
		default:
			continue
		}
		if wrong++; wrong <= shown {
			t.Errorf("%s: %s (id %d, %s after the roll began) %s: %v; it reached %v\n%s", o.name, r.kind, r.id,
				r.due.Sub(o.rolled).Round(time.Millisecond), problem, r.err, reached, g.accessLogOf(o.name, r.id))
		}
	}
	if wrong > shown {
		t.Errorf("%s: %d more", o.name, wrong-shown)
	}
}

// startControl starts the instances of controlService.
func startControl(t *testing.T) (addresses []string) {
	t.Helper()
	for i := range 2 {
		a, err := startApp(nil, newLedger(), controlService, fmt.Sprintf("%s-%d", controlService, i+1), work)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.stop)
		addresses = append(addresses, a.listener.Addr().String())
	}
	return addresses
}

// runningGateway is the gateway. Each mode is a service and a host with the same name.
type runningGateway struct {
	*gateway.Gateway
	t     *testing.T
	dir   string
	added *additions
}

func startGateway(t *testing.T, agent *consultest.Agent, list []mode, settings func(mode) string, control []string) *runningGateway {
	t.Helper()
	g := &runningGateway{t: t, dir: t.TempDir(), added: &additions{known: make(map[string]time.Time), count: make(map[string]int)}}
	var text strings.Builder
	fmt.Fprintf(&text, "listeners: [{ name: web, address: '127.0.0.1:0' }]\nadmin: { address: '127.0.0.1:0' }\n")
	fmt.Fprintf(&text, "access_log: { path: %q }\nlog: { format: json }\nconsul: { addresses: [%q] }\n", g.accessLog(), agent.URL())
	services := fmt.Sprintf("services:\n  %s: { peers: [%q, %q] }\n", controlService, control[0], control[1])
	routes := fmt.Sprintf("routes:\n  - { host: %s, service: %s }\n", controlService, controlService)
	for _, m := range list {
		for _, m := range []mode{m, m.again()} {
			services += fmt.Sprintf("  %s:\n    consul: {}\n%s", m.name, settings(m))
			routes += fmt.Sprintf("  - { host: %s, service: %s }\n", m.name, m.name)
		}
	}
	text.WriteString(services + routes)
	file := filepath.Join(g.dir, "sluice.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	g.Gateway, err = gateway.New(gateway.Options{Input: config.Input{File: file}, Version: "test", Log: g.added})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		g.Cut()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", g.added.text())
		}
	})
	return g
}

func (g *runningGateway) accessLog() string { return filepath.Join(g.dir, "access.log") }

// peerOf returns the address of the last peer of a request, from the access log.
func (g *runningGateway) peerOf(service string, id int) string {
	var entry struct{ Peer string }
	_ = json.Unmarshal([]byte(g.accessLogOf(service, id)), &entry)
	return entry.Peer
}

// accessLogOf returns the line of a request in the access log.
func (g *runningGateway) accessLogOf(service string, id int) string {
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		data, err := os.ReadFile(g.accessLog())
		if err != nil {
			return err.Error()
		}
		for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
			var entry struct{ Host, Target string }
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Host == service && entry.Target == fmt.Sprintf("/%d", id) {
				return lines.Text()
			}
		}
	}
	return "it is not in the access log"
}

// additions collects the times of added peers from the log of the gateway. Its methods may be
// called concurrently.
type additions struct {
	mu    sync.Mutex // guards the fields below
	log   bytes.Buffer
	known map[string]time.Time // by id of the instance
	count map[string]int       // by service
}

func (a *additions) Write(line []byte) (int, error) {
	now := time.Now()
	var event struct{ Message, Service, Peer string }
	added := json.Unmarshal(line, &event) == nil && event.Message == "peer added"
	a.mu.Lock()
	defer a.mu.Unlock()
	if added {
		if a.known[event.Peer].IsZero() {
			a.known[event.Peer] = now
		}
		a.count[event.Service]++
	}
	return a.log.Write(line)
}

// of returns the number of peers that were added to a service.
func (a *additions) of(service string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count[service]
}

// times returns when each instance was added.
func (a *additions) times() map[string]time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.known)
}

func (a *additions) text() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.String()
}

// watchRegistry queries the passing instances of a service in Consul, like the gateway, until
// registered is called, which returns the time of the first answer with each instance.
func watchRegistry(t *testing.T, consul *api.Client, service string) (registered func() map[string]time.Time) {
	ctx, cancel := context.WithCancel(t.Context())
	first := make(map[string]time.Time)
	var watching sync.WaitGroup
	watching.Go(func() {
		query := (&api.QueryOptions{}).WithContext(ctx)
		for ctx.Err() == nil {
			entries, meta, err := consul.Health().Service(service, "", true, query)
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("watch %s: %v", service, err)
				}
				return
			}
			now := time.Now()
			for _, entry := range entries {
				if first[entry.Service.ID].IsZero() {
					first[entry.Service.ID] = now
				}
			}
			query.WaitIndex = meta.LastIndex
		}
	})
	stop := sync.OnceFunc(func() {
		cancel()
		watching.Wait()
	})
	t.Cleanup(stop)
	return func() map[string]time.Time {
		stop()
		return first
	}
}
