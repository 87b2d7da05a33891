//go:build unix

package rolling

import (
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// methodMix has requests of every method with an answer that has a body.
var methodMix = mix{
	getKept, postKept, {plain, "PUT", 200, false}, {plain, "DELETE", 0, false}, {plain, "PATCH", 200, false}, getFresh,
	postFresh, {plain, "PUT", 200, true}, {plain, "DELETE", 0, true}, {plain, "OPTIONS", 0, false}, largeKept, {plain, "PATCH", 200, true},
}

// registeredApp is an app that "sluice register" runs, both in processes of their own.
type registeredApp struct {
	*subprocess.Process
	id     string
	output *subprocess.Output
}

func startRegistered(t *testing.T, consulURL, service string) *registeredApp {
	t.Helper()
	port := strconv.Itoa(consultest.ReservePort(t))
	a := &registeredApp{id: service + "-127.0.0.1-" + port, output: new(subprocess.Output)}
	a.Process = verify.Result(subprocess.Start(subprocess.Options{
		Program: os.Args[0],
		Args: []string{
			"register", "--name", service, "--port", port, "--address", "127.0.0.1", "--consul", consulURL,
			"--http", "/health", "--timeout", patientCheck.String(), "--stop-timeout", "1m",
			"--", "env", envRole + "=app", os.Args[0], "127.0.0.1:" + port,
		},
		Env:         []string{envRole + "=sluice"},
		Output:      a.output,
		DeathSignal: syscall.SIGTERM,
	})).Must(t)
	t.Cleanup(func() {
		_ = a.Kill() // the app ends with it
		if t.Failed() {
			t.Logf("output of %s:\n%s", a.id, a.output)
		}
	})
	return a
}

// TestRollingDeployOfRegisteredApps replaces ten apps that know nothing of Consul, two at a
// time, with default settings. No request fails, whatever its method.
func TestRollingDeployOfRegisteredApps(t *testing.T) {
	t.Parallel()
	long.Test(t)
	m := mode{traffic: traffic{http1Peers, methodMix, 240, 0}, name: "registered", instances: 10, patient: true}
	replaced := m.instances
	r := startRolls(t, pace{}, []mode{m}, "")
	start := func() *registeredApp { return startRegistered(t, r.agent.URL(), m.name) }
	awaitUse := func(a *registeredApp) {
		t.Helper()
		consultest.Await(t, a.id+" is in the pool", func() bool { return !r.gateway.added.times()[a.id].IsZero() })
	}
	var apps []*registeredApp
	for range m.instances {
		apps = append(apps, start())
	}
	for _, a := range apps {
		awaitUse(a)
	}
	l := startLoad(r.gateway.target(m.name), m.mix, m.perSecond)
	stopLoad := sync.OnceValue(l.stop)
	defer stopLoad()
	begin := time.Now()
	var leaving sync.WaitGroup
	for pair := range slices.Chunk(apps[:replaced], 2) {
		var fresh []*registeredApp
		for range pair {
			fresh = append(fresh, start())
		}
		for i, old := range pair {
			awaitUse(fresh[i])
			leaving.Go(func() {
				verify.Succeeds(t, old.Stop())
				if err := old.Err(); err != nil {
					t.Errorf("%s: %v", old.id, err)
				}
			})
		}
	}
	leaving.Wait()
	took := time.Since(begin)
	results := stopLoad()
	failed := 0
	for _, result := range results {
		if result.err == nil {
			continue
		}
		if failed++; failed <= 10 {
			t.Errorf("%s (id %d, %v after the roll began): %v\n%s", result.kind, result.id, result.due.Sub(begin).Round(time.Millisecond),
				result.err, r.gateway.accessLogOf(m.name, result.kind.path(result.id), time.Now()))
		}
	}
	t.Logf("%d of %d apps replaced in %v: %d requests, %d failed", replaced, m.instances, took.Round(time.Millisecond), len(results), failed)
}
