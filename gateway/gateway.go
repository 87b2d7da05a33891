package gateway

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/admin/fleet"
	"sluice/admin/series"
	"sluice/balancer"
	"sluice/certificates"
	listenertls "sluice/certificates/listeners"
	"sluice/config"
	"sluice/config/chain"
	"sluice/config/live"
	"sluice/config/routes"
	"sluice/consul/mesh"
	"sluice/discovery/locality"
	"sluice/observe/events"
	"sluice/observe/logs"
	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/operator"
	"sluice/proxy"
	"sluice/proxy/handover"
	"sluice/proxy/handover/systemd"
	"sluice/proxy/http3"
	"sluice/proxy/packets"
	"sluice/proxy/socket"
	"sluice/release"
	"sluice/route"
	"sluice/tags/catalog"
)

const (
	// startTimeout limits how long sluice waits at the start for the first set of each service
	// before it accepts connections.
	startTimeout = time.Second

	// stopMargin is how much longer than its limits a stop may take, before systemd kills this
	// process.
	stopMargin = 10 * time.Second

	// recheckInterval is the time between two checks which addresses may be connected to: those
	// of this machine may change.
	recheckInterval = 10 * time.Second

	// certificatesEvery is the time between two reads of the files of certificates.
	certificatesEvery = 5 * time.Second
)

// Options configure a gateway.
type Options struct {
	Input   config.Input
	Version string    // of the program, for metrics
	Log     io.Writer // receives the log; os.Stderr if nil

	// Listen binds the address of the listener of that name; socket.Listen if nil.
	Listen func(name, network, address string) (net.Listener, error)
	// Release closes a listener from Listen that a later configuration does not have, or that
	// was never used; its Close if nil.
	Release func(l net.Listener, used bool)
	// ListenPacket is Listen for the UDP socket of a listener with HTTP/3. ReleasePacket closes
	// it.
	ListenPacket  func(name, address string) (*packets.Socket, error)
	ReleasePacket func(*packets.Socket)
	// RequestState, if not nil, requests the state of the old process. It is called after
	// the listeners are bound. replacing reports whether there is an old process.
	// state is nil if it sends none.
	RequestState func() (state io.ReadCloser, replacing bool, err error)
	// Former, if not nil, asks the old process, whose Gateway.Answer gives the answer. Without
	// an old process it leaves answer as it is.
	Former func(question, answer any) error
	// Serving, if not nil, is called once, before clients are served.
	Serving func() error
	// Replaced is closed when a new process has taken over the listeners. Run then
	// ends as if its context had ended, but without shutdown.delay.
	Replaced <-chan struct{}

	// Witness is balancer.Options.NewWitness of all pools, in tests; nil: none.
	Witness func(*balancer.Pool) balancer.Witness

	Systemd *systemd.Manager // nil: it did not start this process
}

// Gateway is a running sluice. Its methods may be called concurrently.
type Gateway struct {
	options   Options
	logs      *logs.Writer
	log       zerolog.Logger
	started   *config.Config // the first configuration, with the values in use of keys that need a restart
	documents *live.Manager
	history   *config.History // of documents
	// effective is the configuration in use: the latest of the history, merged with the
	// services found in the catalog.
	effective atomic.Pointer[config.Config]
	// complete is the configuration of the documents, if all of effective is in use; nil: not
	// all is. Only apply uses it.
	complete *config.Config
	routes   atomic.Pointer[routes.Routes] // of effective
	restored *routes.Routes                // of the old process
	proxy    *proxy.Server

	finder  *catalog.Finder
	tags    *catalog.Reader
	chains  *chains
	shares  *release.Shares
	judge   *release.Judge
	orders  *operator.Peers
	process *operator.Process // orders about this process
	owner   operator.Ownership

	registries   *registries
	mesh         *membership
	machine      *locality.Machine
	services     *services
	certificates *listenertls.Manager
	listeners    *listeners
	admin        *adminServer
	reader       *route.Handler // of the admin API, for routes to it
	requestLog   *requestLog
	readiness    *readiness
	upgrade      *upgrade
	replica      *replica
	limits       *fleet.Limits

	events    *events.Feed
	series    *series.Recorder
	unobserve func()             // ends the reports of panics
	failed    chan error         // capacity 1: the error that ends Run
	cut       context.Context    // ends when requests in flight are cut
	Cut       context.CancelFunc // cuts them

	waits waits
}

