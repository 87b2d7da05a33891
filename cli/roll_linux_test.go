package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/test/consultest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// runDeploy asks the test to deploy, as the command of a roll. It ends with status 1 if the test
// does not want it.
func runDeploy(url string) {
	status, body := tryGet(url)
	fmt.Println(body)
	if status != http.StatusOK {
		os.Exit(1)
	}
	os.Exit(0)
}

// cluster is a service "star" of three apps in a real Consul, with sluice in front.
type cluster struct {
	t      *testing.T
	agent  *consultest.Agent
	apps   []*rolledApp
	deploy *httptest.Server // gets /ID from each command
	load   *load

	mu     sync.Mutex               // guards the fields below
	action func(a *rolledApp) error // what a deployment does
	order  []string                 // ids, as they were deployed
}

// rolledApp is an instance that can crash, and come back.
type rolledApp struct {
	id      string
	agent   *consultest.Agent
	mu      sync.Mutex // guards the fields below
	server  *http.Server
	address string
}

func (a *rolledApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if release := r.URL.Query().Get("until"); release != "" { // a long request
		tryGet(release)
	}
	io.WriteString(w, "ok")
}

// start lets the app listen, on its port or on another one, and registers it.
func (a *rolledApp) start(elsewhere bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if elsewhere || a.address == "" {
		a.address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", a.address)
	if err != nil {
		return err
	}
	a.address, a.server = listener.Addr().String(), &http.Server{Handler: a}
	go a.server.Serve(listener)
	at := listener.Addr().(*net.TCPAddr)
	return a.agent.Client().Agent().ServiceRegister(&consulapi.AgentServiceRegistration{
		ID: a.id, Name: "star", Address: "127.0.0.1", Port: at.Port,
		Check: &consulapi.AgentServiceCheck{HTTP: "http://" + a.address, Interval: "1s", Timeout: "1s"},
	})
}

func (a *rolledApp) crash() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server.Close()
}

// startCluster starts the apps, and as many replicas of sluice.
func startCluster(t *testing.T, replicas int) (c *cluster, all []*serving) {
	t.Helper()
	c = &cluster{t: t, agent: consultest.Start(t, consultest.Options{})}
	c.deploy = httptest.NewServer(http.HandlerFunc(c.deployment))
	t.Cleanup(c.deploy.Close)
	for _, id := range []string{"star-1", "star-2", "star-3"} {
		a := &rolledApp{id: id, agent: c.agent}
		verify.NoError(t, a.start(false))
		t.Cleanup(func() { a.crash() })
		c.apps = append(c.apps, a)
	}
	register := ""
	if replicas > 1 {
		secret := filepath.Join(t.TempDir(), "secret")
		verify.NoError(t, os.WriteFile(secret, []byte("a secret of all replicas"), 0o600))
		register = fmt.Sprintf(", register: { replica_token_file: %q, check: { interval: 1s } }", secret)
	}
	for range replicas {
		s := startServing(t, fmt.Sprintf("discovery: { allow_local: true }\nconsul: { addresses: [%q]%s }\nservices: { star: { consul: {} } }\nroutes: [{ service: star }]\n", c.agent.URL(), register))
		awaitThat(t, "three peers", func() bool {
			_, body := tryGet("http://" + s.admin + "/api/peers")
			return strings.Count(body, `"used": true`)+strings.Count(body, `"used":true`) == 3
		})
		all = append(all, s)
	}
	if replicas > 1 {
		// A roll asks the replicas that Consul knows. One serves before it is registered.
		awaitThat(t, "all replicas are registered", func() bool {
			registered, _, err := c.agent.Client().Health().Service("sluice", "", false, nil)
			return err == nil && len(registered) == replicas
		})
	}
	c.load = startLoad(t, 4, func(int) (*http.Request, string) {
		r, _ := http.NewRequest(http.MethodGet, "http://"+all[0].address+"/", nil)
		return r, "ok"
	})
	return c, all
}

// deployment does what the test wants for the instance in the path.
func (c *cluster) deployment(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	action, id := c.action, strings.TrimPrefix(r.URL.Path, "/")
	c.order = append(c.order, id)
	c.mu.Unlock()
	for _, a := range c.apps {
		if a.id == id {
			if err := action(a); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}
	}
}

// onDeploy sets what deployments do from now on.
func (c *cluster) onDeploy(action func(a *rolledApp) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.action, c.order = action, nil
}

// deployed returns the ids, in the order of their deployments.
func (c *cluster) deployed() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.order, " ")
}

// restart is a deployment that goes well.
func restart(a *rolledApp) error {
	a.crash() // nothing is in flight
	return a.start(false)
}

// running is a roll that runs.
type running struct {
	t       *testing.T
	command *exec.Cmd
	output  *subprocess.Output
}

