package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/admin/series"
	"sluice/certificates"
	"sluice/certificates/acme"
	"sluice/config"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/operator"
	"sluice/release"
	"sluice/tags/catalog"
)

// handoverVersion is the version of the format of handoverState. A process ignores a state of another
// version.
const handoverVersion = 1

// handoverState is the state that a process hands over to the one that replaces it.
type handoverState struct {
	Version  int                        `json:"version"`
	Services map[string]handoverService `json:"services"`
	Catalog  *handoverCatalog           `json:"catalog,omitempty"`

	Orders      *operator.State[operator.Order] `json:"orders,omitempty"`
	GivenShares *operator.State[release.Share]  `json:"given_shares,omitempty"`

	ByOperator byOperator `json:"by_operator,omitzero"`

	RouteHolders map[string]string `json:"route_holders,omitempty"` // services by route, as in claim.Result

	Events []events.Event `json:"events,omitempty"` // oldest first
	Series series.State   `json:"series,omitzero"`

	// TicketKeys are secret. The state is passed through a pipe only.
	TicketKeys []certificates.TicketKey `json:"ticket_keys,omitempty"`

	// History has the applied configurations, whose documents may be secret.
	History *config.History `json:"history,omitempty"`

	// KVCertificates are the certificates in Consul that are in use, by prefix. They are secret
	// too.
	KVCertificates map[string]certificates.InUse `json:"certificates,omitempty"`

	// ACMECertificates are those by ACME, by name. They are secret too.
	ACMECertificates map[string]acme.Pair `json:"acme_certificates,omitempty"`

	// RegisteredAs is the owner of the registrations in Consul; "": none.
	RegisteredAs string `json:"registered_as,omitempty"`

	// Short is the number of connections to Consul that the new process must not open
	// for a while: those that the agent still counts, and those that it has refused to
	// the old process.
	Short int `json:"short,omitempty"`
}

// handoverService is the state of a service.
type handoverService struct {
	Watch *discovery.WatchState `json:"watch,omitempty"` // nil: the peers are in the configuration
}

