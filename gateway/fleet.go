package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/admin/fleet"
	"sluice/certificates"
	"sluice/config"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
)

// replicaView describes this replica.
func (g *Gateway) replicaView() fleet.Replica {
	self, revision, parts := g.replica, g.history.Current(), make(map[string]string)
	view := fleet.Replica{
		Replica:    g.registrar.Self.Owner.Value,
		Host:       self.Host,
		Version:    self.Version,
		Started:    self.Started.UTC().Truncate(time.Millisecond),
		ConfigHash: revision.Hash,
		Pending:    append([]string{}, revision.Pending...),
		Parts:      parts,
	}
	view.Ready, _ = g.readiness()
	var services, instances, routes []string
	for _, service := range g.services.all() {
		services = append(services, service.name)
		for _, p := range service.pool.Snapshot().All {
			instances = append(instances, fleet.Text(service.name, p.Instance()))
		}
	}
	view.Services, view.Instances = len(services), len(instances)
	if c := g.effective.Load(); c != nil {
		all := slices.Clone(c.Routes)
		for _, l := range c.Listeners {
			all = append(all, l.Streams...)
		}
		for _, r := range all {
			one := config.Built{Config: &config.Config{Routes: []config.Route{r}}}
			routes = append(routes, r.Protocol+" "+one.Hash())
		}
	}
	parts[fleet.PartServices], parts[fleet.PartInstances], parts[fleet.PartRoutes] = fleet.Hash(services), fleet.Hash(instances), fleet.Hash(routes)
	if g.orders.Shares() {
		parts[fleet.PartOrders] = g.orders.Set().Digest()
	}
	if g.shares.Shares() {
		var shares []string
		for service, given := range g.shares.Counting() {
			shares = append(shares, fmt.Sprintf("%s %s %v", service, given.Group, given.Share))
		}
		parts[fleet.PartShares] = fleet.Hash(shares)
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
