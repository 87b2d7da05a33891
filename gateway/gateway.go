package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/admin/series"
	"sluice/balancer"
	"sluice/balancer/journal"
	"sluice/certificates"
	"sluice/certificates/listeners"
	"sluice/config"
	"sluice/config/live"
	"sluice/config/routes"
	"sluice/consul"
	"sluice/consul/registration"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	etcdsource "sluice/discovery/etcd"
	"sluice/discovery/etcd/client"
	kvsource "sluice/discovery/kv"
	"sluice/discovery/locality"
	"sluice/discovery/saved"
	"sluice/healthcheck"
	"sluice/observe/events"
	"sluice/observe/logs"
	"sluice/observe/panics"
	"sluice/observe/tracing"
	"sluice/operator"
	"sluice/proxy"
	"sluice/proxy/accesslog"
	"sluice/proxy/handover/systemd"
	"sluice/proxy/socket"
	"sluice/release"
	"sluice/route"
	"sluice/tags/catalog"
)

// startTimeout limits how long sluice waits at the start for the first set of each service
// before it accepts connections.
const startTimeout = time.Second

// Options configure a gateway.
type Options struct {
	Input   config.Input
	Version string    // of the program, for metrics
	Log     io.Writer // receives the log; os.Stderr if nil

	// Listen binds the address of the listener of that name; socket.Listen if nil.
	Listen func(name, network, address string) (net.Listener, error)
	// Release closes a listener from Listen that a later configuration does not have;
	// its Close if nil.
	Release func(net.Listener)
	// Inherit, if not nil, requests the state of the old process. It is called after
	// the listeners are bound. replacing reports whether there is an old process.
	// state is nil if it sends none.
	Inherit func() (state io.ReadCloser, replacing bool, err error)
	// Serving, if not nil, is called once, before clients are served.
	Serving func() error
	// Replaced is closed when a new process has taken over the listeners. Run then
	// ends as if its context had ended, but without shutdown.delay.
	Replaced <-chan struct{}

	Systemd *systemd.Manager // nil: it did not start this process
}

// Gateway is a running sluice. Its methods may be called concurrently.
type Gateway struct {
	options   Options
	logs      *logs.Writer
	log       zerolog.Logger
	started   *config.Config // the first configuration, with the values in use of keys that need a restart
	history   *config.History
	documents *live.Manager
	// effective is the configuration in use: the latest of history, merged with the
	// services found in the catalog.
	effective atomic.Pointer[config.Config]
	finder    *catalog.Finder
	shares    *release.Shares
	judge     *release.Judge
	orders    *operator.Peers
	process   *operator.Process // orders about this process
	tags      *catalog.Reader

	accessLog    atomic.Pointer[accesslog.Logger]
	tracer       atomic.Pointer[tracing.Tracer] // nil: no spans
	spans        tracing.Counters
	tracesClosed sync.WaitGroup // of earlier tracers
	events       *events.Feed
	unobserve    func() // ends the reports of panics
	series       *series.Recorder
	journal      *journal.Journal
	consul       *consul.Client
	sources      *consulsource.Sources
	kvSources    *kvsource.Sources
	etcd         *client.Clusters
	etcdSources  *etcdsource.Sources
	discovery    *discovery.Manager
	snapshot     *saved.Store
	health       *healthcheck.Monitor
	registrar    *registration.Registrar
	replica      registration.Replica // this process
	machine      *locality.Machine
	services     services
	proxy        *proxy.Server
	routes       atomic.Pointer[routes.Routes] // of effective

	certificates *listeners.Manager // of listeners

	mu        sync.Mutex  // guards the fields below
	listeners []*listener // for clients; the slice is replaced, not changed

	adminListener    net.Listener
	adminCertificate *certificates.Follower // nil: without TLS
	admin            *http.Server
	tokens           atomic.Pointer[adminTokens]
	serving          sync.WaitGroup // goroutines that serve listeners
	warm             chan struct{}  // closed when clients may be served
	failed           chan error     // capacity 1: the error that ends Run

	becameReady chan struct{} // closed when this process is ready: see progress
	stopping    atomic.Bool
	inherited   bool               // the state of an old process has been restored
	takingOver  bool               // this process replaces an old one
	served      atomic.Bool        // Options.Serving was called
	owner       operator.Ownership // whether this process writes files and takes orders
	replacing   sync.Mutex         // held by ReplaceBy
	replaced    bool               // another process serves clients; used by the goroutine of Run
	cut         context.Context    // ends when requests in flight are cut
	Cut         context.CancelFunc

	waits waits
}

