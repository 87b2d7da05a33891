package gateway

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/config"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/proxy/handover"
	"sluice/tags/catalog"
)

// pauseTimeout is how long this process pauses its watches of Consul for a new process. If the
// new process does not serve by then, both watch Consul, although the agent may refuse some
// connections.
const pauseTimeout = 10 * time.Second

// ReplaceBy calls replace, which starts a process in place of this one, and logs the
// result. replace calls give when the new process starts, to write the state of this one.
// From then on the new process watches Consul, and the sets of this one do not change.
func (g *Gateway) ReplaceBy(replace func(give func(io.Writer) error) error) {
	if !g.replacing.TryLock() {
		g.log.Warn().Msg("a new process is already starting")
		return
	}
	defer g.replacing.Unlock()
	g.log.Info().Msg("starting a new process")
	abandoned := 0
	resume := func() {
		g.consul.Reduce(abandoned)
		g.discovery.Resume()
		g.certificates.Resume()
		g.shares.Resume()
		g.orders.Resume()
		g.documents.Resume()
	}
	var once sync.Once // resume, or the end of this process
	err := replace(func(w io.Writer) error {
		g.snapshot.Save() // the new process may be killed before its first write
		g.own(false)
		abandoned = g.pauseConsul()
		time.AfterFunc(g.waits.paused, func() {
			defer panics.Contain(panics.Task, nil)
			once.Do(func() {
				g.log.Warn().Stringer("after", g.waits.paused).Msg("the new process does not serve yet: this one watches Consul again")
				resume()
			})
		})
		return handover.Save(w, g.parts(abandoned))
	})
	if err != nil {
		once.Do(resume)
		g.own(true)
		g.log.Error().Err(err).Msg("the new process does not serve: this one continues")
		return
	}
	once.Do(func() {})
	g.own(false) // replace may not have called give
	g.pauseConsul()
}

// own begins or ends the ownership of this process.
func (g *Gateway) own(owns bool) {
	g.owner.Set(owns)
	g.history.Own(owns)
	if owns {
		g.orders.Refresh()
		g.shares.Owned()
		g.snapshot.Changed()
	}
}

// pauseConsul ends the watches and closes their connections: the agent might not accept
// those of two processes. It returns the number of connections that the agent still counts.
func (g *Gateway) pauseConsul() (abandoned int) {
	return g.consul.Release(func() {
		g.certificates.Pause()
		g.shares.Pause()
		g.orders.Pause()
		g.documents.Pause()
		g.discovery.Pause()
	})
}

// parts returns what a new process continues with, in the order in which it restores that. abandoned is the number
// of connections to Consul that the agent still counts: the new process must not open as many for a while.
func (g *Gateway) parts(abandoned int) []handover.Part {
	return append([]handover.Part{
		handover.NewPart("events", g.events.All, g.beginFeed),
		handover.NewPart("by_operator", g.process.State, g.process.Restore),
		handover.NewPart("orders", g.orders.State, g.orders.Begin),
		handover.NewPart("given_shares", g.shares.State, g.shares.Begin),
		handover.NewPart("route_holders", func() map[string]string { return g.tags.InUse().Holders }, g.tags.Inherit),
		handover.NewPart("history", func() *config.History { return g.history }, g.documents.Adopt),
		handover.NewPart("catalog", func() *catalog.State { return g.finder.State(g.effective.Load()) }, func(old *catalog.State) { g.finder.Begin(g.documents.First(), old, g.snapshot.Services()) }),
		handover.NewPart("services", g.discovery.Save, g.discovery.Inherit),
		handover.NewPart("registered_as", func() string { return g.registrar.Owner() }, func(owner string) { g.registrar.Inherit(owner) }),
		handover.NewPart("short", func() int { return abandoned + g.consul.Reduction() }, g.consul.Reduce),
	}, g.certificates.Parts()...)
}

// inherit restores the state of the old process, if there is one, and returns the configuration to start with. The
// listeners must be bound, because the old process gives its state only once.
func (g *Gateway) inherit() *config.Config {
	var state io.ReadCloser
	var err error
	if g.options.Inherit != nil {
		state, g.takingOver, err = g.options.Inherit()
	}
	if state == nil {
		_ = handover.Restore(nil, g.parts(0)) // without a state there is no error
		if g.takingOver && err == nil {
			g.log.Info().Msg("the old process hands over only its listeners")
		}
	} else {
		defer state.Close()
		err = handover.Restore(state, g.parts(0))
		g.inherited = err == nil
	}
	if err != nil {
		g.log.Warn().Err(err).Msg("the state of the old process cannot be used")
	}
	return g.documents.First()
}

// beginFeed begins the feed, with the events of the old process.
func (g *Gateway) beginFeed(earlier []events.Event) {
	g.events.Adopt(earlier)
	started := events.Event{Kind: events.KindStarted, Text: "sluice " + g.options.Version + " has started"}
	if g.takingOver {
		started.Text += " in place of another process"
	}
	g.events.Add(started)
}

// noteInherited tells which sets come from the old process. The pools do not have them yet.
func (g *Gateway) noteInherited() {
	if !g.inherited {
		return
	}
	sets := 0
	for _, state := range g.discovery.States() {
		if state.Known {
			sets++
			g.journal.Inherit(state.Set)
		}
	}
	g.log.Info().Int("sets", sets).Int("orders", len(g.orders.Set().All())).Msg("state of the old process adopted")
}

// takeoverTimeout limits how long this process waits for the sets that the old one has. It is
// less than the old process waits.
const takeoverTimeout = 45 * time.Second

// awaitTakeover waits until this process may replace the old one: it has a set for each
// service with peers in the old process, and no other set is about to arrive. Without the
// state of the old process, this one must be ready. After an error the old process must
// continue.
func (g *Gateway) awaitTakeover(ctx context.Context) error {
	begin := time.Now()
	for {
		p := g.progress(time.Since(begin))
		may, mayNot := p.ready(), time.Since(begin) > g.waits.takeover
		if g.inherited {
			missing := g.missesPeers()
			may, mayNot = !p.wait && !missing, mayNot || !p.wait && missing
		}
		switch {
		case may && p.ready():
			select {
			case <-g.becameReady: // very soon; /readyz must not fail after the takeover
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		case may:
			return nil
		case mayNot:
			return fmt.Errorf("this process lacks peers that the old one has: %s", strings.Join(p.missing, "; "))
		}
		select {
		case <-time.After(readyEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// missesPeers reports whether a service has peers in the old process and no set in this one.
func (g *Gateway) missesPeers() bool {
	return slices.ContainsFunc(g.services.all(), func(s *service) bool {
		old, _ := g.discovery.Former(s.name)
		return slices.ContainsFunc(old.Set, discovery.Instance.Usable) && !closed(s.first)
	})
}
