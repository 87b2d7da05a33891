//go:build unix

package rolling

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
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
	"sluice/test/long"
	"sluice/test/proof"
	"sluice/test/subprocess"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// Settings that lose no request: see docs/performance.md. %s is for further keys of retry.
const (
	lossless = `
    retry: { attempts: 3%s }
    health: { passive: { consecutive_failures: 3, ejection: 2s, max_ejected: 50% } }
`
	hangSettings = `
    retry: { attempts: 4, per_try_timeout: 1s%s }
    health: { passive: { consecutive_failures: 3, ejection: 2s, max_ejected: 50% } }
`
	// patientHangSettings are for a machine on which a working instance may need seconds.
	patientHangSettings = `
    retry: { attempts: 5, per_try_timeout: 5s%s }
    health: { passive: { consecutive_failures: 3, ejection: 2s, max_ejected: 50% } }
`
)

// These are for a machine that has too much to do: what it delays is not cut.
const (
	clientPatience  = "client: { timeouts: { head: 2m, body: 2m, write: 2m, idle: 1h } }\n" // a client reuses each idle connection
	servicePatience = "    timeouts: { connect: 30s, response_header: 2m }\n    drain: { timeout: 10m }\n"
)

// controlService has peers that do not change. The latency of its requests shows the load of
// the machine.
const controlService = "control"

// maxLatency limits a GET, in addition to the time until Consul's check of a hanging instance
// fails, on an idle machine.
const maxLatency = 4 * time.Second

func TestRollingDeploy(t *testing.T) {
	t.Parallel()
	long.Test(t)
	testRolling(t, plainTraffic, lossless)
}

// TestRollingDeployWithDefaults is the same with default settings.
func TestRollingDeployWithDefaults(t *testing.T) {
	t.Parallel()
	long.Test(t)
	testRolling(t, plainTraffic, "")
}

// TestRollingDeployHTTPS is the same with clients of HTTPS, HTTP/3, HTTP/2 and HTTP/1.1.
func TestRollingDeployHTTPS(t *testing.T) {
	t.Parallel()
	long.Test(t)
	testRollingTogether(t, traffic{http1Peers, httpMix, 30, 15})
}

// TestRollingDeployHTTP2 is TestRollingDeployHTTPS with HTTP/2 over TLS to the instances.
func TestRollingDeployHTTP2(t *testing.T) {
	t.Parallel()
	long.Test(t)
	testRollingTogether(t, traffic{http2Peers, httpMix, 30, 15})
}

// TestRollingDeployGRPC is the same with calls of gRPC. Streams of an instance that leaves
// are not cut.
func TestRollingDeployGRPC(t *testing.T) {
	t.Parallel()
	long.Test(t)
	testRollingTogether(t, traffic{grpcPeers, grpcMix, 24, 15})
}

// traffic is a load, and the protocol of the instances that serve it.
type traffic struct {
	peers     peerProtocol
	mix       mix
	perSecond int // requests in total
	control   int // requests a second to peers that never change
}

var plainTraffic = traffic{http1Peers, plainMix, 300, 60}

func paceOf(list []mode) (pace, []mode) {
	if os.Getenv("SLUICE_ROLLING") == "long" {
		for i := range list {
			if list[i].instances == 4 {
				list[i].instances = 12
			}
		}
		return pace{replaced: 12, before: 10 * time.Second, pause: time.Second, misbehaved: 20 * time.Second}, list
	}
	return pace{replaced: 3, before: time.Second, pause: 300 * time.Millisecond, misbehaved: 4 * time.Second}, list
}

// testRolling runs one mode after the other, so that their latencies can be compared.
func testRolling(t *testing.T, with traffic, settings string) {
	p, list := paceOf(modes(with))
	if settings == "" {
		for i := range list {
			list[i].settings = ""
		}
	}
	r := startRolls(t, p, list, settings)
	var outcomes []outcome
	var uses []use
	for _, m := range list {
		o, u := r.run(t, m)
		outcomes, uses = append(outcomes, o), append(uses, u)
	}
	t.Logf("\n%s\n%s", table(outcomes), useTable(uses))
}

// testRollingTogether runs all modes at the same time, except slow.
func testRollingTogether(t *testing.T, with traffic) {
	p, list := paceOf(modes(with))
	list = slices.DeleteFunc(list, func(m mode) bool { return m.name == "slow" })
	p.misbehaved = 0
	for i := range list {
		list[i].patient = true
	}
	r := startRolls(t, p, list, lossless)
	outcomes := make([]outcome, len(list))
	var running sync.WaitGroup
	for i, m := range list { // t.Parallel would limit how many run
		running.Go(func() {
			t.Run(m.name, func(t *testing.T) { outcomes[i], _ = r.run(t, m) })
		})
	}
	running.Wait()
	t.Logf("\n%s", table(outcomes))
}