// waits limit how long a gateway waits. Tests change them before Run.
type waits struct {
	certificates time.Duration // certificatesEvery
	start        time.Duration // startTimeout
	warm         time.Duration // warmTimeout
	retire       time.Duration // retireTimeout
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
	if o.Systemd == nil {
		o.Systemd = new(systemd.Manager)
	}
	if o.ListenPacket == nil {
		o.ListenPacket, o.ReleasePacket = openPacket, func(s *packets.Socket) { _ = s.Close() }
	}
	if o.Release == nil {
		o.Release = func(l net.Listener, _ bool) { _ = l.Close() }
	}
	g := &Gateway{
		options: o, failed: make(chan error, 1),
		waits: waits{certificatesEvery, startTimeout, warmTimeout, retireTimeout, applyFoundRetry, takeoverTimeout, pauseTimeout},
	}
	if g.documents, err = live.Load(o.Input); err != nil {
		return nil, err
	}
	g.history = g.documents.History()
	c := g.documents.First()
	g.started = c
	g.logs = logs.New(o.Log, c.Log.Level.Value, c.Log.Format)
	g.cut, g.Cut = context.WithCancel(context.Background())
	g.events = events.New()
	g.process = operator.NewProcess(&g.owner, g.logs, g.events)
	g.process.Configure(c.Log.Level.Value, c.Log.Format)
	g.log = g.logs.Logger()
	g.unobserve = panics.Observe(reportPanics(g.events, g.log))
	g.machine = locality.New()
	g.machine.Ask(revealed(c.Consul.Addresses))
	if g.registries, err = newRegistries(g.config, g.machine, g.events, g.log); err != nil {
		return nil, err
	}
	g.proxy = proxy.NewServer(proxyOptions(c.Client, nil, nil), g.log)
	g.documents.Connect(g.documentOptions())
	g.tags = catalog.NewReader(g.documents.Reapply)
	g.finder = catalog.NewFinder(g.registries.consulSets.Catalog, g.documents.Reapply, g.log)
	g.mesh = newMembership(g.registries, func() []mesh.Destination { return g.services.destinations() }, func(d mesh.Destination) { g.services.cut(d) }, g.events, g.log)
	g.chains = newChains(mesh.ChainOptions{Consul: g.registries.consul, Wait: g.registries.wait, Changed: g.documents.Reapply, Log: g.log}, g.events)
	warm := make(chan struct{})
	g.services = &services{
		warm:       warm,
		witness:    o.Witness,
		registries: g.registries, mesh: g.mesh.identity, intentions: g.mesh.intentions, proxy: g.proxy, machine: g.machine, tags: g.tags, log: g.log,
		orders: func() operator.Set { return g.orders.Set() },
	}
	if err := g.services.open(c, &g.owner, g.events); err != nil {
		return nil, err
	}
	if g.admin, err = newAdminServer(c.Admin, g.events, g.log); err != nil {
		return nil, err
	}
	g.certificates = listenertls.New(listenertls.Options{
		Consul: g.registries.consul, Wait: g.registries.wait, Copies: c.Consul.CertificatesDir, Log: g.log,
		Revoked: g.proxy.EndRevoked,
		Others: func() []certificates.Use {
			return slices.Concat(g.registries.certificates(), g.mesh.identity.Uses(), g.admin.certificates(), g.services.certificates())
		},
	})
	g.requestLog = &requestLog{version: o.Version, log: g.log}
	g.readiness = &readiness{
		services: g.services, mesh: g.mesh, documents: g.documents, finder: g.finder, chains: g.chains, tags: g.tags, effective: g.config,
		process: g.process, systemd: o.Systemd,
		lacksCertificates: g.certificates.Missing, events: g.events, log: g.log, answered: make(chan struct{}), became: make(chan struct{}),
	}
	g.shares, g.judge = g.newRelease(c)
	g.orders = g.newOrders(c)
	g.upgrade = &upgrade{
		consul: g.registries.consul, parts: g.parts, save: g.services.snapshot.Save, own: g.own, version: o.Version, events: g.events, log: g.log, warm: warm,
		follow: g.services.followNeeded, denials: g.mesh.intentions,
		watching: []pausable{g.services.discovery, g.finder, g.mesh.identity, g.mesh.intentions, g.chains.watch, g.certificates, g.shares.Store, g.orders.Store, g.documents},
	}
	g.listeners = &listeners{
		listen: o.Listen, release: o.Release, listenPacket: o.ListenPacket, releasePacket: o.ReleasePacket,
		ending: make(map[string]*http3.Endpoint), certificates: g.certificates, proxy: g.proxy, machine: g.machine,
		upgrade: g.upgrade, fail: g.fail, log: g.log,
	}
	g.replica = &replica{
		registries: g.registries, services: g.services, history: g.history, orders: g.orders, shares: g.shares,
		readiness: g.readiness, listeners: g.listeners, upgrade: g.upgrade, former: g.askFormer, version: o.Version, log: g.log,
	}
	g.limits = fleet.NewLimits(fleet.LimitsOptions{
		Limits: func() []routes.FleetLimit { return g.routes.Load().FleetLimits() }, Name: g.replica.name, Survey: g.replica.others, Log: g.log,
	})
	g.series = series.NewRecorder(g.services.pools)
	api := g.apiOptions()
	g.admin.http.Handler, g.reader = admin.New(api), route.NewHandler(admin.NewReader(api))
	defer func() {
		if err != nil {
			_ = g.proxy.Shutdown(context.Background(), 0) // it has no clients
			g.release(context.Background())
		}
	}()
	if err := g.apply(context.Background(), c); err != nil {
		return nil, err
	}
	g.own(!g.upgrade.takingOver)
	if before := g.documents.Begin(len(g.shares.Counting()) > 0); before != nil {
		g.shares.GoOn(before)
	}
	if unused := o.Systemd.Unused(); len(unused) > 0 {
		g.log.Warn().Strs("sockets", unused).
			Msg("systemd opens sockets that no listener has: FileDescriptorName of a socket unit must be the name of a listener")
	}
	return g, nil
}

