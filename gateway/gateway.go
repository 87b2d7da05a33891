package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/accesslog"
	"sluice/config"
	"sluice/discovery"
	"sluice/discovery/consul"
	"sluice/healthcheck"
	"sluice/locality"
	"sluice/proxy"
	"sluice/registration"
	"sluice/route"
	"sluice/snapshot"
)

// startTimeout bounds how long the first connections wait to be accepted until
// every service knows its peers.
const startTimeout = time.Second

// Options are what a gateway is made of.
type Options struct {
	Input   config.Input
	Version string    // of the program, for its metrics
	Log     io.Writer // where the log goes; os.Stderr if nil

	// Listen binds an address; proxy.Listen if nil.
	Listen func(network, address string) (net.Listener, error)
	// Inherit, if not nil, asks the process before this one for what it knows, once
	// the listeners are bound. Replacing says whether there is one, given is what it
	// gives, if it does.
	Inherit func() (given io.ReadCloser, replacing bool, err error)
	// Serving, if not nil, is called once, when clients are about to be served.
	Serving func() error
	// Replaced is closed when another process has taken over the listeners. Then
	// Run ends as if its context had, but at once: the other one is ready.
	Replaced <-chan struct{}
}

// Gateway is a running sluice. It is safe for concurrent use.
type Gateway struct {
	options Options
	logs    *logWriter
	log     zerolog.Logger
	started *config.Config // the first configuration; keys that need a restart keep its values
	history config.History
	// effective is the configuration in use: the latest of history, with what was
	// found in the catalog.
	effective atomic.Pointer[config.Config]
	finder    *finder

	accessLog *accesslog.Logger
	journal   *journal
	consul    *consul.Client
	discovery *discovery.Manager
	snapshot  *snapshot.Store // nil: none is kept
	health    *healthcheck.Monitor
	registrar *registration.Registrar
	machine   *locality.Machine
	services  services
	proxy     *proxy.Server
	table     atomic.Pointer[route.Table] // as the proxy has it, for the admin API

	listeners []listener // admin's first
	admin     *http.Server
	token     atomic.Pointer[string] // the admin API's; "" if none is needed

	ready       atomic.Bool   // see judge
	becameReady chan struct{} // closed then
	stopping    atomic.Bool
	handed      handed          // what the process before this one knew; its Version is 0 if that is nothing
	takingOver  bool            // there is a process before this one
	served      atomic.Bool     // it has been told that this one serves
	replacing   sync.Mutex      // held by ReplaceBy
	elsewhere   bool            // another process serves in place of this one; for Run's goroutine
	cut         context.Context // ends when what is in flight is to be cut
	Cut         context.CancelFunc

	// Tests change these before Run.
	startPatience time.Duration // startTimeout
	warmPatience  time.Duration // warmTimeout
	regroupRetry  time.Duration // regroupRetry
	turnPatience  time.Duration // turnTimeout
	letGoPatience time.Duration // letGoTimeout

	reload chan struct{} // capacity 1: a reload is asked for
}

