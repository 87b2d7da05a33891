package migration

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/bench/machine"
	"sluice/test/consultest"
	"sluice/test/pinned"
	"sluice/test/sluicetest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// patience limits waiting, far above its usual duration.
const patience = 2 * time.Minute

// comparison is a set of apps, and of requests to sluice and to another load balancer in front of
// them.
type comparison struct {
	peer     func(t *testing.T, address string, consul *consultest.Agent) subprocess.Options // listens on address
	sluice   string                                                                          // the dialect: entry of catalog.tags
	settings string                                                                          // more keys of catalog
	apps     []app
	status   map[string]string // of the check of an app, by its name; passing if it is not there
	requests []request
}

// request is one of a comparison. Answers are as ask returns them.
type request struct {
	line   string   // "METHOD HOST/PATH"
	fields []string // each "NAME: VALUE"
	secure bool     // over TLS
	body   string
	want   string // the answer of the other load balancer
	sluice string // the answer of sluice, where it is another one: docs/migration.md says why
}

// start runs all until the test ends, and returns the addresses of both load balancers.
func (c comparison) start(t *testing.T) (peer, sluice string) {
	consul := consultest.Start(t, consultest.Options{})
	for _, a := range c.apps {
		a.start(t, consul, cmp.Or(c.status[a.name], api.HealthPassing))
	}
	addresses := verify.Result(machine.FreeAddresses(1)).Must(t)
	startPeer(t, c.peer(t, addresses[0], consul))
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	process := startSluice(t, file, fmt.Sprintf(`
listeners: [{ name: web, address: "127.0.0.1:0" }]
consul: { addresses: [%q] }
shutdown: { delay: 0s }
catalog:
  tags: [%s]
  claims: [{ service: "*", hosts: ["*"] }]
%s`, "http://"+consul.HTTPAddress(), c.sluice, c.settings))
	return addresses[0], process.Address("web")
}

// run compares.
func (c comparison) run(t *testing.T) {
	peer, sluice := c.start(t)
	// The tables have the routes some time after the registrations.
	for _, address := range []string{peer, sluice} {
		for _, r := range c.requests {
			if r.sluice == "" && strings.HasPrefix(r.want, "200 ") {
				await(t, address, r)
			}
		}
	}
	for _, r := range c.requests {
		check(t, "the other one", peer, r, r.want)
		check(t, "sluice", sluice, r, cmp.Or(r.sluice, r.want))
	}
}

// check asks once.
func check(t *testing.T, who, address string, r request, want string) {
	t.Helper()
	got, err := ask(address, r)
	if err != nil {
		t.Errorf("%s: %s: %v", r.line, who, err)
	} else if got != want {
		t.Errorf("%s %q: %s answers\n  %s, not\n  %s", r.line, r.fields, who, got, want)
	}
}

// await asks until a table has the route.
func await(t *testing.T, address string, r request) {
	t.Helper()
	consultest.Await(t, r.line+" at "+address, func() bool {
		got, err := ask(address, r)
		return err == nil && got != "404" && got != "503"
	})
}

// program returns the path of a program that a nested module pins.
func program(t *testing.T, p pinned.Program) string {
	t.Helper()
	return verify.Result(p.Binary(t.Context(), os.Stderr)).Must(t)
}

// startPeer runs a program until the test ends.
func startPeer(t *testing.T, o subprocess.Options) *subprocess.Process {
	t.Helper()
	tail := subprocess.NewTail(8 << 10)
	o.Output = tail
	p := verify.Result(subprocess.Start(o)).Must(t)
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Logf("stop %s: %v", o.Program, err)
		}
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", o.Program, tail)
		}
	})
	return p
}

// buildSluice returns the path of a sluice that it builds.
func buildSluice(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	verify.Require(t, err == nil, "go build: %v\n%s", err, out)
	return path
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	verify.NoError(t, os.WriteFile(name, []byte(text), 0o600))
}

// startSluice runs sluice with a configuration until the test ends.
func startSluice(t *testing.T, file, configuration string) *sluicetest.Sluice {
	t.Helper()
	writeFile(t, file, configuration)
	sluice := verify.Result(sluicetest.Start(t.Context(), sluicetest.Options{
		Program: buildSluice(t), Admin: sluicetest.Any, Args: []string{"--config", file}, Log: filepath.Join(t.TempDir(), "log"),
	})).Must(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of sluice's log:\n%s", sluice.LogTail(20))
		}
		verify.Succeeds(t, sluice.Stop())
	})
	// Before, it does not know which routes there are.
	verify.NoError(t, sluice.Await(t.Context(), patience, "sluice is ready", func(ctx context.Context) (bool, error) {
		var ready struct{ Ready bool }
		return sluice.Get(ctx, "/readyz", &ready) == nil && ready.Ready, nil
	}))
	return sluice
}