// handoverCatalog contains the services found in Consul's catalog.
type handoverCatalog struct {
	Selection string                        `json:"selection"` // see selectionText
	Services  []consulsource.CatalogService `json:"services"`
}

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
		g.kvCertificates.Resume()
		g.shares.Resume()
		g.orders.Resume()
		g.documents.Resume()
	}
	var once sync.Once // resume, or the end of this process
	err := replace(func(w io.Writer) error {
		if g.snapshot != nil {
			g.snapshot.Save() // the new process may be killed before its first write
		}
		g.own(false)
		abandoned = g.pauseConsul()
		time.AfterFunc(g.waits.paused, func() {
			defer panics.Contain(panics.Task, nil)
			once.Do(func() {
				g.log.Warn().Stringer("after", g.waits.paused).Msg("the new process does not serve yet: this one watches Consul again")
				resume()
			})
		})
		return json.NewEncoder(w).Encode(g.state(abandoned))
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
	g.owner.set(owns)
	g.history.Own(owns)
	if owns {
		g.orders.Refresh()
		g.shares.Owned()
	}
	if owns && g.snapshot != nil {
		g.snapshot.Changed()
	}
}

// pauseConsul ends the watches and closes their connections: the agent might not accept
// those of two processes. It returns the number of connections that the agent still counts.
func (g *Gateway) pauseConsul() (abandoned int) {
	return g.consul.Release(func() {
		g.kvCertificates.Pause()
		g.shares.Pause()
		g.orders.Pause()
		g.documents.Pause()
		g.discovery.Pause()
	})
}

// state returns the state for a new process.
func (g *Gateway) state(abandoned int) handoverState {
	h := handoverState{Version: handoverVersion, Services: make(map[string]handoverService), Short: abandoned + g.consul.Reduction(), TicketKeys: g.tickets.All(), History: g.history, KVCertificates: g.kvCertificates.State(), ACMECertificates: g.acme.handoverPairs()}
	standing, given := g.orders.State(), g.shares.State()
	h.Orders, h.GivenShares, h.ByOperator = &standing, &given, g.ordered()
	h.RouteHolders = g.tags.InUse().Holders
	h.RegisteredAs = g.registrar.Owner()
	h.Events, _ = g.events.Read(events.Filter{}, events.ID{})
	h.Series = g.series.State()
	for name, state := range g.states() {
		h.Services[name] = handoverService{Watch: &state}
	}
	if closed(g.finder.Used()) {
		services, _ := g.finder.Services()
		h.Catalog = &handoverCatalog{Selection: selectionText(g.effective.Load()), Services: services}
	}
	return h
}

// selectionText returns the catalog selection of c as a text to compare. That of another version of
// sluice may differ for the same selection: then a new process waits for an answer of Consul.
func selectionText(c *config.Config) string { return fmt.Sprintf("%+v", catalog.SelectionOf(c)) }

// inherit gets the state of the old process, if there is one.
func (g *Gateway) inherit() {
	if g.options.Inherit == nil {
		return
	}
	state, replacing, err := g.options.Inherit()
	g.takingOver = replacing
	if state != nil {
		defer state.Close()
		if err = json.NewDecoder(state).Decode(&g.inherited); err == nil && g.inherited.Version != handoverVersion {
			err = fmt.Errorf("it has version %d, want %d", g.inherited.Version, handoverVersion)
		}
	}
	if err != nil {
		g.inherited = handoverState{}
		g.log.Warn().Err(err).Msg("the state of the old process cannot be used")
	} else if replacing && state == nil {
		g.log.Info().Msg("the old process hands over only its listeners")
	}
}

// expectServices gets the state of the old process, and sets the services that it or an
// earlier one found in the catalog. It returns the configuration to start with.
func (g *Gateway) expectServices() *config.Config {
	g.inherit()
	g.emitStarted()
	g.setOrdered(func(o *byOperator) { *o = g.inherited.ByOperator })
	g.adoptOrders()
	g.shares.Begin(g.inherited.GivenShares)
	g.tags.Inherit(g.inherited.RouteHolders)
	if g.inherited.History != nil {
		g.documents.Adopt(g.inherited.History)
	}
	c := g.documents.First()
	if g.snapshot != nil {
		g.finder.ExpectNames(g.snapshot.Services())
	}
	h := g.inherited.Catalog
	if h != nil && h.Services != nil && c.Catalog != nil {
		// As in a reload, what an earlier selection has found stays until Consul answers.
		g.finder.Expect(h.Services, h.Selection == selectionText(c))
	}
	if c.Catalog == nil {
		g.finder.Expect(nil, true)
	}
	return c
}

// emitStarted begins the feed, with the events of the old process.
func (g *Gateway) emitStarted() {
	g.events.Adopt(g.inherited.Events)
	started := events.Event{Kind: events.KindStarted, Text: "sluice " + g.options.Version + " has started"}
	if g.takingOver {
		started.Text += " in place of another process"
	}
	g.events.Add(started)
}

// adopt sets the state of services to that of the old process.
func (g *Gateway) adopt() {
	g.consul.Reduce(g.inherited.Short)
	g.tickets.Adopt(g.inherited.TicketKeys)
	g.rotateTicketKeys(time.Now())
	g.kvCertificates.Adopt(g.inherited.KVCertificates)
	g.acme.adopt(g.inherited.ACMECertificates)
	g.updateTLS()
	g.series.Adopt(g.inherited.Series, time.Now())
	sets := 0
	states := make(map[string]discovery.WatchState)
	for name, h := range g.inherited.Services {
		if h.Watch != nil {
			states[name] = *h.Watch
		}
	}
	sources := g.watches()
	for _, service := range g.services.all() {
		if state, ok := knownOf(states, service.name, sources[service.name].Source, service.source); ok && g.discovery.Adopt(service.name, state) {
			sets++
			g.journal.Inherit(state.Set)
		}
	}
	if g.inherited.Version != 0 {
		g.log.Info().Int("sets", sets).Int("orders", len(g.orders.Set().All())).Msg("state of the old process adopted")
	}
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
		if g.inherited.Version != 0 {
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
		old := g.inherited.Services[s.name].Watch
		return old != nil && slices.ContainsFunc(old.Set, discovery.Instance.Usable) && !closed(s.first)
	})
}
