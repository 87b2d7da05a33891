package gateway

import (
	"context"
	"fmt"
	"time"

	"sluice/discovery"
)

const (
	// readyTimeout is how long a service may keep this sluice unready when others
	// have been answered: what has no answer by then may never get one.
	readyTimeout = 30 * time.Second

	// readyEvery is the time between two looks at services that have no set.
	readyEvery = 50 * time.Millisecond

	// refusalsLimit is how often in a row a registry must have refused a service
	// before nobody waits for it: a token that is new may not be known at once.
	refusalsLimit = 2
)

// becomeReady waits until this sluice is ready. That is said once: a service that
// a reload adds later does not take readiness back.
func (g *Gateway) becomeReady(ctx context.Context) {
	begin := time.Now()
	look := time.NewTicker(readyEvery)
	defer look.Stop()
	for {
		if v := g.judge(time.Since(begin)); v.ready() {
			g.ready.Store(true)
			close(g.becameReady)
			event := g.log.Info()
			if len(v.missing) > 0 {
				event = g.log.Warn().Strs("missing", v.missing)
			}
			event.Int("services", len(g.services.all())).Msg("ready")
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// verdict is whether this sluice can be ready.
type verdict struct {
	answered bool     // some service of Consul has a set
	wait     bool     // what is missing may come
	missing  []string // services that have no set, and why
}

// ready: each service knows its first set, which may be a saved one. What is
// missing in vain does not count, but only if that is a matter of these services:
// as long as no service of Consul has a set, nothing shows that Consul is not away,
// or the token wrong, and somebody else may know more.
func (v verdict) ready() bool { return len(v.missing) == 0 || v.answered && !v.wait }

// judge says what is missing after this sluice has waited for that long. A service
// that its registry refuses is not waited for, nor one that the process before
// this one did not know either, and others only for readyTimeout.
func (g *Gateway) judge(waited time.Duration) verdict {
	var v verdict
	watches, patience := g.watches(), waited < readyTimeout
	if !g.finder.settled() {
		v.wait = patience
		v.missing = append(v.missing, "catalog: "+g.catalogMissing())
	}
	for _, service := range g.services.all() {
		watch := watches[service.name]
		if service.known() {
			v.answered = v.answered || watch.Endpoint != "" || !watch.Restored.IsZero()
			continue
		}
		if watch.Refused < refusalsLimit && !g.unknownBefore(watch) {
			v.wait = v.wait || patience
		}
		v.missing = append(v.missing, fmt.Sprintf("service %q: %s", service.name, service.missing(watch)))
	}
	return v
}

// unknownBefore reports whether the process before this one knew no set of a
// watch either.
func (g *Gateway) unknownBefore(watch discovery.WatchStatus) bool {
	before := g.handed.Services[watch.Service].Watch
	return before != nil && !before.Known && before.Source == watch.Source
}

// watches returns the state of every watch by service.
func (g *Gateway) watches() map[string]discovery.WatchStatus {
	statuses := g.discovery.Statuses()
	watches := make(map[string]discovery.WatchStatus, len(statuses))
	for _, w := range statuses {
		watches[w.Service] = w
	}
	return watches
}

// catalogMissing says what the catalog waits for.
func (g *Gateway) catalogMissing() string {
	if status, ok := g.catalogStatus(); ok && status.LastError != "" {
		return status.LastError
	}
	return "no answer from Consul yet"
}

// readiness reports whether requests should be sent to this sluice, and what is
// missing: why not, or in spite of what.
func (g *Gateway) readiness() (ready bool, missing []string) {
	if g.stopping.Load() {
		return false, []string{"sluice is stopping"}
	}
	return g.ready.Load(), g.judge(0).missing
}
