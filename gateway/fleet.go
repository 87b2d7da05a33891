package gateway

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"sluice/discovery"
	"sluice/discovery/consul"
	"sluice/fleet"
)

// replicaView returns what this replica says of itself.
func (g *Gateway) replicaView() fleet.Replica {
	self, revision := g.registrar.Self, g.history.Current()
	view := fleet.Replica{
		Replica:    self.Replica(),
		Host:       self.Host,
		Version:    self.Version,
		Started:    self.Started.UTC().Truncate(time.Millisecond),
		ConfigHash: revision.Hash,
		Pending:    append([]string{}, revision.Pending...),
		Services:   []fleet.Service{},
	}
	view.Ready, _ = g.readiness()
	watches := make(map[string]discovery.WatchStatus)
	for _, w := range g.discovery.Statuses() {
		watches[w.Service] = w
	}
	for _, service := range g.services.all() {
		peers := service.pool.Snapshot().All
		set := make([]discovery.Instance, len(peers))
		for i, p := range peers {
			set[i] = p.Instance()
		}
		w := watches[service.name]
		view.Services = append(view.Services, fleet.Service{
			Service:   service.name,
			Source:    w.Source,
			State:     w.State.String(),
			Index:     w.Index,
			Instances: len(set),
			Digest:    fleet.Digest(set),
		})
	}
	return view
}

// surveyFleet asks all replicas.
func (g *Gateway) surveyFleet(ctx context.Context) fleet.Report {
	return fleet.Survey{Self: g.replicaView, List: g.listReplicas, Token: g.replicaToken}.Take(ctx)
}

// listReplicas returns what Consul lists under the name that sluice registers.
func (g *Gateway) listReplicas(ctx context.Context) ([]discovery.Instance, error) {
	answer, err := g.consul.Health(ctx, consul.ServiceOptions{Service: g.registrar.Status().Service})
	if err == nil && answer.FilteredByACL {
		err = fmt.Errorf("consul leaves some out: the token lacks service:read for %q or node:read for its nodes", g.registrar.Status().Service)
	}
	return answer.Instances, err
}

// replicaToken returns the token for the admin API of the other replicas.
func (g *Gateway) replicaToken() (string, error) {
	c := g.history.Current().Config.Consul.Register
	if c == nil || c.ReplicaTokenFile == "" {
		return "", nil
	}
	data, err := os.ReadFile(c.ReplicaTokenFile)
	if err != nil {
		return "", fmt.Errorf("consul.register.replica_token_file: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
