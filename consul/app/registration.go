package app

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluice/consul"
	"sluice/consul/registration"
	"sluice/discovery"
	"sluice/discovery/locality"
	"sluice/healthcheck"
	"sluice/observe/panics"
)

const (
	// The time between two checks before the first success grows by half, from firstPause
	// to longestPause.
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
	// quietStart is how long a check may fail at the start before the log says so.
	quietStart = 2 * time.Second

	// There are many applications: queries to the servers of Consul are rare, and those to
	// the agent tell that it has lost the registration.
	probeInterval = 30 * time.Second
	checkInterval = 3 * time.Second

	// leaveTimeout limits the deregistration, leaveRetry is the time between its tries.
	leaveTimeout = 5 * time.Second
	leaveRetry   = 500 * time.Millisecond
)

// Registration is the registration of an application. Its methods may be called
// concurrently.
type Registration struct {
	options   Options
	client    *consul.Client
	registrar *registration.Registrar
	probe     healthcheck.Probe // nil: none
	host      atomic.Value      // of the last CheckedAddress: a failed look-up does not change it
	cut       func()            // closes isCut
	isCut     chan struct{}
}

// New returns a registration that does not exist yet. It uses no network. An error says
// everything that is wrong with the options.
func New(o Options) (*Registration, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	o.Consul.Log, o.Consul.ProbeInterval = o.Log, probeInterval
	client, err := consul.New(o.Consul)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // without a name it is empty
	r := &Registration{options: o, client: client, probe: o.probe(), isCut: make(chan struct{})}
	r.cut = sync.OnceFunc(func() { close(r.isCut) })
	r.registrar = registration.New(registration.Options{Consul: client, Self: o.self(host), Ready: r.works, Log: o.Log, CheckInterval: checkInterval})
	r.registrar.Set(o.settings(host))
	if url := o.onlyHere(client.URLs()); url != "" {
		o.Log.Warn().Str("address", o.Address).Str("agent", url).
			Msg("the address is for clients on this machine only, and the agent may be on another one")
	}
	return r, nil
}

// ID returns the id of the registration.
func (r *Registration) ID() string {
	return r.options.settings(r.registrar.Self.Host).ID
}

// CheckedAddress returns the "host:port" where Run expects the application.
func (r *Registration) CheckedAddress() string {
	host := r.options.Address
	for _, url := range r.client.URLs() {
		if host == "" && !registration.IsLocal(url) {
			host = r.registrar.Outbound(url) // the address that is registered
		}
	}
	last, _ := r.host.Load().(string)
	if host = cmp.Or(host, last, "127.0.0.1"); host != last {
		r.host.Store(host)
	}
	return net.JoinHostPort(host, strconv.Itoa(r.options.Port))
}

// Registered returns a channel that is closed when Consul has the registration for the first
// time.
func (r *Registration) Registered() <-chan struct{} { return r.registrar.Registered() }

// Run waits until the application works, registers it, and keeps it registered until ctx
// ends. Then it deregisters the application, for which Consul has 5 seconds, waits for
// Options.Drain, and returns nil. The application must serve until then. The error says what
// the check answered if it has not passed within Options.StartTimeout; nothing is registered
// then. Run must be called once.
func (r *Registration) Run(ctx context.Context) error {
	defer r.client.Close()
	if r.probe != nil {
		defer r.probe.Close()
	}
	if err := r.start(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	stop := panics.Start(ctx, panics.Task, r.reach)
	r.registrar.Run(ctx)
	stop()
	if r.registrar.Listed() {
		r.leave()
		r.drain()
	}
	return nil
}

// Cut ends the wait for the drain at once, also a later one: the application has ended, or
// must end now.
func (r *Registration) Cut() { r.cut() }

// start waits until the application works, or ctx ends.
func (r *Registration) start(ctx context.Context) error {
	limited := ctx
	if timeout := r.options.StartTimeout; timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	begin, said := time.Now(), ""
	var failure error
	for pause := firstPause; ; pause = min(pause*3/2, longestPause) {
		err := r.check(limited)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if limited.Err() == nil || failure == nil {
			failure = err // not the end of the time
		}
		if text := failure.Error(); text != said && time.Since(begin) > quietStart {
			said = text
			r.options.Log.Info().Stringer("check", r.probe).Str("address", r.CheckedAddress()).Str("answer", text).
				Msg("the app does not pass its check yet; it is registered when it does")
		}
		if consul.Sleep(limited, pause) != nil && ctx.Err() == nil {
			return fmt.Errorf("the app has not passed its check %q at %s within %v: %w", r.probe, r.CheckedAddress(), r.options.StartTimeout, failure)
		}
	}
}

// check checks the application once, as Run and Consul do. Without a check it is nil.
func (r *Registration) check(ctx context.Context) error {
	if r.probe == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.options.Check.Timeout)
	defer cancel()
	own := discovery.Instance{Service: r.options.Name, ID: r.ID(), Registered: 1} // or will be
	return r.probe.Check(ctx, healthcheck.Target{Address: r.CheckedAddress(), Instance: own, Control: locality.ByOperator})
}

// works tells a registrar whether the application works.
func (r *Registration) works(ctx context.Context) (ready bool, missing []string) {
	if err := r.check(ctx); err != nil {
		return false, []string{fmt.Sprintf("%s: %v", r.probe, err)}
	}
	return true, nil
}

// leave deregisters the application, with further tries if Consul does not answer.
func (r *Registration) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	for {
		r.registrar.Leave(ctx)
		if !r.registrar.Listed() {
			return
		}
		if consul.Sleep(ctx, leaveRetry) != nil {
			r.options.Log.Warn().Str("id", r.ID()).
				Msg("Consul still has the registration: clients see the end of the app when its check fails")
			return
		}
	}
}

// drain waits until load balancers have noticed the deregistration.
func (r *Registration) drain() {
	select {
	case <-r.isCut: // before the log
		return
	default:
	}
	if r.options.Drain > 0 {
		r.options.Log.Info().Str("id", r.ID()).Stringer("drain", r.options.Drain).Msg("the app finishes its requests before it stops")
	}
	select {
	case <-time.After(r.options.Drain):
	case <-r.isCut:
	}
}