// waits limit how long a gateway waits. Tests change them before Run.
type waits struct {
	certificates time.Duration // certificatesEvery
	start        time.Duration // startTimeout
	warm         time.Duration // warmTimeout
	applyFound   time.Duration // applyFoundRetry
	takeover     time.Duration // takeoverTimeout
	paused       time.Duration // pauseTimeout
}

// New loads the configuration, opens the logs, binds the listeners and creates everything
// that Run needs. The kernel accepts connections from now on; Run serves them.
func New(o Options) (_ *Gateway, err error) {
	if o.Log == nil {
		o.Log = os.Stderr
	}
	if o.Listen == nil {
		o.Listen = func(_, network, address string) (net.Listener, error) { return socket.Listen(network, address) }
	}
	if o.Release == nil {
		o.Release = func(l net.Listener) { _ = l.Close() }
	}
	g := &Gateway{
		options: o, becameReady: make(chan struct{}), warm: make(chan struct{}), failed: make(chan error, 1),
		waits: waits{certificatesEvery, startTimeout, warmTimeout, applyFoundRetry, takeoverTimeout, pauseTimeout},
	}
	if g.documents, err = live.Load(o.Input); err != nil {
		return nil, err
	}
	g.history = g.documents.History()
	c := g.documents.First()
	g.started = c
	g.logs = logs.New(o.Log, c.Log.Level.Value, false)
	g.cut, g.Cut = context.WithCancel(context.Background())
	g.events = events.New()
	g.process = operator.NewProcess(&g.owner, g.logs, g.events)
	g.process.Configure(c.Log.Level.Value, c.Log.Format == "console")
	g.log = g.logs.Logger()
	g.unobserve = panics.Observe(g.panicked)
	clientOptions := ClientOptions(c.Consul, g.log)
	clientOptions.Events = g.events
	if g.consul, err = consul.New(clientOptions); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	g.sources = consulsource.NewSources(g.consul, g.log)
	g.sources.Events = g.events
	g.etcd = client.NewClusters(func(endpoints string, err error) { certificates.LogChanges("etcd "+endpoints, g.log)(err) })
	g.etcdSources = etcdsource.NewSources(g.etcd, g.log)
	g.kvSources = kvsource.NewSources(g.consul, g.log)
	g.certificates = listeners.New(listeners.Options{Consul: g.consul, Wait: g.consulWait, Copies: c.Consul.CertificatesDir, Log: g.log})
	g.documents.Connect(g.documentOptions())
	g.journal = journal.New(g.events, g.log)
	g.health = healthcheck.NewMonitor(healthcheck.Options{MaxChecks: c.Health.MaxChecks})
	g.proxy = proxy.NewServer(proxyOptions(c.Client, nil, nil), g.log)
	if g.snapshot, err = saved.Open(saved.Options{
		Path: c.Discovery.Snapshot, MaxAge: c.Discovery.SnapshotMaxAge, Owner: g.owner.Do,
		States: func() map[string]discovery.WatchState { return g.discovery.States() }, Log: g.log,
	}); err != nil {
		return nil, fmt.Errorf("discovery.snapshot: %w", err)
	}
	g.discovery = discovery.NewManager(discovery.ManagerOptions{
		Debounce: discovery.Debounce(c.Discovery.Debounce),
		Sink:     g.deliver,
		Fallback: g.snapshot.Get,
		Complete: g.services.withFailures,
		Log:      g.log,
		Events:   g.events,
	})
	g.finder = catalog.NewFinder(g.sources.Catalog, g.documents.Again, g.log)
	g.shares, g.judge = g.newRelease(c)
	g.orders = g.newOrders(c)
	g.tags = catalog.NewReader(g.documents.Again)
	g.series = series.NewRecorder(g.services.pools)
	if g.admin, err = g.newAdmin(c.Admin.TLS); err != nil {
		return nil, err
	}
	g.machine = locality.New()
	g.machine.Ask(c.Consul.Addresses)
	defer func() {
		if err != nil {
			_ = g.proxy.Shutdown(context.Background(), 0) // it has no clients
			g.release(context.Background())
		}
	}()
	if err := g.apply(context.Background(), c); err != nil {
		return nil, err
	}
	g.own(!g.takingOver)
	g.noteInherited()
	g.documents.Begin(len(g.shares.Counting()) > 0)
	g.warnOfSockets()
	return g, nil
}

