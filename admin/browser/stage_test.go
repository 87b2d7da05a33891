package browser

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/sluicetest"
	"sluice/test/verify"
)

// options of a sluice that a test runs.
type options struct {
	services  string // the file's text from "services:" on
	admin     string // keys of "admin"
	consul    string // further keys of "consul"
	url       string // of Consul, if it is not the agent itself
	listeners bool   // services has its own ones
}

// gateway is a running sluice, and how to run it again.
type gateway struct {
	*sluicetest.Sluice
	file string
	args sluicetest.Options
}

// startSluice runs sluice until t ends.
func startSluice(t *testing.T, o options) *gateway {
	t.Helper()
	if o.url == "" {
		o.url = consul.URL()
	}
	dir := t.TempDir()
	g := &gateway{file: filepath.Join(dir, "sluice.yaml")}
	const head = "access_log: { path: off }\nshutdown: { delay: 0s, grace: 1s }\n" +
		"admin: { %s }\nconsul: { addresses: [%q]%s }\n"
	g.write(t, fmt.Sprintf(head, o.admin, o.url, o.consul)+o.services)
	g.args = sluicetest.Options{
		Program: program, Admin: fmt.Sprint("127.0.0.1:", consultest.ReservePort(t)),
		Args: []string{"--config", g.file}, Log: filepath.Join(dir, "sluice.log"),
	}
	if !o.listeners {
		g.args.Listen = sluicetest.Any
	}
	g.start(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of sluice's log:\n%s", g.LogTail(20))
		}
		if err := g.Stop(); err != nil {
			t.Errorf("stop sluice: %v", err)
		}
	})
	return g
}

// start runs sluice, also again: then with the same address of the admin page.
func (g *gateway) start(t *testing.T) {
	t.Helper()
	if g.Sluice != nil {
		g.args.Admin = strings.TrimPrefix(g.AdminURL(), "http://")
	}
	g.Sluice = verify.Result(sluicetest.Start(t.Context(), g.args)).Must(t)
}

// write replaces the configuration's text.
func (g *gateway) write(t *testing.T, text string) {
	t.Helper()
	writeFile(t, g.file+".new", text)
	verify.NoError(t, os.Rename(g.file+".new", g.file))
}

// read returns the configuration's text.
func (g *gateway) read(t *testing.T) string {
	t.Helper()
	return string(verify.Result(os.ReadFile(g.file)).Must(t))
}

// send sends n requests, which must succeed, and returns the answers.
func (g *gateway) send(t *testing.T, n int) (answers []string) {
	t.Helper()
	for range n {
		status, body, err := fetch(g.URL())
		ok := err == nil && status == http.StatusOK
		verify.Require(t, ok, "request through sluice: %d %s, %v", status, body, err)
		answers = append(answers, body)
	}
	return answers
}

// startHandler runs an app until t ends, and returns its port.
func startHandler(t *testing.T, handler http.HandlerFunc) int {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}

// startApp runs an app that answers with its name.
func startApp(t *testing.T, name string) int {
	t.Helper()
	return startHandler(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
}

// startStatus runs an app that answers with a status.
func startStatus(t *testing.T, status int) int {
	t.Helper()
	return startHandler(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

// register registers an instance that passes its check, until t ends.
func register(t *testing.T, r api.AgentServiceRegistration) {
	t.Helper()
	r.Address = "127.0.0.1"
	r.Check = &api.AgentServiceCheck{CheckID: "ttl:" + r.ID, TTL: "1h", Status: api.HealthPassing}
	verify.NoError(t, consul.Client().Agent().ServiceRegister(&r))
	t.Cleanup(func() { deregister(t, r.ID) })
}

func deregister(t *testing.T, id string) {
	t.Helper()
	if err := consul.Client().Agent().ServiceDeregister(id); err != nil && !strings.Contains(err.Error(), "Unknown service ID") {
		t.Error(err)
	}
}

// post sends an order without the browser.
func post(t *testing.T, url string) {
	t.Helper()
	answer := verify.Result(http.Post(url, "", nil)).Must(t)
	answer.Body.Close()
	verify.Require(t, answer.StatusCode == http.StatusOK, "%s: %s", url, answer.Status)
}

// check sets what Consul's check of an instance says.
func check(t *testing.T, id, status, output string) {
	t.Helper()
	verify.NoError(t, consul.Client().Agent().UpdateTTL("ttl:"+id, output, status))
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	verify.NoError(t, os.WriteFile(name, []byte(text), 0o600))
}
