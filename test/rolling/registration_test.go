//go:build unix

package rolling

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/observe/wake"
)

// registration is the registration of an instance in Consul. Its methods must not be called
// concurrently.
type registration struct {
	consul      *api.Client
	id, service string
	port        int
	ttl         bool          // the instance sets its check; otherwise Consul checks it
	timeout     time.Duration // of such a check
	check       func(timeout time.Duration) *api.AgentServiceCheck

	cancel context.CancelFunc // ends keep; nil: not registered
	ended  chan struct{}      // closed when keep has ended
}

// register registers the instance as passing, and keeps it registered.
func (r *registration) register() error {
	if err := r.send(context.Background()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan struct{})
	go r.keep(ctx)
	return nil
}

func (r *registration) send(ctx context.Context) error {
	check := r.check(r.timeout)
	if r.ttl {
		check = &api.AgentServiceCheck{TTL: "1m"}
	}
	check.Status, check.DeregisterCriticalServiceAfter = api.HealthPassing, "1m"
	service := &api.AgentServiceRegistration{ID: r.id, Name: r.service, Address: "127.0.0.1", Port: r.port, Check: check}
	if err := r.consul.Agent().ServiceRegisterOpts(service, api.ServiceRegisterOpts{}.WithContext(ctx)); err != nil {
		return fmt.Errorf("register %s: %w", r.id, err)
	}
	return nil
}

// keep registers the instance again if Consul has lost it.
func (r *registration) keep(ctx context.Context) {
	defer close(r.ended)
	wake.Every(ctx, time.Second, func() {
		_, _, err := r.consul.Agent().Service(r.id, (&api.QueryOptions{}).WithContext(ctx))
		var status api.StatusError
		if errors.As(err, &status) && status.Code == http.StatusNotFound {
			_ = r.send(ctx) // or after the next tick
		}
	})
}

// abandon does not remove the registration, like a process that dies.
func (r *registration) abandon() {
	if r.cancel != nil {
		r.cancel()
		<-r.ended
		r.cancel = nil
	}
}

func (r *registration) deregister() error {
	r.abandon()
	if err := r.consul.Agent().ServiceDeregister(r.id); err != nil {
		return fmt.Errorf("deregister %s: %w", r.id, err)
	}
	return nil
}

// flap changes a TTL check every second until ctx ends.
func (r *registration) flap(ctx context.Context) error {
	passing := true
	err := wake.Repeat(ctx, time.Second, func() (done bool, err error) {
		passing = !passing
		status := map[bool]string{true: api.HealthPassing, false: api.HealthCritical}[passing]
		return false, r.consul.Agent().UpdateTTL("service:"+r.id, "", status)
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("flap %s: %w", r.id, err)
}