// startRoll starts "sluice roll" at a replica.
func (c *cluster) startRoll(s *serving, flags ...string) *running {
	c.t.Helper()
	args := append([]string{"roll", "--service", "star", "--admin", s.admin, "--consul", c.agent.URL(), "--judge", "1s", "--settle", "2s"}, flags...)
	r := &running{c.t, sluiceCommand(append(args, "--", "env", envRole+"=deploy", os.Args[0], c.deploy.URL+"/{id}")...), new(subprocess.Output)}
	r.command.Stdout, r.command.Stderr = r.output, r.output
	verify.NoError(c.t, r.command.Start())
	return r
}

// ends waits until the roll has ended, and checks its exit status, and what it has written.
func (r *running) ends(status int, parts ...string) {
	r.t.Helper()
	stuck := time.AfterFunc(patience, func() { _ = r.command.Process.Kill() })
	defer stuck.Stop()
	_ = r.command.Wait() // its state says more
	text := r.output.String()
	verify.That(r.t, r.command.ProcessState.ExitCode() == status, "%v, want status %d:\n%s", r.command.ProcessState, status, text)
	for _, part := range parts {
		verify.That(r.t, strings.Contains(text, part), "no %q in:\n%s", part, text)
	}
}

// awaitText waits until the roll has written a text.
func (r *running) awaitText(part string) {
	r.t.Helper()
	awaitThat(r.t, fmt.Sprintf("the roll writes %q", part), func() bool { return strings.Contains(r.output.String(), part) })
}

// drained returns the ids of the instances that are drained at a replica.
func drained(t *testing.T, s *serving) (ids []string) {
	t.Helper()
	_, body := s.get("http://" + s.admin + "/api/orders")
	var orders struct{ Orders []struct{ ID string } }
	verify.NoError(t, json.Unmarshal([]byte(body), &orders))
	for _, o := range orders.Orders {
		ids = append(ids, o.ID)
	}
	return ids
}

// Deployments that restart, move and crash the apps of a real Consul, with load: no request fails.
func TestRoll(t *testing.T) {
	t.Parallel()
	c, all := startCluster(t, 1)
	s := all[0]

	c.onDeploy(restart)
	c.startRoll(s, "--dry-run").ends(exitOK, "star/star-1 (", "planned: batch 3 of 3")
	verify.That(t, c.deployed() == "", "a dry run has deployed %s", c.deployed())
	c.startRoll(s).ends(exitOK, "finished: 3 instances")
	verify.That(t, c.deployed() == "star-1 star-2 star-3", "deployed %s", c.deployed())

	c.onDeploy(func(a *rolledApp) error { a.crash(); return a.start(true) })
	c.startRoll(s, "--by", "version", "--parallel", "2").ends(exitOK, "finished: 3 instances")

	// One at a time, and Ctrl-C while its command runs.
	release := make(chan struct{})
	c.onDeploy(func(a *rolledApp) error { <-release; return restart(a) })
	first := c.startRoll(s)
	first.awaitText("star-1 (")
	awaitThat(t, "the command runs", func() bool { return c.deployed() != "" })
	c.startRoll(s).ends(exitFailed, "another roll of star runs, by ")
	verify.NoError(t, first.command.Process.Signal(syscall.SIGINT))
	first.awaitText("the roll ends after the present command")
	close(release)
	first.ends(exitFailed, "interrupted", "--resume goes on")
	verify.That(t, c.deployed() == "star-1" && len(drained(t, s)) == 0, "deployed %s, drained %v", c.deployed(), drained(t, s))
	c.load.stop()
	verify.That(t, c.load.served.Load() > 0, "no request was served")
}

// A request of another replica holds up the roll, which only that replica knows of.
func TestRollWithTwoReplicas(t *testing.T) {
	t.Parallel()
	c, all := startCluster(t, 2)
	var held *admin.Peer
	until := make(chan struct{})
	asked := make(chan struct{}, 1)
	gate := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-until
	}))
	defer gate.Close()
	answered := make(chan string, 1)
	go func() {
		_, body := tryGet("http://" + all[1].address + "/?until=" + gate.URL)
		answered <- body
	}()
	<-asked // an app has the request
	awaitThat(t, "a request in flight at the second replica", func() bool {
		_, body := tryGet("http://" + all[1].admin + "/api/peers")
		var peers []admin.Peer
		_ = json.Unmarshal([]byte(body), &peers)
		for _, p := range peers {
			if p.Inflight > 0 {
				held = &p
			}
		}
		return held != nil
	})
	c.onDeploy(restart)
	c.startRoll(all[0], "--drain-timeout", "5s").ends(exitFailed, held.ID+" (", "it still has 1 in flight in the replica ")
	verify.That(t, !strings.Contains(c.deployed(), held.ID), "%s was deployed with a request in flight at the other replica", held.ID)
	close(until)
	verify.That(t, <-answered == "ok", "the request at the other replica")
	c.startRoll(all[0], "--resume").ends(exitOK, "finished: 3 instances")
	verify.Equal(t, c.deployed(), "star-1 star-2 star-3", "deployed, each once")
}