// Run serves until ctx ends. Then it waits until the requests in flight end, at most for
// shutdown.grace or until Cut. It returns an error only if it could not continue to serve.
// It must be called once.
func (g *Gateway) Run(ctx context.Context) error {
	background, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { // ends with background
		panics.Repeat(background.Done(), panics.Task, time.Second, func() { _ = g.discovery.Run(background) })
	})
	running.Go(func() {
		panics.Repeat(background.Done(), panics.Task, time.Second, func() { g.snapshot.Run(background) })
	})
	g.serveAdmin()
	for _, l := range g.listeners {
		g.serve(l)
	}
	if !g.takingOver {
		g.options.Systemd.Lead(false)
	}
	running.Go(func() {
		defer panics.Contain(panics.Task, nil)
		g.becomeReady(background)
	})
	running.Go(func() {
		panics.Repeat(background.Done(), panics.Task, time.Second, func() { g.feedWatchdog(background) })
	})
	running.Go(func() {
		panics.Repeat(background.Done(), panics.Task, time.Second, func() { g.followDocuments(background) })
	})
	if g.options.Input.File != "" {
		running.Go(func() {
			panics.Repeat(background.Done(), panics.Task, time.Second, func() { g.documents.WatchFile(background) })
		})
	}
	running.Go(func() {
		panics.Repeat(background.Done(), panics.Task, time.Second, func() { g.recheckAddresses(background) })
	})
	g.shares.Resume()
	g.orders.Resume()
	running.Go(func() {
		panics.Repeat(background.Done(), panics.Task, time.Second, func() { g.judge.Run(background) })
	})
	running.Go(func() {
		panics.Repeat(background.Done(), panics.Task, time.Second, func() { g.series.Run(background) })
	})
	running.Go(func() {
		panics.Repeat(background.Done(), panics.Task, time.Second, func() { g.followCertificates(background) })
	})

	// Wait until the first requests have peers; Consul answers in milliseconds. The admin
	// API answers at once, unless an old process still does. SIGTERM does not shorten
	// the wait: with shutdown.delay, clients are also served after it.
	running.Go(func() {
		defer panics.Contain(panics.Task, nil)
		defer close(g.warm)
		defer g.tags.Serve()
		begin := time.Now()
		if g.takingOver {
			if err := g.awaitTakeover(background); err != nil {
				g.fail(err)
				<-background.Done() // without accepting clients
				return
			}
			// The old process has the routes of the tags, so it serves until they are here too.
			g.tags.Await(background, max(g.waits.start, g.waits.takeover-time.Since(begin)))
			g.certificates.Await(background, nil, g.waits.start)
		} else {
			g.awaitDocuments(background, g.waits.start)
			g.awaitCatalog(background, g.waits.start-time.Since(begin))
			g.shares.AwaitFirst(background, g.waits.start-time.Since(begin))
			g.orders.AwaitFirst(background, g.waits.start-time.Since(begin))
			g.awaitFirst(background, g.services.all(), g.waits.start-time.Since(begin))
			g.awaitKnown(background, g.waits.warm)
			g.tags.Await(background, g.waits.start-time.Since(begin))
			g.certificates.Await(background, nil, g.waits.start-time.Since(begin))
		}
		if g.options.Serving == nil || g.stopping.Load() {
			return // if this process stops, the old one continues
		}
		g.served.Store(true)
		g.own(true)
		if g.takingOver {
			g.options.Systemd.Lead(true) // before the old process ends
		}
		if err := g.options.Serving(); err != nil {
			g.log.Error().Err(err).Msg("cannot tell the old process to stop")
		}
	})
	leave := g.register(g.warm)
	var err error
	select {
	case <-ctx.Done():
	case err = <-g.failed:
	case <-g.options.Replaced:
		g.options.Systemd.Leave()
		g.log.Info().Msg("replaced by a new process")
		g.events.Add(events.Event{Kind: events.KindReplaced, Text: "A new process serves: this one finishes its requests"})
		g.leaveAdmin()
	}
	g.shutdown(leave, stop, &running)
	g.serving.Wait()
	g.routes.Load().Close(nil)
	g.log.Info().Msg("stopped")
	return err
}

// leaveAdmin ends the admin API, which the new process serves now: the answers of this
// process would describe one that stops.
func (g *Gateway) leaveAdmin() {
	g.replaced = true
	ctx, cancel := context.WithTimeout(g.cut, time.Second)
	defer cancel()
	g.closeAdmin(ctx)
}

// closeAdmin waits for the requests to the admin API until ctx ends, then cuts them.
func (g *Gateway) closeAdmin(ctx context.Context) {
	if err := g.admin.Shutdown(ctx); err != nil {
		_ = g.admin.Close()
	}
}

