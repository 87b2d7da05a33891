package gateway

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sluice/discovery"
	"sluice/observe/events"
)

const (
	// readyTimeout limits how long a service without a set delays readiness if other
	// services have sets. It may never get one.
	readyTimeout = 30 * time.Second

	// readyEvery is the time between two looks at services without a set.
	readyEvery = 50 * time.Millisecond

	// refusalsLimit is the number of consecutive refusals by a registry after which
	// readiness does not wait for a service. An agent may not know a new token at once.
	refusalsLimit = 2
)

// becomeReady waits until this process is ready. It stays ready when a reload adds services.
func (g *Gateway) becomeReady(ctx context.Context) {
	for begin := time.Now(); ; {
		p := g.progress(time.Since(begin))
		if p.ready() {
			close(g.becameReady)
			g.options.Systemd.Ready(g.status())
			event := g.log.Info()
			if len(p.missing) > 0 {
				event = g.log.Warn().Strs("missing", p.missing)
			}
			event.Int("services", len(g.services.all())).Msg("ready")
			g.emitReady(p.missing)
			return
		}
		g.options.Systemd.Waiting(p.missing)
		select {
		case <-time.After(readyEvery):
		case <-ctx.Done():
			return
		}
	}
}

// emitReady adds to the feed that this process is ready, although something is missing.
func (g *Gateway) emitReady(missing []string) {
	ready := events.Event{Kind: events.KindReady, Text: "sluice is ready"}
	if len(missing) > 0 {
		ready.Level, ready.Text = events.Warning, ready.Text+", but "+strings.Join(missing, "; ")
	}
	g.events.Add(ready)
}

// progress is how much of its start this process has done.
type progress struct {
	answered bool     // at least one service of a registry has a set
	wait     bool     // a missing set may arrive
	missing  []string // the services without a set, with reasons
}

// ready reports whether each service has its first set, which may be from the snapshot. Sets
// that are not expected do not count, but only if another service of a registry has a set:
// otherwise Consul may be unreachable or the token invalid, and another replica may have
// more sets.
func (p progress) ready() bool { return len(p.missing) == 0 || p.answered && !p.wait }

// progress returns the progress after the given time. A set is not expected if the registry
// refuses the service, if the old process had none either, or after readyTimeout.
func (g *Gateway) progress(waited time.Duration) progress {
	var p progress
	watches, inTime := g.watches(), waited < readyTimeout
	if !closed(g.finder.Used()) {
		p.wait = inTime
		p.missing = append(p.missing, "catalog: "+g.catalogMissing())
	}
	for _, missing := range g.documents.Missing() {
		p.wait = p.wait || inTime
		p.missing = append(p.missing, missing)
	}
	for _, service := range g.services.all() {
		watch := watches[service.name]
		if closed(service.first) {
			p.answered = p.answered || watch.Endpoint != "" || !watch.Restored.IsZero()
			continue
		}
		if watch.Refused < refusalsLimit && !g.unknownBefore(watch) {
			p.wait = p.wait || inTime
		}
		p.missing = append(p.missing, fmt.Sprintf("service %q: %s", service.name, service.missing(watch)))
	}
	return p
}

// closed reports whether c, to which nothing is sent, is closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// unknownBefore reports whether the old process had no set of the watch either.
func (g *Gateway) unknownBefore(watch discovery.WatchStatus) bool {
	old, ok := g.discovery.Former(watch.Service)
	return ok && !old.Known && old.Source == watch.Source
}

// watches returns the statuses of all watches by service.
func (g *Gateway) watches() map[string]discovery.WatchStatus {
	statuses := g.discovery.Statuses()
	watches := make(map[string]discovery.WatchStatus, len(statuses))
	for _, w := range statuses {
		watches[w.Service] = w
	}
	return watches
}

// catalogMissing returns why the services of the catalog are not in use.
func (g *Gateway) catalogMissing() string {
	if status, ok := g.finder.Status(); ok && status.LastError != "" {
		return status.LastError
	}
	return "no answer from Consul yet"
}

// readiness reports whether this process may get requests, and what is missing. Something
// may also be missing if it is ready.
func (g *Gateway) readiness() (ready bool, missing []string) {
	if g.stopping.Load() {
		return false, []string{"sluice is stopping"}
	}
	missing = g.progress(0).missing
	if o := g.process.State().NotReady; o != nil {
		return false, append([]string{"an operator has made sluice not ready, since " + o.Since.Format(time.RFC3339) + events.Because(o.Why)}, missing...)
	}
	return closed(g.becameReady), missing
}
