//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
)

// cluster is a server of Consul, and an agent for applications and load balancers, as in
// production.
type cluster struct {
	server, agent *consultest.Agent
}

func startCluster(ctx context.Context, progress io.Writer) (*cluster, error) {
	// All instances: by default Consul's DNS returns three.
	dns := map[string]any{"udp_answer_limit": 100}
	server, err := consultest.StartAgent(ctx, consultest.Options{
		Mode: consultest.Server, Node: "server", Progress: progress, Config: map[string]any{"dns_config": dns},
	})
	if err != nil {
		return nil, err
	}
	agent, err := consultest.StartAgent(ctx, consultest.Options{
		Mode: consultest.Client, Node: "agent", Join: []string{server.SerfAddress()},
		// The same node, also without its data.
		Config: map[string]any{"dns_config": dns, "node_id": "a0000000-0000-4000-8000-000000000001"},
	})
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return &cluster{server, agent}, nil
}

func (c *cluster) close() error { return errors.Join(c.agent.Close(), c.server.Close()) }

// ensure starts stopped agents, and waits until all are ready.
func (c *cluster) ensure(ctx context.Context) error {
	for _, a := range []*consultest.Agent{c.server, c.agent} {
		if a.Process() == nil {
			if err := a.Launch(ctx); err != nil {
				return err
			}
		}
	}
	return errors.Join(c.server.WaitReady(ctx), c.agent.WaitReady(ctx))
}

func (c *cluster) address() consulAddress {
	return consulAddress{HTTP: c.agent.HTTPAddress(), DNS: c.agent.DNSAddress()}
}

// clear removes the remaining registrations of a scenario, and waits until the catalog has none.
func (c *cluster) clear(ctx context.Context) error {
	client, q := c.agent.Client(), (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
	end := time.Now().Add(patience)
	for {
		services, err := client.Agent().ServicesWithFilterOpts("", q)
		if err != nil {
			return err
		}
		for id := range services {
			if err := client.Agent().ServiceDeregisterOpts(id, q); err != nil {
				return err
			}
		}
		left, _, err := client.Catalog().Service(service, "", q)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d instances stay in the catalog", len(left))
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
