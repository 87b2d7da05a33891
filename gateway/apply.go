package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"sluice/certificates"
	"sluice/config"
	"sluice/config/routes"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	dnssource "sluice/discovery/dns"
	etcdsource "sluice/discovery/etcd"
	filesource "sluice/discovery/file"
	kvsource "sluice/discovery/kv"
	"sluice/healthcheck"
	"sluice/observe/panics"
	"sluice/observe/tracing"
	"sluice/proxy/accesslog"
	"sluice/route"
)

// warmTimeout limits how long a reload waits for the first peers of new services before it
// routes requests to them.
const warmTimeout = 5 * time.Second

// sourceSpec is the source of the instances of a service. Two that are deeply equal need
// only one watch.
type sourceSpec struct {
	consul *consulsource.ServiceOptions
	etcd   *etcdsource.Options
	dns    *dnssource.Options
	kv     *kvsource.Options
	file   string
	peers  []discovery.Instance // without the others
}

func specOf(s config.Service, c config.Consul) sourceSpec {
	switch {
	case s.Consul != nil:
		o := ServiceOptions(*s.Consul, c)
		return sourceSpec{consul: &o}
	case s.Etcd != nil:
		o := etcdOptions(*s.Etcd)
		return sourceSpec{etcd: &o}
	case s.DNS != nil:
		o := dnsOptions(*s.DNS)
		return sourceSpec{dns: &o}
	case s.ConsulKV != nil:
		return sourceSpec{kv: &kvsource.Options{Key: s.ConsulKV.Key, Wait: c.Wait, Probation: *s.ConsulKV.Probation}}
	case s.File != "":
		return sourceSpec{file: s.File}
	}
	return sourceSpec{peers: config.Values(s.Peers)}
}

// apply merges c, the configuration from the documents, with all other fragments, and changes
// the running program accordingly. After an error nothing has changed.
func (g *Gateway) apply(ctx context.Context, c *config.Config) (err error) {
	p := &plan{config: c}
	defer func() {
		if err != nil {
			g.discard(p)
		}
	}()
	if err := g.open(p); err != nil {
		return err
	}
	if g.effective.Load() == nil {
		g.registrar = g.newRegistrar()
		c = g.inherit()
		g.tags.Start(c)
	}
	asked := g.tags.Ask(c, g.finder.Fragment(c))
	merged, conflicts := config.Merge(asked.Config, asked.Found, asked.Routes)
	for _, conflict := range conflicts {
		g.log.Warn().Err(conflict).Msg("a part of the configuration is ignored")
	}
	p.config = g.shares.ApplyTo(merged)
	if !config.Identical(p.config, g.effective.Load()) {
		if err := g.prepare(p); err != nil {
			return err
		}
		if err := g.carryOut(ctx, p); err != nil {
			return err
		}
	}
	g.shares.Applied(merged, time.Now())
	g.tags.Applied(asked)
	return nil
}

// plan is a new configuration, with all parts whose creation can fail. None of them is
// in use.
type plan struct {
	config    *config.Config
	listeners []*listener
	accessLog *accesslog.Logger // nil: unchanged
	tracer    *tracing.Tracer   // nil: unchanged, or no spans
	tokens    *adminTokens      // nil: unchanged

	created []*service          // new services
	wanted  map[string]*service // all services, by name
	specs   map[string]sourceSpec
	health  map[string]healthcheck.Settings
	sources map[string]discovery.Source // of services with a new source
	routes  *routes.Routes

	// Of the services that are new or changed.

	certificates map[string][]certificates.Use
	upstreamTLS  map[string]*certificates.Client
}

// open opens the sockets and files of p that are not open yet.
func (g *Gateway) open(p *plan) (err error) {
	c, before := p.config, g.effective.Load()
	if p.listeners, err = g.listen(c); err != nil {
		return err
	}
	if before == nil || before.AccessLog != c.AccessLog {
		if p.accessLog, err = g.openAccessLog(c.AccessLog); err != nil {
			return err
		}
	}
	if before == nil || !reflect.DeepEqual(before.Tracing, c.Tracing) {
		if p.tracer, err = g.newTracer(c.Tracing); err != nil {
			return err
		}
	}
	now := g.tokens.Load()
	if now == nil || g.isAdmin(c.Admin) && (now.operateFile != c.Admin.TokenFile || now.lookFile != c.Admin.ReadTokenFile) {
		p.tokens, err = readTokens(c.Admin.TokenFile, c.Admin.ReadTokenFile)
	}
	return err
}

