package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/hashicorp/consul/api"

	"sluice/test/stage"
)

const instances = 3

// app is the application, whose instances this program has.
type app struct {
	*stage.Stage
	deployments *httptest.Server // replaces the instance in the path

	mu      sync.Mutex // guards the fields below
	version string     // of instances that start
	servers [instances]*httptest.Server
}

func (a *app) setVersion(version string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version = version
}

// startInstance starts an instance, on a new port, and registers it in place of the one before.
func (a *app) startInstance(n int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if former := a.servers[n]; former != nil {
		former.Close()
	}
	id, version := fmt.Sprint("star-", n+1), a.version
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" && version == "v3" {
			http.Error(w, "no database", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "Hello from %s-%s\n", version, id)
	}))
	a.servers[n] = server
	a.End(func() error { server.Close(); return nil })
	return a.Consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: "star", Address: "127.0.0.1", Port: server.Listener.Addr().(*net.TCPAddr).Port,
		Check: &api.AgentServiceCheck{HTTP: server.URL + "/health", Interval: "1s", Timeout: "1s"},
	})
}

// replace answers a request to deploy the instance in its path.
func (a *app) replace(w http.ResponseWriter, r *http.Request) {
	var n int
	if _, err := fmt.Sscanf(strings.TrimPrefix(r.URL.Path, "/"), "star-%d", &n); err != nil || n < 1 || n > instances {
		http.NotFound(w, r)
		return
	}
	if err := a.startInstance(n - 1); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "deployed star-%d\n", n)
}
