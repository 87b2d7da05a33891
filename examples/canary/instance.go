package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/release"
	"sluice/test/sluicetest"
)

// instance is an instance of the application.
type instance struct {
	id, version string
	broken      atomic.Bool // answers have status 500
	server      *http.Server
	served      chan error
	consul      *api.Client
}

// startInstance serves an instance on a free port, and registers it with its version as a tag.
func startInstance(consul *api.Client, version string, number int) (*instance, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	i := &instance{id: fmt.Sprintf("%s-star-%d", version, number), version: version, served: make(chan error, 1), consul: consul}
	i.server = &http.Server{Handler: http.HandlerFunc(i.answer), ReadHeaderTimeout: 10 * time.Second}
	go func() { i.served <- i.server.Serve(listener) }()
	return i, consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: i.id, Name: "star", Tags: []string{version},
		Address: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port,
		Check: &api.AgentServiceCheck{TCP: listener.Addr().String(), Interval: "1s", Timeout: "5s"},
	})
}

func (i *instance) answer(w http.ResponseWriter, _ *http.Request) {
	if i.broken.Load() {
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "Hello from %s\n", i.id)
}

func (i *instance) stop() error {
	err := i.server.Close()
	if served := <-i.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// byVersion2 returns how many requests version 2 has answered.
func byVersion2(c sluicetest.Count) (n int) {
	for app, answers := range c.ByApp {
		if strings.HasPrefix(app, "v2-") {
			n += answers
		}
	}
	return n
}

// split returns the split of the service.
func (r *rollout) split(ctx context.Context) (s release.State, err error) {
	var all []release.State
	if err := r.sluice.Get(ctx, "/api/shares", &all); err != nil {
		return s, err
	}
	if len(all) != 1 {
		return s, fmt.Errorf("%d splits", len(all))
	}
	return all[0], nil
}
