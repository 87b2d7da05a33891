package consul

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/discovery"
	"sluice/observe/panics"
)

// Modes of [Target.Gateway].
const (
	gatewayLocal  = "local"
	gatewayRemote = "remote"
)

// gateways returns the options of the mesh gateways of a target; nil: it has none. As for Consul's
// proxies (makeLoadAssignmentEndpointGroup in agent/xds/endpoints.go), a target in the own data
// centre and partition needs none, and a peer's instances are gateways already.
func (o *ServiceOptions) gateways(t Target) *ServiceOptions {
	g := *o
	g.Targets, g.Connect, g.Tags = nil, false, nil
	g.Service, g.Filter = o.MeshGateway, `Service.Kind == "mesh-gateway"`
	g.Namespace, g.Peer = "", ""
	switch {
	case t.Datacenter == "" && t.Peer == "" && t.Partition == "":
	case t.Gateway == gatewayLocal:
		return &g
	case t.Gateway == gatewayRemote && t.Peer == "":
		g.Datacenter, g.Partition = t.Datacenter, cmp.Or(t.Partition, o.Partition)
		if t.Datacenter != "" {
			g.Address = wanAddress
		}
		return &g
	}
	return nil
}

// gatewayed watches a target behind mesh gateways, and reports the gateways. They forward
// connections by server name, while TLS ends at an instance of the target: so they have the
// target's identity. They are in service while an instance of the target is.
type gatewayed struct {
	target    Target
	instances *source
	gateways  *source
}

// Run implements discovery.Source. It forgets the target's instances when it ends: until they are
// known again, the gateways do not change.
func (g *gatewayed) Run(ctx context.Context, before discovery.WatchState, report func(discovery.Report)) error {
	r := &gatewayReport{target: g.target, report: report}
	r.gateways.WatchState = before
	r.gateways.Set = slices.Clone(before.Set)
	for n := range before.Set {
		g.restore(&r.gateways.Set[n])
	}
	var tasks []func(context.Context)
	for side, s := range map[*gatewaySide]*source{&r.instances: g.instances, &r.gateways: g.gateways} {
		before := func() discovery.WatchState { return r.state(side) }
		tasks = append(tasks, func(ctx context.Context) {
			runPart(ctx, s, before, func(report discovery.Report) { r.record(side, report) })
		})
	}
	defer panics.Start(ctx, panics.Watch, tasks...)()
	<-ctx.Done()
	return ctx.Err()
}

// gatewayReport joins what is known about the gateways and the instances of a target.
type gatewayReport struct {
	target Target
	report func(discovery.Report)

	// mu guards the fields below.
	mu                  sync.Mutex
	instances, gateways gatewaySide
}

// gatewaySide is what is known about the gateways, or about the instances.
type gatewaySide struct {
	discovery.WatchState
	answered bool // in this run
	index    uint64
	err      error // of the last query
}

func (r *gatewayReport) state(side *gatewaySide) discovery.WatchState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return side.WatchState
}

// record records a report about a side, and reports both. There is no set before both have
// answered.
func (r *gatewayReport) record(side *gatewaySide, report discovery.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	side.err = report.Err
	if report.Known {
		side.Known, side.Set, side.Endpoint, side.index, side.answered = true, report.Set, report.Endpoint, report.Index, true
		side.LastSuccess = time.Now()
	}
	if report.Memory != nil {
		side.Memory = report.Memory
	}
	joined := discovery.Report{Err: cmp.Or(r.instances.err, r.gateways.err), Reset: report.Reset}
	if r.instances.answered && r.gateways.answered {
		joined.Known, joined.Endpoint, joined.Index = true, r.instances.Endpoint, r.instances.index
		joined.Answered = r.gateways.LastSuccess
		joined.Set, joined.Memory = r.target.through(r.gateways.Set, r.instances.Set), r.gateways.Memory
	}
	if joined.Known || joined.Err != nil {
		r.report(joined)
	}
}

// through returns the gateways as instances of the target.
func (t *Target) through(gateways, instances []discovery.Instance) []discovery.Instance {
	usable := slices.ContainsFunc(instances, discovery.Instance.Usable)
	set := slices.Clone(gateways)
	for n := range set {
		i := &set[n]
		i.Service, i.ID = t.Service, i.ID+t.suffix()
		i.Tags, i.Meta = nil, nil // of the gateway, not of the service
		if len(instances) > 0 {
			i.ServerName, i.Identity, i.Peer = instances[0].ServerName, instances[0].Identity, t.Peer
		}
		if !usable {
			i.Status, i.Weight, i.Unchecked, i.Probation = discovery.StatusCritical, 0, false, time.Time{}
			i.Detail = fmt.Sprintf("no instance of %s is in service behind the mesh gateway", t.name())
		}
	}
	return set
}

// restore makes i, which through has returned, the gateway again.
func (g *gatewayed) restore(i *discovery.Instance) {
	i.Service, i.ID = g.gateways.options.Service, strings.TrimSuffix(i.ID, g.target.suffix())
	i.ServerName, i.Identity, i.Peer = "", "", ""
}

// suffix ends the id of a gateway to t: one gateway may serve several targets.
func (t *Target) suffix() string { return "@" + t.name() }