// New loads the configuration, opens the logs, binds the listeners and makes
// everything ready for Run. Its error is meant for people. The listeners
// accept connections from now on, but nobody serves them before Run.
func New(o Options) (_ *Gateway, err error) {
	if o.Log == nil {
		o.Log = os.Stderr
	}
	if o.Listen == nil {
		o.Listen = proxy.Listen
	}
	revision, err := o.Input.Load()
	if err != nil {
		return nil, err
	}
	c := revision.Config
	g := &Gateway{
		options: o, started: c, logs: newLogWriter(o.Log, c.Log), reload: make(chan struct{}, 1), becameReady: make(chan struct{}),
		startPatience: startTimeout, warmPatience: warmTimeout, regroupRetry: regroupRetry, turnPatience: turnTimeout, letGoPatience: letGoTimeout,
	}
	g.log = g.logs.logger()
	g.warn(revision)
	g.cut, g.Cut = context.WithCancel(context.Background())
	if err := g.readToken(); err != nil {
		return nil, err
	}
	if g.consul, err = consul.NewClient(ClientOptions(c.Consul, g.log)); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	if g.accessLog, err = g.openAccessLog(c.AccessLog); err != nil {
		return nil, err
	}
	g.journal = newJournal(g.log)
	g.health = healthcheck.NewMonitor(healthcheck.Options{MaxChecks: c.Health.MaxChecks})
	g.proxy = proxy.NewServer(proxyOptions(c.Client, g.log, g.accessLog))
	if g.snapshot, err = g.openSnapshot(c.Consul); err != nil {
		return nil, err
	}
	g.discovery = discovery.NewManager(discovery.ManagerOptions{
		Debounce: debounceOf(c.Consul.Debounce),
		Sink:     g.apply,
		Fallback: g.restore,
		Log:      g.log,
	})
	g.admin = g.newAdmin()
	defer func() {
		if err != nil {
			_ = g.proxy.Shutdown(context.Background(), 0) // it has served nobody
			g.release(context.Background())
		}
	}()
	if err := g.listen(c); err != nil {
		return nil, err
	}
	g.machine = locality.New()
	g.machine.Ask(c.Consul.Addresses)
	g.listens()
	g.inherit()
	g.finder = newFinder(g)
	if c.Catalog == nil {
		g.finder.settle()
	}
	if g.snapshot != nil {
		g.finder.expect(g.snapshot.Services())
	}
	g.expectHanded(c)
	merged := g.merge(c)
	p, err := g.prepare(merged)
	if err != nil {
		return nil, err
	}
	if err := g.carryOut(context.Background(), p, merged, false); err != nil {
		return nil, err
	}
	g.adopt()
	g.registrar = g.newRegistrar()
	g.registerAs(g.history.Applied(*revision))
	return g, nil
}

// Run serves until ctx ends, then lets the requests in flight finish within
// the configured grace, or until Cut. It returns nil after that, and an error
// if it could not go on serving. It must be called once.
func (g *Gateway) Run(ctx context.Context) error {
	background, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = g.discovery.Run(background) }) // ends with background only
	if g.snapshot != nil {
		running.Go(func() { g.snapshot.Run(background) })
	}
	running.Go(func() { g.becomeReady(background) })
	running.Go(func() { g.reloads(background) })
	running.Go(func() { g.readmits(background) })
	if g.options.Input.File != "" {
		running.Go(func() { g.watchFile(background) })
	}

	// The first requests should find peers: those from Consul are a matter of
	// milliseconds. The admin API answers at once, unless there is a process before
	// this one, whose answers stand until then. An order to stop does not
	// shorten the wait: with shutdown.delay, clients are served after it, too.
	warm := make(chan struct{})
	failed := make(chan error, len(g.listeners)+1)
	running.Go(func() {
		defer close(warm)
		if g.takingOver {
			if err := g.awaitTurn(background); err != nil {
				failed <- err
				<-background.Done() // accepting nobody
				return
			}
		} else {
			begin := time.Now()
			g.awaitCatalog(background, g.startPatience)
			g.awaitFirst(background, g.services.all(), g.startPatience-time.Since(begin))
		}
		if g.options.Serving == nil || g.stopping.Load() {
			return // the process before this one goes on, if this one stops
		}
		g.served.Store(true)
		if err := g.options.Serving(); err != nil {
			g.log.Error().Err(err).Msg("the process before this one has not been told to stop")
		}
	})
	leave := g.register(warm)
	var serving sync.WaitGroup
	for _, l := range g.listeners {
		g.log.Info().Str("listener", l.name).Stringer("address", l.Addr()).Msg("listening")
		serving.Go(func() {
			if !l.admin || g.takingOver {
				<-warm
			}
			if g.takingOver && !g.served.Load() {
				return // whoever asks gets the answer of the process before
			}
			if err := g.serve(l); err != nil {
				failed <- err
			}
		})
	}

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	case <-g.options.Replaced:
		g.log.Info().Msg("replaced by a new process")
		g.leaveAdmin()
	}
	g.shutdown(leave, stop, &running)
	serving.Wait()
	g.log.Info().Msg("stopped")
	return err
}

