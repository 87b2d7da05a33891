package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"time"

	"sluice/admin/fleet"
	"sluice/certificates"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
)

// replicaView describes this replica.
func (g *Gateway) replicaView() fleet.Replica {
	self, revision := g.replica, g.history.Current()
	view := fleet.Replica{
		Replica:    g.registrar.Self.Owner.Value,
		Host:       self.Host,
		Version:    self.Version,
		Started:    self.Started.UTC().Truncate(time.Millisecond),
		ConfigHash: revision.Hash,
		Pending:    append([]string{}, revision.Pending...),
		Services:   []fleet.Service{},
	}
	view.Ready, _ = g.readiness()
	if g.orders.Shares() {
		view.Orders = g.orders.Set().Digest()
	}
	watches := g.watches()
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

// surveyFleet queries all replicas, and compares them.
func (g *Gateway) surveyFleet(ctx context.Context) fleet.Report {
	return fleet.Survey{Self: g.replicaView, List: g.listReplicas, Token: g.replicaToken, TLS: g.replicaTLS}.Take(ctx)
}

// listReplicas returns the instances of the service that sluice registers in Consul.
func (g *Gateway) listReplicas(ctx context.Context) ([]discovery.Instance, error) {
	answer, err := consulsource.Health(ctx, g.consul, consulsource.ServiceOptions{Service: g.registrar.Status().Service})
	if err == nil && answer.FilteredByACL {
		err = fmt.Errorf("omitted by Consul: some replicas, since the token lacks service:read for %q or node:read for its nodes", g.registrar.Status().Service)
	}
	return answer.Instances, err
}

// replicaToken reads the token for the admin API of the other replicas.
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

// replicaTLS reads how the certificates of the other replicas' admin APIs are verified; nil: by
// the system's.
func (g *Gateway) replicaTLS() (*tls.Config, error) {
	c := g.history.Current().Config.Consul.Register
	if c == nil || c.ReplicaTLS == nil {
		return nil, nil
	}
	client, err := certificates.NewClient(certificates.ClientOptions{
		Files: certificates.Files{CA: c.ReplicaTLS.CA}, ServerName: c.ReplicaTLS.ServerName,
	})
	if err != nil {
		return nil, fmt.Errorf("consul.register.replica_tls: %w", err)
	}
	return client.Config(), nil
}
