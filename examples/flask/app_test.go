package flask

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"sluice/consultest"
	"sluice/examples/sluicetest"
	"sluice/subprocess"
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
	if os.Getenv(envRequired) != "" {
		t.Fatal(message)
	}
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
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Errorf("kill app.py: %v", err)
		}
		if t.Failed() {
			t.Logf("app.py %s:\n%s", port, log.String())
		}
	})
	return "star-" + port, p
}

// TestFlaskApps is the whole job with an application that knows nothing of
// sluice: 503 before there is an instance, all of them served once they are
// healthy, and one killed under load without a failed request.
func TestFlaskApps(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Consul, three Flask apps and sluice")
	}
	python := python(t)
	agent := consultest.Start(t, consultest.Options{})
	sluice := sluicetest.Run(t, "--service", "star", "--consul", agent.URL())

	response, err := http.Get(sluice.URL())
	if err != nil {
		t.Fatal(err)
	}
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
	up := func() map[string]bool {
		peers, err := sluice.Peers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string]bool{}
		for _, p := range peers {
			if p.State == "up" {
				ids[p.ID] = true
			}
		}
		return ids
	}
	consultest.Await(t, "three peers to be up", func() bool { return len(up()) == 3 })

	load := sluicetest.StartLoad(sluice.URL(), 30) // Flask's own server is slow
	consultest.Await(t, "all three apps to answer", func() bool { return len(load.Count().ByApp) == 3 })
	if err := apps[victim].Kill(); err != nil {
		t.Fatal(err)
	}
	consultest.Await(t, "Consul's check to take "+victim+" out", func() bool { return !up()[victim] })
	before := load.Count()
	consultest.Await(t, "more of the load", func() bool { return load.Count().Requests >= before.Requests+30 })
	load.Stop()
	count := load.Count()
	if count.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", count.Failed, count.Requests, count.Failures)
	}
	consultest.Await(t, "the two that live to be up", func() bool { return len(up()) == 2 && !up()[victim] })
}
