package consul

import (
	"context"
	"time"

	"sluice/discovery"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// parts watches a service that has parts, in order of preference: data centres, or the targets of a
// discovery chain. It reports one set, or the sets of all if they are used together.
type parts struct {
	source
	list []part
}

// part is one of several sets of instances.
type part struct {
	name     string // of its discovery.Memory
	options  ServiceOptions
	target   *Target         // nil: it is a data centre
	gateways *ServiceOptions // through which the target is reached; nil: directly
}

// parts returns the parts of a service that has several.
func (o *ServiceOptions) parts() []part {
	var list []part
	for _, name := range o.Datacenters {
		one := *o
		one.Datacenters, one.Datacenter = nil, name
		list = append(list, part{name: name, options: one})
	}
	for _, t := range o.Targets {
		list = append(list, part{t.name(), o.of(t), &t, o.gateways(t)})
	}
	return list
}

// source returns the source of the instances.
func (p *part) source(c *Sources) discovery.Source {
	instances := &source{Sources: c, options: p.options}
	if p.gateways == nil {
		return instances
	}
	return &gatewayed{target: *p.target, instances: instances, gateways: &source{Sources: c, options: *p.gateways}}
}

// has reports whether an instance of a set that was reported is in p.
func (p *part) has(i *discovery.Instance) bool {
	if p.target != nil {
		return i.Target == p.name
	}
	return i.Datacenter == p.name
}

// together reports whether all parts are used, with their positions as Instance.Priority.
func (o *ServiceOptions) together() bool { return o.Spill || o.Targets != nil }

// Run implements discovery.Source.
func (d *parts) Run(ctx context.Context, before discovery.WatchState, report func(discovery.Report)) error {
	c := &choice{
		before:     before,
		report:     report,
		minHealthy: d.options.MinHealthy,
		log:        d.log.With().Str("consul_service", d.options.Service).Logger(),
		changed:    wake.NewOne(),
		used:       -1,
		spill:      d.options.together(),
		ordered:    !d.options.Nearest,
		begin:      time.Now(),
	}
	var tasks []func(context.Context)
	for n, p := range d.list {
		b := &branch{choice: c, part: p, listed: n, position: n, serving: -1}
		b.inherit()
		c.branches = append(c.branches, b)
		tasks = append(tasks, func(ctx context.Context) { runPart(ctx, p.source(d.Sources), b.state, b.record) })
	}
	if d.options.Nearest {
		tasks = append(tasks, func(ctx context.Context) { d.nearness.follow(ctx, c.reorder) })
	}
	defer panics.Start(ctx, panics.Watch, tasks...)()
	return c.run(ctx)
}

// runPart runs a source of a part until ctx ends. After a panic it has failed, until it runs again.
func runPart(ctx context.Context, s discovery.Source, before func() discovery.WatchState, report func(discovery.Report)) {
	defer func() {
		if ctx.Err() == nil {
			report(discovery.Report{Err: panics.Err})
		}
	}()
	_ = s.Run(ctx, before(), report) // ends with ctx: the service has a name
}