// discard closes what open opened, if p is not applied.
func (g *Gateway) discard(p *plan) {
	for _, l := range p.listeners {
		if !hasSocket(g.allListeners(), l) {
			g.options.Release(l.Listener)
		}
	}
	g.certificates.Retain()
	_ = p.accessLog.Close() // nothing was written
	p.tracer.Close()
}

// prepare completes p. It changes nothing that is in use.
func (g *Gateway) prepare(p *plan) (err error) {
	c := p.config
	p.wanted = make(map[string]*service)
	p.specs = make(map[string]sourceSpec)
	p.health = make(map[string]healthcheck.Settings)
	p.sources = make(map[string]discovery.Source)
	p.certificates = make(map[string][]certificates.Use)
	p.upstreamTLS = make(map[string]*certificates.Client)
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		wanted := c.Services[name]
		current := g.services.get(name)
		// The files of an unchanged service are not read: they may be missing now.
		if current == nil || !reflect.DeepEqual(current.config, wanted) {
			if p.health[name], err = g.healthOf(name, wanted, p); err != nil {
				return fmt.Errorf("service %q: %w", name, err)
			}
			if p.upstreamTLS[name], err = g.upstreamTLSOf(name, wanted, current, p); err != nil {
				return fmt.Errorf("service %q: %w", name, err)
			}
		}
		if current == nil {
			if current, err = g.newPool(name, wanted, p.health[name]); err != nil {
				return err
			}
			p.created = append(p.created, current)
		}
		p.wanted[name] = current
		spec := specOf(wanted, c.Consul)
		p.specs[name] = spec
		if reflect.DeepEqual(spec, current.source) {
			continue
		}
		if p.sources[name], err = g.newSource(name, spec); err != nil {
			return fmt.Errorf("service %q: %w", name, err)
		}
	}
	targets := make(map[string]*route.Service, len(p.wanted))
	for name, service := range p.wanted {
		targets[name] = routes.Service(name, service.pool, c.Services[name])
	}
	p.routes, err = routes.Build(c, targets, g.machine, g.routes.Load())
	return err
}

func (g *Gateway) newSource(name string, spec sourceSpec) (discovery.Source, error) {
	switch {
	case spec.consul != nil:
		return g.sources.Source(*spec.consul), nil
	case spec.etcd != nil:
		return g.etcdSources.Source(name, *spec.etcd)
	case spec.dns != nil:
		return dnssource.NewSource(name, *spec.dns), nil
	case spec.kv != nil:
		return g.kvSources.Source(name, *spec.kv), nil
	case spec.file != "":
		return filesource.NewSource(name, filesource.Options{Path: spec.file, Watch: g.watchPeers}), nil
	}
	return discovery.NewStatic(name, spec.peers), nil
}