// config returns the configuration in use or, at the start, the first one.
func (g *Gateway) config() *config.Config { return cmp.Or(g.effective.Load(), g.started) }

// table returns the route table in use: New has applied one.
func (g *Gateway) table() *route.Table { return g.routes.Load().Table }

// parts returns what a new process continues with, in the order in which it restores that.
// abandoned is the number of connections to Consul that the agent still counts: the new process
// must not open as many for a while.
func (g *Gateway) parts(abandoned int) []handover.Part {
	return append([]handover.Part{
		handover.NewPart("by_operator", g.process.State, g.process.Restore),
		handover.NewPart("orders", g.orders.Store.State, g.orders.Store.Restore),
		handover.NewPart("given_shares", g.shares.Store.State, g.shares.Restore),
		handover.NewPart("route_holders", func() map[string]string { return g.tags.InUse().Holders }, g.tags.Restore),
		handover.NewPart("history", g.documents.History, g.documents.Restore),
		handover.NewPart("catalog", func() *catalog.State { return g.finder.Save(g.effective.Load()) }, func(old *catalog.State) {
			g.finder.Restore(g.documents.First(), old, slices.DeleteFunc(g.services.snapshot.Services(), chain.IsDerived))
		}),
		handover.NewPart("mesh_identity", g.mesh.identity.Save, g.mesh.identity.Restore),
		handover.NewPart("intentions", g.mesh.intentions.All, g.mesh.intentions.Restore),
		handover.NewPart("chains", g.chains.save, g.chains.watch.Restore),
		handover.NewPart("services", g.services.discovery.Save, g.services.discovery.Restore),
		handover.NewPart("out_of_service", g.services.save, g.services.restore),
		handover.NewPart("registered_as", g.replica.registrar.Save, g.replica.registrar.Restore),
		handover.NewPart("access", func() routes.State { return g.routes.Load().Save() }, func(s routes.State) { g.restored = routes.Restored(s) }),
		handover.NewPart("fleet_limits", g.limits.Save, g.limits.Restore),
		handover.NewPart("short", func() int { return abandoned + g.registries.consul.Reduction() }, g.registries.consul.Reduce),
	}, g.certificates.Parts()...)
}

// reportPanics returns what logs a panic that ended only what its goroutine served, and adds it to
// the feed.
func reportPanics(feed *events.Feed, log zerolog.Logger) func(panics.Contained) {
	return func(c panics.Contained) {
		line := log.Error().Stringer("at", c.Place).Str("panic", c.Value)
		if c.Unreported > 0 {
			line = line.Uint64("unreported", c.Unreported)
		}
		line.Str("stack", string(c.Stack)).Msg("sluice has panicked: only what the goroutine served has ended. Please report it")
		feed.Add(events.Event{Kind: events.KindPanicked, Level: events.Warning, Text: fmt.Sprintf("sluice has panicked (%s): only what the goroutine served has ended; the log has the stack. %s", c.Place, c.Value)})
	}
}

// newOrders returns the store of operators' orders about peers.
func (g *Gateway) newOrders(c *config.Config) *operator.Peers {
	return operator.New(operator.Options{
		Backing: g.backing(c.Admin.Orders, c.Consul.OrdersPrefix()),
		Replica: func() string { return g.replica.name() },
		Changed: func() { g.services.applyOrders() },
		Events:  g.events,
	})
}

// backing returns where a store has its orders: in a file, and below a prefix in Consul.
func (g *Gateway) backing(path, prefix string) operator.Backing {
	return operator.Backing{
		Path: path, Consul: g.registries.consul, Prefix: prefix, Wait: g.registries.wait, Own: g.owner.Do, Log: g.log,
	}
}

// newRelease returns the given shares, without any, and the judge.
func (g *Gateway) newRelease(c *config.Config) (*release.Shares, *release.Judge) {
	shares := release.NewShares(release.Options{
		Backing: g.backing(c.Admin.Shares, c.Consul.Shares),
		Replica: func() string { return g.replica.name() },
		Settled: func() bool { return wake.Closed(g.documents.Settled()) && wake.Closed(g.finder.Used()) },
		Changed: g.documents.Reapply,
		Events:  g.events,
	})
	return shares, release.NewJudge(release.JudgeOptions{
		Shares: shares, Config: g.effective.Load, Pool: g.services.pool, Events: g.events, Log: g.log,
	})
}
