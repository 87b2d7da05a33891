package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/admin/fleet"
	"sluice/config"
	"sluice/consul/registration"
	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/operator"
	"sluice/release"
)

// leaveTimeout limits how long a stop waits until the registration is removed from Consul.
const leaveTimeout = 3 * time.Second

// replica is this process among the replicas: its registration in Consul, and what they compare.
type replica struct {
	registries *registries
	services   *services
	history    *config.History
	orders     *operator.Peers
	shares     *release.Shares
	readiness  *readiness
	listeners  *listeners
	upgrade    *upgrade
	former     func() ([]admin.Peer, error) // that have requests in flight in the old process
	version    string                       // of the program
	log        zerolog.Logger

	// Set by begin.

	self      registration.Replica
	registrar *registration.Registrar // registers sluice if that is configured, and else removes the registration of the old process
}

// begin says who this process is, with an admin API with TLS or not. The listeners must be bound.
func (r *replica) begin(secure bool) {
	r.self = registration.Replica{Admin: endpoint(r.listeners.admin.Addr()), TLS: secure, Version: r.version, Started: time.Now()}
	r.self.Host, _ = os.Hostname() // without a name it is empty
	r.registrar = registration.New(registration.Options{
		Consul: r.registries.consul, Self: r.self.Self(), Log: r.log,
		Ready: func(context.Context) (bool, []string) { return r.readiness.now() },
	})
}

// name returns the name of this replica for others.
func (r *replica) name() string { return r.registrar.Self.Owner.Value }

func (r *replica) status() registration.Status { return r.registrar.Status() }

// registerAs applies the registration settings of a configuration.
func (r *replica) registerAs(c config.Revision) {
	r.registrar.Set(registrationSettings(c, r.listeners.reachable(), r.self.TLS))
}

// register keeps sluice registered in Consul once it is ready and serves clients. leave ends
// that until ctx ends, and removes the registration unless another process has taken it over.
func (r *replica) register() (leave func(ctx context.Context)) {
	stop := panics.Start(context.Background(), panics.Task, func(ctx context.Context) {
		for _, wait := range []<-chan struct{}{r.upgrade.warm, r.readiness.became} {
			if wake.Await(ctx, wait) != nil {
				return
			}
		}
		r.registrar.Run(ctx)
	})
	return func(leaving context.Context) {
		leaving, cancelLeave := context.WithTimeout(leaving, leaveTimeout)
		defer cancelLeave()
		stop()
		if !r.upgrade.replaced {
			r.registrar.Leave(leaving)
		}
	}
}

// describe returns what the replicas compare.
func (r *replica) describe() fleet.Replica {
	revision, parts := r.history.Current(), make(map[string]string)
	view := fleet.Replica{
		Replica:    r.name(),
		Host:       r.self.Host,
		Version:    r.version,
		Started:    r.self.Started.UTC().Truncate(time.Millisecond),
		ConfigHash: revision.Hash,
		Pending:    append([]string{}, revision.Pending...),
		Parts:      parts,
	}
	view.Ready, _ = r.readiness.now()
	var services, instances, routes []string
	for _, service := range r.services.all() {
		services = append(services, service.name)
		for _, p := range service.pool.Snapshot().All {
			instances = append(instances, fleet.Text(service.name, p.Instance()))
		}
	}
	view.Services, view.Instances = len(services), len(instances)
	c := r.registries.config()
	all := slices.Clone(c.Routes)
	for _, l := range c.Listeners {
		all = append(all, l.Streams...)
	}
	for _, r := range all {
		one := config.Built{Config: &config.Config{Routes: []config.Route{r}}}
		routes = append(routes, r.Protocol+" "+one.Hash())
	}
	parts[fleet.PartServices], parts[fleet.PartInstances], parts[fleet.PartRoutes] = fleet.Hash(services), fleet.Hash(instances), fleet.Hash(routes)
	if r.orders.Store.Shares() {
		parts[fleet.PartOrders] = r.orders.Set().Digest()
	}
	if r.shares.Store.Shares() {
		var shares []string
		for service, given := range r.shares.Counting() {
			shares = append(shares, fmt.Sprintf("%s %s %v", service, given.Group, given.Share))
		}
		parts[fleet.PartShares] = fleet.Hash(shares)
	}
	busy, err := r.former()
	unfinished, whole := unfinished(slices.Concat(admin.InFlight(r.services.pools(), r.orders.Set()), busy))
	switch view.Unfinished = unfinished; {
	case err != nil:
		view.UnfinishedError = err.Error()
	case !whole:
		view.UnfinishedError = "too many drained peers have requests in flight to list all"
	}
	return view
}

// unfinished returns those of peers that are drained, the ones with the most requests in flight
// first, and whether these are all. What two processes have counts together.
func unfinished(peers []admin.Peer) (all []fleet.Unfinished, whole bool) {
	inflight := make(map[fleet.Unfinished]int) // by the rest
	for _, p := range peers {
		if p.Drained() {
			inflight[fleet.Unfinished{Service: p.Service, ID: p.ID, Node: p.Node, Datacenter: p.Datacenter, Address: p.Address}] += p.Inflight
		}
	}
	for u, n := range inflight {
		u.Inflight = n
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b fleet.Unfinished) int { return cmp.Compare(b.Inflight, a.Inflight) })
	left := fleet.MaxUnfinishedBytes
	for n, u := range all {
		text, _ := json.Marshal(u) // cannot fail
		if left -= len(text) + 1; left < 0 {
			return all[:n], false
		}
	}
	return all, true
}

// others returns how the other replicas are found and asked; false: sluice is not registered.
func (r *replica) others() (fleet.Survey, bool) {
	c := r.history.Current().Config.Consul.Register
	if c == nil {
		return fleet.Survey{}, false
	}
	self := func() fleet.Replica { return fleet.Replica{Replica: r.name(), Host: r.self.Host} }
	return fleet.Registered(self, r.registries.consul, c.Service, c, r.registries.byOthers), true
}

// proofs returns the proofs that the replicas give each other.
func (r *replica) proofs() *fleet.Proofs {
	return fleet.NewProofs(r.name, func() (string, error) { return fleet.Secret(r.history.Current().Config.Consul.Register) })
}

// survey queries all replicas, and compares them.
func (r *replica) survey(ctx context.Context) fleet.Report {
	return fleet.Registered(r.describe, r.registries.consul, r.status().Service, r.history.Current().Config.Consul.Register, r.registries.byOthers).Take(ctx)
}
