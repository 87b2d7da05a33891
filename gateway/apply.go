package gateway

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"time"

	"sluice/config"
	"sluice/config/routes"
	"sluice/observe/tracing"
	"sluice/observe/wake"
	"sluice/proxy/accesslog"
	"sluice/route"
)

// warmTimeout limits how long a reload waits for the first peers of new services before it
// routes requests to them.
const warmTimeout = 5 * time.Second

// plan is a new configuration, with all parts whose creation can fail. None of them is
// in use.
type plan struct {
	config    *config.Config
	merged    *config.Config // without the shares that are given, and without discovery chains
	listeners []*listener
	accessLog *accesslog.Logger // nil: unchanged
	tracer    *tracing.Tracer   // nil: unchanged, or no spans
	tokens    *adminTokens      // nil: unchanged
	services  []*servicePlan
	routes    *routes.Routes
}

// apply merges c, the configuration from the documents, with all other fragments, and changes
// the running program accordingly. Where only those have changed, as tags, it opens no listener, no
// log and no tokens. After an error nothing has changed.
func (g *Gateway) apply(ctx context.Context, c *config.Config) error {
	p, applied := &plan{config: c, listeners: g.listeners.all()}, false
	defer func() {
		if !applied { // for an error or by a panic
			g.discard(p)
		}
	}()
	before := g.effective.Load()
	whole := before // what need not be opened or changed again
	if g.complete == nil {
		whole = nil
	}
	if c != g.complete {
		if err := g.open(p, whole, p.listeners); err != nil {
			return err
		}
	}
	if before == nil {
		g.replica.begin(g.started.Admin.TLS != nil)
		g.upgrade.restore(g.options.RequestState)
		if c = g.documents.First(); !config.Identical(c, p.config) { // with the history of the old process
			if err := g.openInPlace(p, c); err != nil {
				return err
			}
		}
		g.tags.Start(c)
	}
	asked := g.tags.Ask(c, g.finder.Addition(c))
	merged, conflicts := config.Merge(asked.Config, asked.Found, asked.Routes)
	for _, conflict := range conflicts {
		g.log.Warn().Err(conflict).Msg("a part of the configuration is ignored")
	}
	wait := g.waits.warm
	if g.routes.Load() == nil { // there are no requests yet
		wait = 0
	}
	g.chains.follow(ctx, merged, wait)
	completed := g.chains.complete(merged)
	p.config, p.merged = g.shares.ApplyTo(completed), merged
	if config.Identical(p.config, whole) {
		g.shares.Applied(merged, time.Now())
	} else {
		if err := g.prepare(p); err != nil {
			return err
		}
		g.complete = nil // if it panics
		g.carryOut(ctx, p)
	}
	applied, g.complete = true, c
	g.tags.Applied(asked)
	g.chains.applied(completed)
	return nil
}

// open opens for p what is outside of this process. have are listeners whose sockets may stay.
func (g *Gateway) open(p *plan, before *config.Config, have []*listener) (err error) {
	if p.listeners, err = g.listeners.open(p.config, have); err != nil {
		return err
	}
	if err := g.requestLog.open(p, before); err != nil {
		return err
	}
	p.tokens, err = g.admin.open(p.config.Admin)
	return err
}

// openInPlace opens what c has in place of what was opened for p, before anything is in use.
func (g *Gateway) openInPlace(p *plan, c *config.Config) error {
	opened := *p
	p.config, p.accessLog, p.tracer = c, nil, nil
	err := g.open(p, nil, opened.listeners)
	for _, l := range opened.listeners {
		if !hasSocket(p.listeners, l) {
			g.listeners.release(l.Listener, false)
		}
	}
	_ = opened.accessLog.Close() // nothing was written
	opened.tracer.Close()
	return err
}

// discard closes what was opened for p, if it is not applied.
func (g *Gateway) discard(p *plan) {
	g.listeners.discard(p.listeners)
	g.certificates.Retain()
	_ = p.accessLog.Close() // nothing was written
	p.tracer.Close()
}

// prepare completes p. It changes nothing that is in use.
func (g *Gateway) prepare(p *plan) (err error) {
	if p.services, err = g.services.prepare(p.config); err != nil {
		return err
	}
	targets := make(map[string]*route.Service, len(p.services))
	for _, s := range p.services {
		targets[s.name] = routes.Service(s.name, s.pool, s.next)
	}
	if p.routes, err = routes.Build(p.config, targets, g.machine, g.limits.Fleet, g.reader, cmp.Or(g.routes.Load(), g.restored)); err != nil {
		return err
	}
	return g.listeners.permit(p.listeners, g.started.Admin.Socket) // last
}

// carryOut changes the running program to p, in the order of the package comment.
func (g *Gateway) carryOut(ctx context.Context, p *plan) {
	c := p.config
	g.services.apply(p.services)
	g.effective.Store(c)
	g.shares.Applied(p.merged, time.Now()) // before the waits below: what an operator or the judge gives meanwhile is for c
	g.process.Configure(c.Log.Level.Value, c.Log.Format)
	if p.tokens != nil {
		g.admin.tokens.Store(p.tokens)
	}
	if g.admin.has(c.Admin) && !reflect.DeepEqual(g.admin.socket, c.Admin.Socket) {
		g.admin.socket = c.Admin.Socket
		g.listeners.permitAgain(g.listeners.admin, g.admin.socket)
	}
	g.mesh.join(c)
	g.services.recheckAddresses()
	g.services.discovery.SetDebounce(c.Discovery.Debounce)
	g.certificates.UseRoutes(tlsOf(p.listeners), c)
	serves := g.routes.Load() != nil // there may be requests
	if serves {
		g.mesh.await(ctx, g.waits.warm) // instances in the mesh get requests at once
	}
	g.services.watch(p.services, false)
	p.routes.Start(g.cut)
	if serves {
		g.services.awaitFirst(ctx, p.routed(), g.waits.warm)
		if p.lacksPeers() && g.services.discovery.AwaitResume(ctx, g.waits.paused) { // the new process, for which nothing is watched, does not serve
			g.services.awaitFirst(ctx, p.routed(), g.waits.warm)
		}
		g.services.discovery.AwaitSources(ctx, g.waits.warm, moved(p.services)...)
		p.routes.AwaitKeys(ctx, g.waits.warm)
		g.certificates.Await(ctx, tlsOf(p.listeners), g.waits.warm)
	}
	g.services.useMeshTLS(p.services)
	g.services.applyGroups(p.services)
	former := g.routes.Swap(p.routes)
	g.proxy.SetTable(p.routes.Table, namesOf(p.listeners))
	g.requestLog.apply(p, g.proxy) // at once: whom to believe, and whom the routes let in, belong together
	g.services.watch(p.services, true)
	former.Close(p.routes, g.waits.retire)
	for i, streams := range p.routes.Streams {
		p.listeners[i].streams.Store(streams)
	}
	g.listeners.apply(p.listeners, c)
	g.certificates.Retain()
	g.services.retain(p.services, g.waits.retire)
	g.mesh.leave(c)
}

// routed returns the new services that routes or listeners use.
func (p *plan) routed() (list []*service) {
	routed, streamed := p.config.RoutedServices(), config.StreamedServices(p.config.Listeners)
	for _, s := range p.services {
		if s.created && (routed[s.name] || streamed[s.name]) && !lacksChain(s.next) {
			list = append(list, s.service)
		}
	}
	return list
}

// lacksPeers reports whether a new service that routes or listeners use has no set yet.
func (p *plan) lacksPeers() bool {
	return slices.ContainsFunc(p.routed(), func(s *service) bool { return !wake.Closed(s.first) })
}
