package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/config/live"
	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/observe/wake"
	"sluice/operator"
	"sluice/proxy/handover/systemd"
	"sluice/tags/catalog"
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

	// takeoverTimeout limits how long this process waits for the sets that the old one has. It
	// is less than the old process waits.
	takeoverTimeout = 45 * time.Second
)

// readiness is whether this process may get requests, and what is missing. It tells systemd. Its
// methods may be called concurrently.
type readiness struct {
	services  *services
	mesh      *membership
	documents *live.Manager
	finder    *catalog.Finder
	chains    *chains
	tags      *catalog.Reader
	effective func() *config.Config // in use
	// lacksCertificates returns the listeners without a certificate, each as a sentence. A
	// process that replaces an old one waits for them too: the old one may have them, as from
	// another storage.
	lacksCertificates func() []string
	process           *operator.Process
	systemd           *systemd.Manager
	events            *events.Feed
	log               zerolog.Logger

	answered chan struct{} // closed when nothing is expected that progress names
	became   chan struct{} // closed when this process is ready, which it stays
	stopping atomic.Bool
}

// await waits until this process is ready. It stays ready when a reload adds services.
func (r *readiness) await(ctx context.Context) {
	for begin := time.Now(); ; {
		p, lacking := r.progress(time.Since(begin)), r.lacksCertificates()
		if p.ready() && !wake.Closed(r.answered) {
			close(r.answered)
		}
		if p.ready() && (len(lacking) == 0 || time.Since(begin) > readyTimeout) {
			p.missing = append(p.missing, lacking...)
			close(r.became)
			r.systemd.Ready(r.status())
			event := r.log.Info()
			if len(p.missing) > 0 {
				event = r.log.Warn().Strs("missing", p.missing)
			}
			event.Int("services", len(r.services.all())).Msg("ready")
			r.emitReady(p.missing)
			return
		}
		r.systemd.Waiting(append(p.missing, lacking...))
		if consul.Sleep(ctx, readyEvery) != nil {
			return
		}
	}
}

// routesKnown reports whether all routes that documents and tags ask for are in use.
func (r *readiness) routesKnown() bool { return len(r.progress(0).missing) == 0 && r.tags.Settled() }

// awaitRoutes waits until all routes that documents and tags ask for are known, and says so. What
// becomes ready without the sets of some services does not wait for their routes either.
func (r *readiness) awaitRoutes(ctx context.Context, known func()) {
	for _, done := range []<-chan struct{}{r.documents.Settled(), r.finder.Used()} {
		if wake.Await(ctx, done) != nil {
			return
		}
	}
	if c := r.effective().Catalog; c != nil && (len(c.Tags) > 0 || c.DefaultRule != "") {
		if wake.Await(ctx, r.answered) != nil {
			return
		}
		r.tags.Await(ctx, readyTimeout)
		r.warnOfTags()
	}
	known()
}

// warnOfTags logs which services do not get what their tags ask for: most wait for a right that one
// key of the file grants.
func (r *readiness) warnOfTags() {
	const most = 20
	result := r.tags.InUse()
	if lacking := result.Lacking(); len(lacking) > 0 {
		r.log.Warn().Int("count", len(lacking)).Strs("services", lacking[:min(most, len(lacking))]).
			Msg("services do not get what their tags ask for: \"sluice tags\" says why, and which key grants it")
	}
}

