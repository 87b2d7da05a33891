//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"sluice/test/consultest"
)

// cluster is three servers, and the client agents that replicas ask, if they do not ask servers.
type cluster struct {
	servers, agents []*consultest.Agent
}

const serverCount = 3

// startCluster starts the servers and agents that o says. The caller closes the cluster, also after
// an error.
func startCluster(ctx context.Context, o options, tls *consultest.TLS) (*cluster, error) {
	c := new(cluster)
	config := map[string]any{
		"bootstrap_expect": serverCount,
		// All replicas and agents have one address here, and one each elsewhere.
		"limits":    map[string]any{"http_max_conns_per_client": 10_000, "rpc_max_conns_per_client": 10_000},
		"telemetry": map[string]any{"prometheus_retention_time": "1h", "disable_hostname": true},
		// A busy machine must not cause elections.
		"performance": map[string]any{"raft_multiplier": 3},
	}
	var join []string
	for n := range serverCount {
		s, err := consultest.StartAgent(ctx, consultest.Options{
			Mode: consultest.Server, Node: fmt.Sprintf("server-%d", n), Join: join, TLS: tls, NoWait: true, Config: config, Progress: os.Stderr,
		})
		if err != nil {
			return c, err
		}
		c.servers, join = append(c.servers, s), append(join, s.SerfAddress())
	}
	if err := c.servers[0].WaitReady(ctx); err != nil {
		return c, err
	}
	config = map[string]any{"limits": config["limits"], "telemetry": config["telemetry"], "use_streaming_backend": !o.polling}
	for n := range o.agents {
		a, err := consultest.StartAgent(ctx, consultest.Options{
			Mode: consultest.Client, Node: fmt.Sprintf("agent-%d", n), Join: join, TLS: tls, Config: config,
		})
		if err != nil {
			return c, err
		}
		c.agents = append(c.agents, a)
	}
	return c, nil
}

func (c *cluster) close() {
	for _, a := range append(c.agents, c.servers...) {
		_ = a.Close() // it is in the way of nothing
	}
}

// addresses returns the URLs that a replica asks: its agent, or all servers, beginning with another
// one than the replica before.
func (c *cluster) addresses(replica int, https bool) string {
	url := func(a *consultest.Agent) string {
		if https {
			return "https://" + a.HTTPSAddress()
		}
		return a.URL()
	}
	if len(c.agents) > 0 {
		return url(c.agents[replica%len(c.agents)])
	}
	var all []string
	for n := range c.servers {
		all = append(all, url(c.servers[(replica+n)%len(c.servers)]))
	}
	return strings.Join(all, ",")
}

// leader returns the server that leads, and the others.
func (c *cluster) leader(ctx context.Context) (leader *consultest.Agent, followers []*consultest.Agent, err error) {
	for try := 0; try < 600; try++ {
		for _, s := range c.servers {
			if s.Process() == nil {
				continue
			}
			address, err := s.Client().Status().Leader()
			if err != nil || address == "" {
				continue
			}
			leader, followers = nil, nil
			for _, other := range c.servers {
				switch {
				case other.Process() == nil:
				case other.ServerAddress() == address:
					leader = other
				default:
					followers = append(followers, other)
				}
			}
			if leader != nil {
				return leader, followers, nil
			}
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, errors.New("the servers have no leader within a minute")
}

// gauges returns the metrics of an agent, of all labels together.
func gauges(a *consultest.Agent) (map[string]float64, error) {
	response, err := http.Get(a.URL() + "/v1/agent/metrics?format=prometheus")
	if err != nil {
		return nil, fmt.Errorf("metrics of Consul: %w", err)
	}
	defer response.Body.Close()
	values := make(map[string]float64)
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		name, labels, labelled := strings.Cut(series, "{")
		if labelled {
			value = labels[strings.LastIndex(labels, "}")+1:] + value
		}
		if f, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
			values[name] += f
		}
	}
	return values, lines.Err()
}