// rolls runs modes against one gateway.
type rolls struct {
	pace    pace
	agent   *consultest.Agent
	control []string // addresses of the instances that never change
	gateway *runningGateway
}

func startRolls(t *testing.T, p pace, list []mode, settings string) *rolls {
	t.Helper()
	r := &rolls{pace: p, agent: consultest.Start(t, consultest.Options{}), control: startControl(t)}
	r.gateway = startGateway(t, r, list, settings)
	return r
}

// run runs a mode, checks its outcome, and logs it.
func (r *rolls) run(t *testing.T, m mode) (outcome, use) {
	t.Helper()
	run := func(m mode) (outcome, use) {
		registered := watchRegistry(t, r.agent.Client(), m.name)
		d := &deploy{mode: m, pace: r.pace, t: t, consul: r.agent.Client(), ledger: newLedger(), direct: r.control[0]}
		o := d.run(r.gateway)
		return o, useOf(o, registered(), r.gateway.added.times())
	}
	o, u := run(m)
	if o.slowness() > m.shortest()/2 && m.shortest() < patientCheck {
		t.Logf("%s: the machine made a hundredth of a second's work last %v, and a timeout is %v: once more", m.name, o.slowness(), m.shortest())
		o, u = run(m.withPatience())
	}
	o.check(t, r.gateway)
	return o, u
}

// slowness returns the longest duration of 10 ms of work on the machine.
func (o outcome) slowness() time.Duration { return max(o.stall, o.direct) }

// check asserts what must be true on any machine.
func (o outcome) check(t *testing.T, g *runningGateway) {
	const shown = 10
	wrong := 0
	logged := time.Now().Add(30 * time.Second) // the time until all lines are in the access log
	for _, r := range o.control {
		if r.err != nil {
			wrong++
			verify.That(t, wrong > shown, "%s: %s of the service that never changes failed: %v", o.name, r.kind, r.err)
		}
	}
	for _, r := range o.results {
		reached := o.visited(r.id)
		var problem string
		switch {
		case errors.Is(r.err, errHalf) && o.peers.parts && o.crossed(g.peerOf(o.name, r.kind.path(r.id), logged), r.due):
			continue // nobody can send it again: its client has the beginning
		case r.err != nil && r.kind.repeatable():
			problem = "failed"
		case r.err != nil && !o.lost(r.id) && !o.crossed(g.peerOf(o.name, r.kind.path(r.id), logged), r.due):
			problem = "failed, though it had reached no instance that died or hung"
		case r.kind.repeatable() && r.latency > o.mode.check+maxLatency+10*o.slowness():
			problem = fmt.Sprintf("latency %v", r.latency.Round(time.Millisecond))
		case !r.kind.repeatable() && len(reached) > 1:
			problem = "was sent twice"
		default:
			continue
		}
		if wrong++; wrong <= shown {
			t.Errorf("%s: %s (id %d, %s after the roll began) %s: %v; it reached %v\n%s", o.name, r.kind, r.id,
				r.due.Sub(o.rolled).Round(time.Millisecond), problem, r.err, reached, g.accessLogOf(o.name, r.kind.path(r.id), logged))
		}
	}
	verify.That(t, wrong <= shown, "%s: %d more", o.name, wrong-shown)
}

func startControl(t *testing.T) (addresses []string) {
	t.Helper()
	for i := range 2 {
		a := verify.Result(startApp(nil, newLedger(), http1Peers, controlService, fmt.Sprintf("%s-%d", controlService, i+1), work)).Must(t)
		t.Cleanup(a.stop)
		addresses = append(addresses, a.address())
	}
	return addresses
}

// runningGateway is the gateway. Each mode is a service and a host with the same name.
type runningGateway struct {
	*gateway.Gateway
	t           *testing.T
	web, secure string // addresses
	dir         string
	trust       *x509.CertPool // the certificate of its clients
	added       *additions
}