// shutdown ends, in this order, the registration in Consul, new requests, requests in
// flight, and everything that they use.
func (g *Gateway) shutdown(leave func(), stop context.CancelFunc, running *sync.WaitGroup) {
	settings := g.history.Current().Config.Shutdown
	g.stopping.Store(true)
	if g.takingOver && !g.served.Load() {
		g.replaced = true // the old process serves clients
	}
	g.options.Systemd.Stopping(leaveTimeout + settings.Delay + settings.Idle + settings.Grace + stopMargin)
	g.log.Info().Stringer("delay", settings.Delay).Stringer("grace", settings.Grace).
		Int("connections", g.proxy.Connections()).Msg("stopping")
	g.events.Add(events.Event{Kind: events.KindStopping, Text: "sluice stops: it finishes its requests"})
	leave()
	if settings.Delay > 0 && !g.replaced {
		delay := time.NewTimer(settings.Delay)
		select {
		case <-delay.C:
		case <-g.cut.Done():
		}
		delay.Stop()
	}
	g.certificates.EndChallenges() // challenges cannot be answered any more
	grace, cancel := context.WithTimeout(g.cut, settings.Grace)
	defer cancel()
	if err := g.proxy.Shutdown(grace, settings.Idle); err != nil {
		g.log.Warn().Msg("requests in flight were cut")
	}
	stop()
	running.Wait()
	g.release(grace)
}

// release closes everything that New created. The proxy must have been shut down.
func (g *Gateway) release(ctx context.Context) {
	g.closeAdmin(ctx)
	for _, l := range g.allListeners() {
		_ = l.Close() // the proxy has closed those that it served
	}
	if g.adminListener != nil {
		_ = g.adminListener.Close()
	}
	g.health.Close()
	g.journal.Close()
	for _, service := range g.services.all() {
		service.pool.Close()
	}
	g.certificates.Close()
	g.shares.Pause()
	g.orders.Pause()
	g.consul.Close()
	if err := g.accessLog.Load().Close(); err != nil {
		g.log.Error().Err(err).Msg("access log")
	}
	g.tracer.Load().Close()
	g.tracesClosed.Wait()
	g.unobserve()
	g.Cut()
}

// table returns the route table in use.
func (g *Gateway) table() *route.Table {
	if r := g.routes.Load(); r != nil {
		return r.Table
	}
	return nil
}

// consulWait returns how long a blocking query to Consul blocks without a change.
func (g *Gateway) consulWait() time.Duration {
	if c := g.effective.Load(); c != nil {
		return c.Consul.Wait
	}
	return g.started.Consul.Wait
}

// deliver passes the set of a service to its pool. The discovery manager makes one call at a
// time.
func (g *Gateway) deliver(name string, set []discovery.Instance) {
	if service := g.services.get(name); service != nil {
		service.gate.Pass(set)
	}
	g.snapshot.Changed()
}

// watchPeers calls changed after each change of a file with peers, until ctx ends.
func (g *Gateway) watchPeers(ctx context.Context, path string, changed func()) {
	w := config.Watcher{
		File:    path,
		Changed: changed,
		Problem: func(err error) {
			g.log.Warn().Err(err).Str("file", path).Msg("the file system does not report changes: sluice reads the file with peers every 10 seconds")
		},
	}
	w.Run(ctx)
}

func (g *Gateway) openAccessLog(a config.AccessLog) (*accesslog.Logger, error) {
	return accesslog.New(accesslog.Options{
		Path:   a.Path,
		Format: accesslog.Format(a.Format),
		Sample: float64(a.Sample),
		Slow:   a.Slow,
		Notify: func(err error) {
			if err != nil {
				g.log.Error().Err(err).Str("path", a.Path).Msg("access log: lines are lost")
			} else {
				g.log.Info().Str("path", a.Path).Msg("access log works again")
			}
		},
	})
}

// newTracer returns the tracer of c, or nil if no spans are exported.
func (g *Gateway) newTracer(c config.Tracing) (*tracing.Tracer, error) {
	if c.OTLP == "" {
		return nil, nil
	}
	o := tracing.Options{
		Endpoint: c.OTLP, Headers: make(map[string]string), Sample: float64(c.Sample),
		Service: c.ServiceName, Version: g.options.Version, Counters: &g.spans,
		Notify: func(err error) {
			if err != nil {
				g.log.Warn().Err(err).Str("otlp", c.OTLP).Msg("spans are lost: the collector does not take them")
			} else {
				g.log.Info().Str("otlp", c.OTLP).Msg("the collector takes spans again")
			}
		},
	}
	o.Instance, _ = os.Hostname() // without a name it is empty
	for _, header := range c.Headers {
		o.Headers[header.Value[0]] = header.Value[1]
	}
	return tracing.New(o)
}

// notePeer passes an event of a pool on. The pool's mutex is held.
func (g *Gateway) notePeer(e balancer.Event) {
	g.journal.Note(e)
	if e.Kind == balancer.EventState && !e.Peer.Instance().Probation.IsZero() {
		g.snapshot.Changed() // it has failed for good, which is part of the state
	}
}
