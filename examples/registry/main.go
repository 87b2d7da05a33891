// Command registry shows what goes wrong in registries, and what sluice makes of it, with a real
// Consul on this machine. It needs only Go, and ends by itself after about a quarter of a minute:
//
//	go run ./examples/registry
//
// sluice has the configuration of this folder. While 200 requests a second go on, an instance fails
// and passes its checks again and again, and the port of another one answers for a program that it
// does not belong to. The instances are parts of this program; Consul and sluice are processes.
package main

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/consul/api"

	"sluice/test/sluicetest"
	"sluice/test/stage"
)

func main() { stage.Run("registry", show) }

const perSecond = 200

//go:embed sluice.yaml
var configuration string

// tour is what runs.
type tour struct {
	*stage.Stage
	instances []*instance
	load      *sluicetest.Load
}

// show shows the faults.
func show(ctx context.Context, on *stage.Stage) error {
	t := new(tour)
	t.Stage = on
	if err := t.start(ctx); err != nil {
		return err
	}
	for _, path := range []string{"/", "/metrics"} {
		answer, err := sluicetest.Ask(ctx, http.DefaultClient, http.MethodGet, t.URL()+path)
		if err != nil {
			return err
		}
		t.Line("%-9s %s", path, answer.Text)
	}
	t.load = t.StartLoad("", perSecond)
	if err := t.flap(ctx, t.instances[0]); err != nil {
		return err
	}
	if err := t.exchange(ctx, t.instances[1]); err != nil {
		return err
	}
	t.load.Stop()
	count := t.load.Count()
	t.Line("\n%d requests in all: %d failed", count.Requests, count.Failed)
	if count.Failed > 0 {
		return fmt.Errorf("requests failed:\n%s", strings.Join(count.Failures, "\n"))
	}
	return nil
}

// An instance has two ports, of which the one named admin answers checks.
type instance struct {
	id      string
	failing atomic.Bool
	answers atomic.Pointer[string] // who the checks are answered by
}

func (i *instance) admin(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Consul-Service", *i.answers.Load())
	if i.failing.Load() && r.URL.Path == "/health" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, "the port admin of", i.id)
}

func (i *instance) users(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "the port http of", i.id)
}

func (t *tour) start(ctx context.Context) error {
	t.Line("Building sluice, and starting Consul, five instances and sluice.")
	if err := t.StartConsul(ctx); err != nil {
		return err
	}
	for n := range 5 {
		if err := t.register(fmt.Sprint("star-", n+1)); err != nil {
			return err
		}
	}
	here := strings.NewReplacer("127.0.0.1:8080", sluicetest.Any, "http://127.0.0.1:8500", t.Consul.URL())
	if err := t.Serve(ctx, here.Replace(configuration)); err != nil {
		return err
	}
	return t.AwaitUp(ctx, 2*len(t.instances)) // at either port
}

// register starts an instance, and registers it with the names of its ports.
func (t *tour) register(id string) error {
	i := &instance{id: id}
	own := "star/" + id
	i.answers.Store(&own)
	t.instances = append(t.instances, i)
	port := func(handler http.HandlerFunc) int {
		server := httptest.NewServer(handler)
		t.End(func() error { server.Close(); return nil })
		return server.Listener.Addr().(*net.TCPAddr).Port
	}
	return t.Consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: "star", Address: "127.0.0.1",
		Ports: api.ServicePorts{{Name: "http", Port: port(i.users), Default: true}, {Name: "admin", Port: port(i.admin)}},
	})
}

// flap makes an instance fail and pass until sluice waits longer for it.
func (t *tour) flap(ctx context.Context, i *instance) error {
	t.Line("\n%s fails and passes its checks again and again.", i.id)
	for n := 0; ; n++ {
		var is peer
		out := n%2 == 0
		i.failing.Store(out)
		err := t.Await(ctx, sluicetest.Patience, "sluice to notice", func(ctx context.Context) (ok bool, err error) {
			is, err = t.peer(ctx, i.id)
			return (is.State != "up") == out || is.State == "ejected", err
		})
		if err != nil {
			return err
		}
		if is.State == "ejected" {
			t.Line("After %d changes it waits: %s, %s", n, is.State, strings.Join(is.Reasons, "; "))
			return nil
		}
	}
}

// exchange makes the port of an instance that of another program.
func (t *tour) exchange(ctx context.Context, i *instance) error {
	other := "moon/moon-7"
	i.answers.Store(&other)
	t.Line("\nThe port of %s belongs to another program now: its checks are answered as %s.", i.id, other)
	return t.Await(ctx, sluicetest.Patience, "sluice to notice", func(ctx context.Context) (bool, error) {
		is, err := t.peer(ctx, i.id)
		if err != nil || !strings.Contains(strings.Join(is.Reasons, ""), "another service answers") {
			return false, err
		}
		t.Line("It gets no requests: %s, %s", is.State, strings.Join(is.Reasons, "; "))
		return true, nil
	})
}

// A peer contains what is shown of an instance at one of its ports.
type peer struct {
	Service string   `json:"service"`
	ID      string   `json:"id"`
	State   string   `json:"state"`
	Reasons []string `json:"reasons"`
}

// peer returns an instance at its port for users.
func (t *tour) peer(ctx context.Context, id string) (peer, error) {
	var all []peer
	err := t.Get(ctx, "/api/peers", &all)
	for _, p := range all {
		if p.Service == "star" && p.ID == id {
			return p, err
		}
	}
	return peer{}, cmp.Or(err, fmt.Errorf("sluice does not know %s", id))
}