// carryOut changes the running program to p, in the order of the package comment.
func (g *Gateway) carryOut(ctx context.Context, p *plan) error {
	c := p.config
	for name, service := range p.wanted {
		if service.source.zero() || reflect.DeepEqual(service.config, c.Services[name]) {
			continue // new or unchanged
		}
		if err := g.configurePool(service, c.Services[name], p.health[name]); err != nil {
			return err // impossible with a checked configuration
		}
	}
	for _, service := range p.created {
		service.gate = g.tags.Gate(service.name, service.apply)
	}
	g.services.add(p.created)
	for _, service := range p.created {
		g.applyOrders(service) // orders may have changed since
	}
	for _, service := range p.created {
		service.checker.Start(service.pool, p.health[service.name])
	}
	for name, service := range p.wanted {
		service.config, service.source = c.Services[name], p.specs[name]
		if uses, changed := p.certificates[name]; changed {
			service.certificates.Store(&uses)
			service.upstreamTLS.Store(p.upstreamTLS[name])
		}
	}
	before := g.effective.Swap(c)
	g.process.Configure(c.Log.Level.Value, c.Log.Format == "console")
	if p.tokens != nil {
		g.tokens.Store(p.tokens)
	}
	if before != nil && !reflect.DeepEqual(before.Admin.Socket, c.Admin.Socket) && g.isAdmin(c.Admin) {
		g.permitAgain(g.adminListener, c.Admin.Socket)
	}
	g.useProxyOptions(p)
	g.recheckAddressesNow()
	g.discovery.SetDebounce(discovery.Debounce(c.Discovery.Debounce))
	g.discovery.WatchAll(p.sources)
	if g.routes.Load() != nil { // there may be requests
		g.awaitFirst(ctx, p.routed(), g.waits.warm)
		g.awaitStatic(ctx, g.waits.warm)
		g.certificates.Await(ctx, tlsOf(p.listeners), g.waits.warm)
	}
	former := g.routes.Swap(p.routes)
	g.proxy.SetTable(p.routes.Table)
	former.Close(p.routes)
	for i, l := range p.listeners {
		l.streams.Store(p.routes.Streams[i])
	}
	g.useListeners(p.listeners, c)
	g.certificates.Retain()
	for _, service := range g.services.all() {
		if p.wanted[service.name] == nil {
			g.discovery.Unwatch(service.name)
			g.tags.Forget(service.name)
			service.checker.Stop()
			service.pool.Close()
			g.services.retire(service)
		}
	}
	return nil
}

// useProxyOptions applies the client settings, the access log and the tracer of p.
func (g *Gateway) useProxyOptions(p *plan) {
	before, tracer := g.accessLog.Load(), g.tracer.Load()
	if p.tracer != nil || p.config.Tracing.OTLP == "" {
		tracer = p.tracer
	}
	now := cmp.Or(p.accessLog, before)
	g.proxy.Configure(proxyOptions(p.config.Client, now, tracer))
	if old := g.tracer.Swap(tracer); old != tracer {
		g.tracesClosed.Go(func() { // it may wait for the collector
			defer panics.Contain(panics.Task, nil)
			old.Close()
		})
	}
	if now == before {
		return
	}
	g.accessLog.Store(now)
	if err := before.CloseFor(now); err != nil {
		g.log.Error().Err(err).Msg("access log: the last lines of the old file are lost")
	}
}

// routed returns the new services that routes or listeners use.
func (p *plan) routed() []*service {
	used := make(map[string]bool)
	for i := range p.config.Routes {
		for _, name := range p.config.Routes[i].ServiceNames() {
			used[name] = true
		}
	}
	for _, l := range p.config.Listeners {
		for _, name := range l.StreamServices() {
			used[name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(p.created), func(s *service) bool { return !used[s.name] })
}

// zero reports whether s is the source of a service that is not in use yet.
func (s sourceSpec) zero() bool { return reflect.ValueOf(s).IsZero() }

// awaitStatic waits until the pools have the peers of the configuration, at most for timeout.
func (g *Gateway) awaitStatic(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	g.discovery.AwaitStatic(ctx)
}

// awaitKnown waits until the pools have each set that is known without a registry, that of the
// configuration or of the snapshot, so that no client comes before them however slow the machine is.
func (g *Gateway) awaitKnown(ctx context.Context, timeout time.Duration) {
	g.discovery.Restore()
	watches := g.watches()
	known := slices.DeleteFunc(g.services.all(), func(s *service) bool {
		watch, watched := watches[s.name]
		return !watched || watch.State == discovery.WatchPending
	})
	g.awaitFirst(ctx, known, timeout)
	g.awaitStatic(ctx, timeout)
}

// awaitFirst waits until the pools of services have their first set, at most for timeout.
func (g *Gateway) awaitFirst(ctx context.Context, services []*service, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, service := range services {
		select {
		case <-service.first:
		case <-ctx.Done():
			if !closed(service.first) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				g.log.Warn().Str("service", service.name).Stringer("waited", timeout).
					Str("missing", service.missing(g.watches()[service.name])).Msg("no peers yet")
			}
		}
	}
}
