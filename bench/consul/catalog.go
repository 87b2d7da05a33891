//go:build linux

package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/consul/api"
)

// catalog changes the catalog that is watched.
type catalog struct {
	client           *api.Client
	instances, nodes int
	bare             bool // instances have no checks
	port             int  // of every instance
}

// instance returns the registration of instance i of service s.
func (c catalog) instance(s, i int, status string) *api.CatalogRegistration {
	n := (s*c.instances + i) % c.nodes
	id := fmt.Sprintf("%s-%d", serviceName(s), i)
	r := &api.CatalogRegistration{
		Node:           fmt.Sprintf("bench-%d", n),
		Address:        fmt.Sprintf("10.0.%d.%d", n/250, n%250+1),
		SkipNodeUpdate: s > 0 || i >= c.nodes,
		Service: &api.AgentService{
			ID: id, Service: serviceName(s), Address: instanceAddress(i), Port: c.port,
			Tags: []string{"v1", "http"}, Meta: map[string]string{"version": "1.2.3"},
			Weights: api.AgentWeights{Passing: 1, Warning: 1},
		},
		Checks: api.HealthChecks{{
			Node: fmt.Sprintf("bench-%d", n), CheckID: "service:" + id, Name: "Service '" + serviceName(s) + "' check",
			Status: status, ServiceID: id, Output: "HTTP GET http://127.0.0.1:10000/health: 200 OK Output: ok",
		}},
	}
	if c.bare {
		r.Checks = nil
	}
	return r
}

func (c catalog) register(s, i int, status string) error {
	_, err := c.client.Catalog().Register(c.instance(s, i, status), nil)
	return err
}

func (c catalog) deregister(s, i int) error {
	r := c.instance(s, i, "")
	_, err := c.client.Catalog().Deregister(&api.CatalogDeregistration{Node: r.Node, ServiceID: r.Service.ID}, nil)
	return err
}

// fill registers every instance of services.
func (c catalog) fill(ctx context.Context, services int) error {
	// The nodes first: instances then leave them alone.
	for i := range min(c.nodes, c.instances) {
		if err := c.register(0, i, api.HealthPassing); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	const writers = 8
	work := make(chan int)
	var running sync.WaitGroup
	for range writers {
		running.Go(func() {
			for s := range work {
				for i := range c.instances {
					if err := c.register(s, i, api.HealthPassing); err != nil {
						cancel(err)
					}
				}
			}
		})
	}
	for s := range services {
		if ctx.Err() != nil {
			break
		}
		work <- s
	}
	close(work)
	running.Wait()
	return context.Cause(ctx)
}
