package gateway

import (
	"context"
	"io"
	"sync"
	"time"

	"sluice/certificates"
	"sluice/consul"
	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// Run serves until ctx ends. Then it waits until the requests in flight end, at most for
// shutdown.grace or until Cut. It returns an error only if it could not continue to serve.
// It must be called once.
func (g *Gateway) Run(ctx context.Context) error {
	background, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	once := func(task func(context.Context)) {
		running.Go(func() {
			defer panics.Contain(panics.Task, nil)
			task(background)
		})
	}
	always := func(task func(context.Context)) { // it ends with background
		running.Go(func() {
			panics.Repeat(background.Done(), panics.Task, time.Second, func() { task(background) })
		})
	}
	always(func(ctx context.Context) { _ = g.services.discovery.Run(ctx) })
	always(g.services.snapshot.Run)
	var serving sync.WaitGroup
	g.log.Info().Str("listener", adminName).Str("address", endpoint(g.listeners.admin.Addr())).Msg("listening")
	serving.Go(func() {
		defer panics.Contain(panics.Task, nil)
		if g.upgrade.takingOver { // the old process has the admin API until this one serves clients
			if <-g.upgrade.warm; !g.upgrade.serves() {
				return
			}
		}
		if err := g.admin.serve(g.listeners.admin); err != nil {
			g.fail(err)
		}
	})
	g.proxy.LackRoutes(true)
	for _, l := range g.listeners.all() {
		g.listeners.serve(l)
	}
	if !g.upgrade.takingOver {
		g.options.Systemd.Lead(false)
	}
	once(g.readiness.await)
	once(func(ctx context.Context) { g.readiness.awaitRoutes(ctx, func() { g.proxy.LackRoutes(false) }) })
	always(g.readiness.feedWatchdog)
	always(g.followDocuments)
	if name := g.options.Input.Service; name != "" {
		once(func(ctx context.Context) { g.registries.warnUnknown(ctx, name) })
	}
	if g.options.Input.File != "" {
		always(g.documents.WatchFile)
	}
	always(func(ctx context.Context) { every(ctx, recheckInterval, g.services.recheckAddresses) })
	always(func(ctx context.Context) { every(ctx, recheckInterval, g.mesh.leaveAtLast) })
	g.shares.Store.Resume()
	g.orders.Store.Resume()
	always(g.judge.Run)
	always(g.series.Run)
	always(g.limits.Follow)
	always(g.limits.Run)
	always(g.followCertificates)
	once(g.warmUp)
	leave := g.replica.register()
	var err error
	select {
	case <-ctx.Done():
	case err = <-g.failed:
	case <-g.options.Replaced:
	}
	if wake.Closed(g.options.Replaced) { // also if it is to stop: the new process is registered
		g.options.Systemd.Leave()
		g.log.Info().Msg("replaced by a new process")
		g.events.Add(events.Event{Kind: events.KindReplaced, Text: "A new process serves: this one finishes its requests"})
		g.upgrade.replaced = true
		always(func(ctx context.Context) { every(ctx, neededEvery, g.upgrade.followOn) }) // also for requests that are still to come
		// The new process serves the admin API now: the answers of this one would describe one that
		// stops.
		ending, cancel := context.WithTimeout(g.cut, time.Second)
		g.admin.close(ending)
		cancel()
	}
	g.shutdown(leave, func() {
		stop()
		running.Wait()
	})
	serving.Wait()
	g.listeners.serving.Wait()
	g.routes.Load().Close(nil, 0)
	g.log.Info().Msg("stopped")
	return err
}

// warmUp waits until the first requests have peers, and begins to serve clients; Consul answers in
// milliseconds. The admin API answers at once, unless an old process still does. SIGTERM does not
// shorten the wait: with shutdown.delay, clients are also served after it.
func (g *Gateway) warmUp(ctx context.Context) {
	defer close(g.upgrade.warm)
	defer g.tags.Serve()
	begin := time.Now()
	left := func() time.Duration { return g.waits.start - time.Since(begin) }
	if g.upgrade.takingOver {
		if err := g.readiness.awaitTakeover(ctx, g.upgrade.restored, g.waits.takeover); err != nil {
			g.fail(err)
			<-ctx.Done() // without accepting clients
			return
		}
		// The old process has the routes of the tags, and certificates for the same names though
		// maybe below other prefixes: so it serves until they are here too.
		patience := func() time.Duration { return max(g.waits.start, g.waits.takeover-time.Since(begin)) }
		g.tags.Await(ctx, patience())
		g.routes.Load().AwaitKeys(ctx, patience()) // of issuers that the old process does not have: each one's first query ends in seconds
		g.certificates.AwaitPrefixes(ctx, patience())
		g.certificates.Await(ctx, nil, g.waits.start) // what else they need, which the old process may lack too
	} else {
		g.readiness.awaitSources(ctx, g.waits.start)
		g.shares.Store.AwaitFirst(ctx, left())
		g.orders.Store.AwaitFirst(ctx, left())
		g.mesh.await(ctx, left())
		g.services.awaitFirst(ctx, g.services.all(), left())
		g.services.awaitKnown(ctx, g.waits.warm)
		g.tags.Await(ctx, left())
		g.routes.Load().AwaitKeys(ctx, left())
		g.certificates.Await(ctx, nil, left())
	}
	if g.readiness.routesKnown() { // before the first client, so that its request needs no second try
		g.proxy.LackRoutes(false)
	}
	if g.options.Serving == nil || g.upgrade.decided.Swap(true) {
		return // if this process stops, the old one continues
	}
	g.upgrade.served.Store(true)
	g.own(true)
	if g.upgrade.takingOver {
		g.options.Systemd.Lead(true) // before the old process ends
	}
	if err := g.options.Serving(); err != nil {
		g.log.Error().Err(err).Msg("this process serves, but cannot tell others")
	}
	if g.upgrade.takingOver { // until now, a signal to open these again has reached the old process
		g.requestLog.reopen()
		g.admin.reopen()
	}
}

// shutdown ends, in this order, the registration in Consul, new requests, requests in
// flight, and everything that they use.
func (g *Gateway) shutdown(leave func(context.Context), stop func()) {
	settings := g.history.Current().Config.Shutdown
	g.readiness.stopping.Store(true)
	if !g.upgrade.decided.Swap(true) && g.upgrade.takingOver {
		g.upgrade.replaced = true // the old process serves clients
	}
	g.options.Systemd.Stopping(leaveTimeout + settings.Delay + settings.Idle + settings.Grace + stopMargin)
	g.log.Info().Stringer("delay", settings.Delay).Stringer("grace", settings.Grace).
		Int("connections", g.proxy.Connections()).Msg("stopping")
	g.events.Add(events.Event{Kind: events.KindStopping, Text: "sluice stops: it finishes its requests"})
	leave(g.cut)
	if settings.Delay > 0 && !g.upgrade.replaced {
		_ = consul.Sleep(g.cut, settings.Delay) // Cut ends it
	}
	g.certificates.EndChallenges() // challenges cannot be answered any more
	grace, cancel := context.WithTimeout(g.cut, settings.Grace)
	defer cancel()
	if err := g.proxy.Shutdown(grace, settings.Idle); err != nil {
		g.log.Warn().Msg("requests in flight were cut")
	}
	stop()
	g.release(grace)
}

// release closes everything that New created. The proxy must have been shut down.
func (g *Gateway) release(ctx context.Context) {
	g.admin.close(ctx)
	g.listeners.close()
	g.services.close()
	g.certificates.Close()
	g.mesh.identity.Pause()
	g.mesh.intentions.Pause()
	g.chains.watch.Pause()
	g.shares.Store.Close()
	g.orders.Store.Close()
	g.registries.consul.Close()
	g.requestLog.close()
	g.unobserve()
	g.Cut()
}

// fail ends Run with err, if it is the first.
func (g *Gateway) fail(err error) {
	select {
	case g.failed <- err:
	default:
	}
}

// ReplaceBy calls replace, which starts a process in place of this one, and logs the
// result. replace calls give when the new process starts, to write the state of this one.
// From then on the new process watches Consul, and the sets of this one do not change.
func (g *Gateway) ReplaceBy(replace func(give func(io.Writer) error) error) {
	g.upgrade.replaceBy(replace, g.waits.paused)
}

// own begins or ends the ownership of this process.
func (g *Gateway) own(owns bool) {
	g.owner.Set(owns)
	g.history.SetOwned(owns)
	if owns {
		g.orders.Store.Refresh()
		g.shares.Owned()
		g.services.snapshot.Changed()
	}
}

// followCertificates reads the files of certificates, users, keys and pages periodically from the
// time when clients may be served until ctx ends, and warns of certificates that are not valid or
// expire soon.
func (g *Gateway) followCertificates(ctx context.Context) {
	if wake.Await(ctx, g.upgrade.warm) != nil { // certificates in Consul are not known before
		return
	}
	warnings, faults := make(certificates.Warnings), make(map[string]string)
	every(ctx, g.waits.certificates, func() {
		g.certificates.Refresh()
		g.routes.Load().ReadFiles(faults, g.log)
		warnings.Log(g.certificates.Statuses(), time.Now(), g.log)
	})
}

// every calls f at once and then after each interval, until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	f()
	wake.Every(ctx, interval, f)
}
