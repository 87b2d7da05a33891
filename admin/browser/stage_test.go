package browser

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/sluicetest"
)

// options of a sluice that a test runs.
type options struct {
	services string // the file's text from "services:" on
	admin    string // keys of "admin"
	consul   string // further keys of "consul"
	url      string // of Consul, if it is not the agent itself
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
	g.write(t, fmt.Sprintf("access_log: { path: off }\nshutdown: { delay: 0s }\nadmin: { %s }\nconsul: { addresses: [%q]%s }\n", o.admin, o.url, o.consul)+o.services)
	g.args = sluicetest.Options{
		Program: program, Listen: sluicetest.Any, Admin: fmt.Sprint("127.0.0.1:", consultest.ReservePort(t)),
		Args: []string{"--config", g.file}, Log: filepath.Join(dir, "sluice.log"),
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
	s, err := sluicetest.Start(t.Context(), g.args)
	if err != nil {
		t.Fatal(err)
	}
	g.Sluice = s
}

// write replaces the configuration's text.
func (g *gateway) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(g.file+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(g.file+".new", g.file); err != nil {
		t.Fatal(err)
	}
}

// read returns the configuration's text.
func (g *gateway) read(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(g.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// send sends n requests, which must succeed, and returns the answers.
func (g *gateway) send(t *testing.T, n int) (answers []string) {
	t.Helper()
	for range n {
		status, body, err := fetch(g.URL())
		if err != nil || status != http.StatusOK {
			t.Fatalf("request through sluice: %d %s, %v", status, body, err)
		}
		answers = append(answers, body)
	}
	return answers
}

// startApp runs an app that answers with its name until t ends, and returns its
// port.
func startApp(t *testing.T, name string) int {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// startStatus runs an app that answers with a status until t ends, and returns its URL.
func startStatus(t *testing.T, status int) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	t.Cleanup(server.Close)
	return server.URL
}

// register registers an instance that passes its check, until t ends.
func register(t *testing.T, r api.AgentServiceRegistration) {
	t.Helper()
	r.Address = "127.0.0.1"
	r.Check = &api.AgentServiceCheck{CheckID: "ttl:" + r.ID, TTL: "1h", Status: api.HealthPassing}
	if err := consul.Client().Agent().ServiceRegister(&r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deregister(t, r.ID) })
}

func deregister(t *testing.T, id string) {
	t.Helper()
	if err := consul.Client().Agent().ServiceDeregister(id); err != nil && !strings.Contains(err.Error(), "Unknown service ID") {
		t.Error(err)
	}
}

// check sets what Consul's check of an instance says.
func check(t *testing.T, id, status, output string) {
	t.Helper()
	if err := consul.Client().Agent().UpdateTTL("ttl:"+id, output, status); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
