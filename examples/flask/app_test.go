package flask

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/sluicetest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// envRequired makes the test fail, instead of being skipped, where Flask is not
// installed.
const envRequired = "SLUICE_REQUIRE_FLASK"

// python returns an interpreter that has the two packages which app.py needs.
// Debian's packages belong to /usr/bin/python3, which need not be the first on
// PATH.
func python(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(program, "-c", "import flask, consul").Run() == nil {
			return program
		}
	}
	const message = "no Python with flask and consul; on Debian: apt-get install python3-flask python3-consul"
	verify.Require(t, os.Getenv(envRequired) == "", "%v", message)
	t.Skip(message)
	return ""
}

// startApp runs app.py and returns its id.
func startApp(t *testing.T, python string, agent *consultest.Agent) (id string, p *subprocess.Process) {
	t.Helper()
	port := strconv.Itoa(consultest.ReservePort(t))
	var log bytes.Buffer
	p, err := subprocess.Start(subprocess.Options{
		Program: python,
		Args:    []string{"app.py", port},
		Env:     []string{"CONSUL_HTTP_ADDR=" + agent.HTTPAddress()},
		Output:  &log,
	})
	verify.NoError(t, err)
	t.Cleanup(func() {
		verify.Succeeds(t, p.Kill())
		if t.Failed() {
			t.Logf("app.py %s:\n%s", port, log.String())
		}
	})
	return "star-" + port, p
}

// configuration writes a file with blocking queries that are longer than the test.
func configuration(t *testing.T, agent *consultest.Agent) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	text := fmt.Sprintf("consul: { addresses: [%q], wait: 10m }\nservices: { star: { consul: {} } }\nroutes: [{ service: star }]\n", agent.URL())
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// passing returns the ids of the passing instances in Consul, or nil after an error.
func passing(agent *consultest.Agent) map[string]bool {
	entries, _, err := agent.Client().Health().Service("star", "", true, nil)
	if err != nil {
		return nil
	}
	ids := map[string]bool{}
	for _, e := range entries {
		ids[e.Service.ID] = true
	}
	return ids
}

// TestFlaskApps runs sluice with unmodified applications: 503 without an instance, requests
// to all instances when they pass in Consul, and one killed under load without a failed
// request.
func TestFlaskApps(t *testing.T) {
	long.Test(t)
	python := python(t)
	agent := consultest.Start(t, consultest.Options{})
	sluice := sluicetest.Run(t, "--config", configuration(t, agent))

	response := verify.Result(http.Get(sluice.URL())).Must(t)
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("X-Sluice-Reason") == "" {
		t.Errorf("before there is an instance: %s, reason %q, %q, %v; want 503 with a reason",
			response.Status, response.Header.Get("X-Sluice-Reason"), body, err)
	}

	apps := map[string]*subprocess.Process{}
	var victim string
	for range 3 {
		id, p := startApp(t, python, agent)
		apps[id] = p
		victim = id
	}
	peer := func(id string) (found sluicetest.Peer) {
		peers := verify.Result(sluice.Peers(t.Context())).Must(t)
		for _, p := range peers {
			if p.ID == id {
				found = p
			}
		}
		return found
	}
	consultest.Await(t, "three instances pass", func() bool { return len(passing(agent)) == 3 })
	for id := range apps {
		consultest.AwaitPromptly(t, id+" is up", func() bool { return peer(id).State == "up" })
	}

	const perSecond = 100
	load := sluicetest.StartLoad(sluice.URL(), perSecond)
	consultest.Await(t, "all three apps answer", func() bool { return len(load.Count().ByApp) == 3 })
	verify.NoError(t, apps[victim].Kill())
	killed := time.Now()
	consultest.Await(t, "Consul's check finds "+victim+" dead", func() bool { ids := passing(agent); return ids != nil && !ids[victim] })
	consultest.AwaitPromptly(t, victim+" is out", func() bool { return peer(victim).State != "up" })
	consultest.Await(t, "nothing is in flight to "+victim, func() bool { return peer(victim).Inflight == 0 })
	out, before := peer(victim), load.Count()
	consultest.Await(t, "a second's load more", func() bool { return load.Count().Requests >= before.Requests+perSecond })
	load.Stop()
	count := load.Count()
	t.Logf("%d requests, %d more were not sent because %d were under way", count.Requests, count.Unsent, perSecond)
	verify.That(t, count.Failed <= 0, "%d of %d requests failed: %q", count.Failed, count.Requests, count.Failures)
	if sent := count.LastSent[victim]; sent.After(killed) {
		t.Errorf("%s answered a request that was sent %v after it was dead", victim, sent.Sub(killed))
	}
	p := peer(victim)
	verify.That(t, p.Requests <= out.Requests, "%s got %d requests while it was out", victim, p.Requests-out.Requests)
	for id := range apps {
		if id != victim {
			consultest.Await(t, id+", which lives, is up", func() bool { return peer(id).State == "up" })
		}
	}
}