// serve serves one listener until it is shut down.
func (g *Gateway) serve(l listener) error {
	if l.admin {
		if err := g.admin.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("admin listener %s: %w", l.Addr(), err)
		}
		return nil
	}
	if err := g.proxy.Serve(l, l.name); !errors.Is(err, proxy.ErrServerClosed) {
		return err
	}
	return nil
}

// leaveAdmin leaves the admin API to the process that has replaced this one:
// its answers must not tell of one that stops.
func (g *Gateway) leaveAdmin() {
	g.elsewhere = true
	ctx, cancel := context.WithTimeout(g.cut, time.Second)
	defer cancel()
	if err := g.admin.Shutdown(ctx); err != nil {
		_ = g.admin.Close()
	}
}

// shutdown ends everything in order: first the clients that Consul sends, then
// new requests, then those in flight, then what they need.
func (g *Gateway) shutdown(leave func(), stop context.CancelFunc, running *sync.WaitGroup) {
	settings := g.history.Current().Config.Shutdown
	g.stopping.Store(true)
	if g.takingOver && !g.served.Load() {
		g.elsewhere = true // as before
	}
	g.log.Info().Stringer("delay", settings.Delay).Stringer("grace", settings.Grace).
		Int("connections", g.proxy.Connections()).Msg("stopping")
	leave()
	if settings.Delay > 0 && !g.elsewhere {
		delay := time.NewTimer(settings.Delay)
		select {
		case <-delay.C:
		case <-g.cut.Done():
		}
		delay.Stop()
	}
	grace, cancel := context.WithTimeout(g.cut, settings.Grace)
	defer cancel()
	if err := g.proxy.Shutdown(grace, settings.Idle); err != nil {
		g.log.Warn().Msg("requests in flight were cut")
	}
	stop()
	running.Wait()
	g.release(grace)
}

// release frees what New made, after the proxy has been shut down.
func (g *Gateway) release(ctx context.Context) {
	if err := g.admin.Shutdown(ctx); err != nil {
		_ = g.admin.Close()
	}
	for _, l := range g.listeners {
		_ = l.Close() // those that were served are closed already
	}
	g.health.Close()
	g.journal.close()
	for _, service := range g.services.all() {
		service.pool.Close()
	}
	g.consul.Close()
	if err := g.accessLog.Close(); err != nil {
		g.log.Error().Err(err).Msg("access log")
	}
	g.Cut()
}

// apply hands a service's set to its pool. The discovery manager calls it, one
// set after the other.
func (g *Gateway) apply(name string, set []discovery.Instance) {
	if service := g.services.get(name); service != nil {
		service.apply(set)
	}
	if g.snapshot != nil {
		g.snapshot.Put(name, set)
	}
}

func (g *Gateway) setTable(t *route.Table) {
	g.table.Store(t)
	g.proxy.SetTable(t)
}

// watchFile reloads after each change of the configuration's file.
func (g *Gateway) watchFile(ctx context.Context) {
	w := config.Watcher{
		File:    g.options.Input.File,
		Hash:    g.history.Current().Hash,
		Changed: g.Reload,
		Problem: func(err error) {
			g.log.Warn().Err(err).Str("file", g.options.Input.File).
				Msg("no notice of changes of the configuration: looking at it every 10 seconds")
		},
	}
	w.Run(ctx)
}

func (g *Gateway) openAccessLog(a config.AccessLog) (*accesslog.Logger, error) {
	return accesslog.New(accesslog.Options{
		Path:   a.Path,
		Format: accesslog.Format(a.Format),
		Sample: float64(a.Sample),
		Notify: func(err error) {
			if err != nil {
				g.log.Error().Err(err).Str("path", a.Path).Msg("access log: lines are lost")
			} else {
				g.log.Info().Str("path", a.Path).Msg("access log works again")
			}
		},
	})
}

// readToken reads the admin API's token, if there is one.
func (g *Gateway) readToken() error {
	var token string
	if file := g.started.Admin.TokenFile; file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("admin.token_file: %w", err)
		}
		if token = strings.TrimSpace(string(data)); token == "" {
			return fmt.Errorf("admin.token_file: %s is empty", file)
		}
	}
	g.token.Store(&token)
	return nil
}