// emitReady adds to the feed that this process is ready, although something is missing.
func (r *readiness) emitReady(missing []string) {
	ready := events.Event{Kind: events.KindReady, Text: "sluice is ready"}
	if len(missing) > 0 {
		ready.Level, ready.Text = events.Warning, ready.Text+", but "+strings.Join(missing, "; ")
	}
	r.events.Add(ready)
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
func (r *readiness) progress(waited time.Duration) progress {
	var p progress
	inTime := waited < readyTimeout
	if !wake.Closed(r.finder.Used()) {
		p.wait = inTime
		p.missing = append(p.missing, "catalog: "+r.catalogMissing())
	}
	if missing, wait := r.mesh.missing(); missing != "" {
		p.wait = p.wait || wait && inTime
		p.missing = append(p.missing, missing)
	}
	for _, missing := range r.documents.Missing() {
		p.wait = p.wait || inTime
		p.missing = append(p.missing, missing)
	}
	for _, service := range r.services.all() {
		known := wake.Closed(service.first)
		if known && p.answered {
			continue
		}
		watch := r.services.discovery.Status(service.name)
		if known {
			p.answered = watch.Endpoint != "" || !watch.Restored.IsZero()
			continue
		}
		lacking, refused := r.chains.missing(r.effective(), service.name)
		if watch.Refused < refusalsLimit && !r.unknownBefore(watch) && !refused {
			p.wait = p.wait || inTime
		}
		p.missing = append(p.missing, fmt.Sprintf("service %q: %s", service.name, cmp.Or(lacking, service.missing(watch))))
	}
	return p
}

// unknownBefore reports whether the old process had no set of the watch either, nor one of another
// source in its place.
func (r *readiness) unknownBefore(watch discovery.WatchStatus) bool {
	old, ok := r.services.discovery.Former(watch.Service)
	return ok && !old.Known && len(old.Set) == 0 && old.Source == watch.Source
}

// catalogMissing returns why the services of the catalog are not in use.
func (r *readiness) catalogMissing() string {
	if status, ok := r.finder.Status(); ok && status.LastError != "" {
		return status.LastError
	}
	return "no answer from Consul yet"
}

// now reports whether this process may get requests, and what is missing. Something
// may also be missing if it is ready.
func (r *readiness) now() (ready bool, missing []string) {
	if r.stopping.Load() {
		return false, []string{"sluice is stopping"}
	}
	missing = append(r.progress(0).missing, r.lacksCertificates()...)
	if o := r.process.State().NotReady; o != nil {
		return false, append([]string{"an operator has made sluice not ready, since " + o.Since.Format(time.RFC3339) + events.Because(o.Why)}, missing...)
	}
	return wake.Closed(r.became), missing
}

// awaitTakeover waits until this process may replace the old one, at most for timeout: it has a set
// for each service with peers in the old process, and no other set is about to arrive. Without the
// state of the old process, this one must be ready. After an error the old process must continue.
func (r *readiness) awaitTakeover(ctx context.Context, restored bool, timeout time.Duration) error {
	begin := time.Now()
	return wake.Repeat(ctx, readyEvery, func() (bool, error) {
		p := r.progress(time.Since(begin))
		may, mayNot := p.ready(), time.Since(begin) > timeout
		if restored {
			missing := r.missesPeers()
			may, mayNot = !p.wait && !missing, mayNot || !p.wait && missing
		}
		switch {
		case may && p.ready():
			// It comes soon, but for a certificate, and /readyz must not fail after the
			// takeover.
			return true, wake.Await(ctx, r.became)
		case !may && mayNot:
			return false, errors.New("this process lacks peers that the old one has: " + strings.Join(p.missing, "; "))
		}
		return may, nil
	})
}

// missesPeers reports whether a service has peers in the old process and no set in this one.
func (r *readiness) missesPeers() bool {
	return slices.ContainsFunc(r.services.all(), func(s *service) bool {
		old, _ := r.services.discovery.Former(s.name)
		return slices.ContainsFunc(old.Set, discovery.Instance.Usable) && !wake.Closed(s.first)
	})
}

// awaitSources waits until what the catalog and the dynamic sources say is in use, at most for
// timeout.
func (r *readiness) awaitSources(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if !within(ctx, r.documents.Settled()) {
		r.log.Warn().Strs("missing", r.documents.Missing()).Stringer("waited", timeout).
			Msg("not all dynamic sources have answered: what they said last is in use")
	}
	if !within(ctx, r.finder.Used()) {
		r.log.Warn().Stringer("waited", timeout).Msg("catalog: no answer from Consul yet")
	}
	if !r.awaitChains(ctx) {
		r.log.Warn().Stringer("waited", timeout).Msg("not all discovery chains are known yet")
	}
}

// awaitChains waits until the discovery chains of all services are in use, or Consul refuses them.
// It reports false if the time of ctx is over before.
func (r *readiness) awaitChains(ctx context.Context) bool {
	err := wake.Repeat(ctx, readyEvery, func() (bool, error) { return r.chains.settled(r.effective()), nil })
	return !errors.Is(err, context.DeadlineExceeded)
}

// within waits until c is closed or ctx ends, and reports false if the time of ctx is over before.
func within(ctx context.Context, c <-chan struct{}) bool {
	return !errors.Is(wake.Await(ctx, c), context.DeadlineExceeded) || wake.Closed(c)
}

// status returns what `systemctl status` shows of a process that serves.
func (r *readiness) status() string {
	text := fmt.Sprintf("Serves. Configuration %d, services: %d", r.documents.History().Current().Number, len(r.services.all()))
	if r.documents.Refuses() {
		text += ". A later configuration is refused: see the log"
	}
	return text
}

// feedWatchdog tells systemd that this process works until ctx ends, if systemd asks for it.
// It takes the locks of the discovery and of the services before, so a deadlock of these ends
// in a restart.
func (r *readiness) feedWatchdog(ctx context.Context) {
	limit := r.systemd.Watchdog()
	if limit == 0 {
		return
	}
	const pings = 3 // within the limit, so that a busy machine may delay one
	every(ctx, max(limit/pings, time.Millisecond), func() {
		r.now()
		r.systemd.Alive()
	})
}