func startGateway(t *testing.T, r *rolls, list []mode, settings string) *runningGateway {
	t.Helper()
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", consultest.ReservePort(t)) }
	g := &runningGateway{
		t: t, web: address(), secure: address(), dir: t.TempDir(), trust: x509.NewCertPool(),
		added: &additions{known: make(map[string]time.Time)},
	}
	hosts := []string{controlService}
	for _, m := range list {
		hosts = append(hosts, m.name, m.withPatience().name)
	}
	files := testcert.Write(t, g.dir, controlService, func(c *x509.Certificate) { c.DNSNames = hosts })
	pem := verify.Result(os.ReadFile(files.Cert)).Must(t)
	verify.Require(t, g.trust.AppendCertsFromPEM(pem), "%s is no certificate", files.Cert)
	text := fmt.Sprintf("listeners:\n  - { name: web, address: %q }\n  - { name: websecure, address: %q, http3: true, tls: { certificates: [{ cert: %q, key: %q }] } }\nadmin: { address: '127.0.0.1:0' }\n", g.web, g.secure, files.Cert, files.Key)
	text += fmt.Sprintf("access_log: { path: %q }\nlog: { format: json }\nconsul: { addresses: [%q] }\n", g.accessLog(), r.agent.URL())
	services := fmt.Sprintf("services:\n  %s:\n    peers: [%q, %q]\n%s", controlService, r.control[0], r.control[1], servicePatience)
	routes := fmt.Sprintf("routes:\n  - { host: %s, service: %s }\n", controlService, controlService)
	for _, m := range list {
		variants := []mode{m}
		if m.shortest() < patientCheck {
			variants = append(variants, m.withPatience())
		}
		for _, m := range variants {
			services += fmt.Sprintf("  %s:\n    consul: {}\n%s%s", m.name, m.peers.upstream,
				strings.ReplaceAll(cmp.Or(m.settings, settings), "%s", m.peers.retry))
			if m.patient {
				services += servicePatience
			}
			routes += fmt.Sprintf("  - { host: %s, service: %s }\n", m.name, m.name)
		}
	}
	file := filepath.Join(g.dir, "sluice.yaml")
	verify.NoError(t, os.WriteFile(file, []byte(text+clientPatience+services+routes), 0o600))
	rules := proof.New(nil)
	g.Gateway = verify.Result(gateway.New(gateway.Options{Input: config.Input{File: file}, Version: "test", Log: g.added, Witness: rules.Witness})).Must(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		g.Cut()
		verify.Succeeds(t, <-ended)
		verify.That(t, rules.Violations() == nil, "the proof has found violations: %q", rules.Violations())
		if t.Failed() {
			t.Logf("log:\n%s", g.added)
		}
	})
	return g
}

func (g *runningGateway) accessLog() string { return filepath.Join(g.dir, "access.log") }

// target returns where a load of a service goes.
func (g *runningGateway) target(service string) target {
	return target{
		address: g.web, secure: g.secure,
		tls: &tls.Config{RootCAs: g.trust, ServerName: service}, host: service,
	}
}

// peerOf returns the address of the last peer of a request, from the access log.
func (g *runningGateway) peerOf(service, path string, logged time.Time) string {
	var entry struct{ Peer string }
	_ = json.Unmarshal([]byte(g.accessLogOf(service, path, logged)), &entry)
	return entry.Peer
}

// accessLogOf returns the line of a request in the access log, which it awaits until logged.
func (g *runningGateway) accessLogOf(service, path string, logged time.Time) string {
	for {
		data, err := os.ReadFile(g.accessLog())
		if err != nil {
			return err.Error()
		}
		for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
			if !bytes.Contains(lines.Bytes(), []byte(path)) {
				continue
			}
			var entry struct{ Host, Target string }
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Host == service && entry.Target == path {
				return lines.Text()
			}
		}
		if time.Now().After(logged) {
			return "it is not in the access log"
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// additions collects the times of added peers from the log of the gateway. Its methods may be
// called concurrently.
type additions struct {
	subprocess.Output

	mu    sync.Mutex           // guards the field below
	known map[string]time.Time // by id of the instance
}

func (a *additions) Write(line []byte) (int, error) {
	now := time.Now()
	var event struct{ Message, Peer string }
	if json.Unmarshal(line, &event) == nil && event.Message == "peer added" {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.known[event.Peer].IsZero() {
			a.known[event.Peer] = now
		}
	}
	return a.Output.Write(line)
}

func (a *additions) has(all []*app) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !slices.ContainsFunc(all, func(i *app) bool { return a.known[i.id].IsZero() })
}

func (a *additions) times() map[string]time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.known)
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
				verify.That(t, ctx.Err() != nil, "watch %s: %v", service, err)
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
