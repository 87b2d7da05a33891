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

	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	"sluice/snapshot"
)

// handedVersion is that of the form below. A process ignores what is of another
// one, and starts as if nothing were handed over.
const handedVersion = 1

// handed is what a process knows, for the one that takes its place.
type handed struct {
	Version  int                      `json:"version"`
	Services map[string]handedService `json:"services"`
	Catalog  *handedCatalog           `json:"catalog,omitempty"`

	// Short is how many connections to Consul the next process is to do without
	// for a while: those that the agent still counts, and those that this one had
	// learned to do without.
	Short int `json:"short,omitempty"`
}

// handedService is one service.
type handedService struct {
	Watch  *handedWatch             `json:"watch,omitempty"` // nil: its peers are in the configuration
	Drains []balancer.StandingDrain `json:"drains,omitempty"`
}

// handedWatch is a discovery.Handed.
type handedWatch struct {
	Source      string       `json:"source"`
	Instances   snapshot.Set `json:"instances"`
	Known       bool         `json:"known"`
	Fresh       bool         `json:"fresh"`
	Endpoint    string       `json:"endpoint"`
	LastSuccess time.Time    `json:"last_success,omitzero"`
	Restored    time.Time    `json:"restored,omitzero"`
}

// handedCatalog is what was found in Consul's catalog.
type handedCatalog struct {
	Selection string   `json:"selection"` // as text
	Names     []string `json:"names"`
}

// letGoTimeout is how long this process leaves it to a new one to follow Consul.
// One that does not serve by then is slow for reasons of its own: both follow
// again, even if that is more than Consul's agent accepts.
const letGoTimeout = 10 * time.Second

// ReplaceBy calls replace, which puts another process in this one's place, and
// logs what came of it. Replace calls give when the other one starts, to write
// what this one knows; from then on the other one follows Consul, and this one
// keeps its peers as they are.
func (g *Gateway) ReplaceBy(replace func(give func(io.Writer) error) error) {
	if !g.replacing.TryLock() {
		g.log.Warn().Msg("a new process is starting in place of this one already")
		return
	}
	defer g.replacing.Unlock()
	g.log.Info().Msg("starting a new process in place of this one")
	abandoned := 0
	goOn := func() {
		g.consul.Spare(abandoned)
		g.discovery.Resume()
	}
	var once sync.Once // it is decided whether this one follows Consul again
	err := replace(func(w io.Writer) error {
		abandoned = g.letGo()
		time.AfterFunc(g.letGoPatience, func() {
			once.Do(func() {
				g.log.Warn().Stringer("after", g.letGoPatience).Msg("the new process does not serve yet: following Consul beside it")
				goOn()
			})
		})
		return json.NewEncoder(w).Encode(g.hand(abandoned))
	})
	if err != nil {
		once.Do(goOn)
		g.log.Error().Err(err).Msg("not replaced, going on")
		return
	}
	once.Do(func() {})
	g.letGo() // at the latest now
}

// letGo leaves Consul to the process that takes this one's place: both together
// may have more connections than an agent accepts. It returns how many of them the
// agent keeps all the same.
func (g *Gateway) letGo() (abandoned int) { return g.consul.Release(g.discovery.Pause) }

// hand returns what this process knows.
func (g *Gateway) hand(abandoned int) handed {
	h := handed{Version: handedVersion, Services: make(map[string]handedService), Short: abandoned + g.consul.Shortage()}
	for _, w := range g.discovery.Handed() {
		h.Services[w.Service] = handedService{Watch: &handedWatch{
			Source: w.Source, Instances: w.Instances, Known: w.Known, Fresh: w.Fresh,
			Endpoint: w.Endpoint, LastSuccess: w.LastSuccess, Restored: w.Restored,
		}}
	}
	for _, service := range g.services.all() {
		s := h.Services[service.name]
		s.Drains = service.pool.Drains()
		h.Services[service.name] = s
	}
	if g.finder.settled() {
		names, _ := g.finder.present()
		h.Catalog = &handedCatalog{Selection: selectionText(g.effective.Load()), Names: names}
	}
	return h
}

// selectionText is what c wants to be found, in a form that can be compared.
func selectionText(c *config.Config) string { return fmt.Sprintf("%+v", selectionOf(c)) }

// inherit asks the process before this one, if there is one, for what it knows.
// Whatever it cannot give, this one finds out by itself.
func (g *Gateway) inherit() {
	if g.options.Inherit == nil {
		return
	}
	given, replacing, err := g.options.Inherit()
	g.takingOver = replacing
	if given != nil {
		defer given.Close()
		if err = json.NewDecoder(given).Decode(&g.handed); err == nil && g.handed.Version != handedVersion {
			err = fmt.Errorf("it is of version %d, this sluice reads version %d", g.handed.Version, handedVersion)
		}
	}
	switch {
	case err != nil:
		g.log.Warn().Err(err).Msg("what the process before this one knows cannot be used")
	case !replacing:
	case given == nil:
		g.log.Info().Msg("the process before this one hands over its listeners alone")
	}
	if err != nil {
		g.handed = handed{}
	}
}

// expectHanded makes known what the process before this one found in the catalog.
func (g *Gateway) expectHanded(c *config.Config) {
	if h := g.handed.Catalog; h != nil && c.Catalog != nil && h.Selection == selectionText(c) {
		g.finder.expect(h.Names)
		g.finder.settle()
	}
}

// adopt gives services what the process before this one knew of them.
func (g *Gateway) adopt() {
	g.consul.Spare(g.handed.Short)
	sets, drains := 0, 0
	for _, service := range g.services.all() {
		h := g.handed.Services[service.name]
		service.pool.AdoptDrains(h.Drains)
		drains += len(h.Drains)
		if w := h.Watch; w != nil && g.discovery.Adopt(discovery.Handed{
			Service: service.name, Source: w.Source,
			Instances: w.Instances, Known: w.Known, Fresh: w.Fresh,
			Endpoint: w.Endpoint, LastSuccess: w.LastSuccess, Restored: w.Restored,
		}) {
			sets++
		}
	}
	if g.handed.Version != 0 {
		g.log.Info().Int("sets", sets).Int("drains", drains).Msg("taken over from the process before this one")
	}
}

// turnTimeout bounds how long this process takes to know as much as the one before
// it. That is less than the one before it leaves to it.
const turnTimeout = 45 * time.Second

// awaitTurn waits until clients lose nothing when this process takes the place of
// the one before: it knows every service that has peers there, and what there is
// to know of others. If the one before says nothing of itself, this one must be
// ready. An error means that the one before is to go on.
func (g *Gateway) awaitTurn(ctx context.Context) error {
	begin := time.Now()
	look := time.NewTicker(readyEvery)
	defer look.Stop()
	for {
		v := g.judge(time.Since(begin))
		may, mayNot := v.ready(), time.Since(begin) > g.turnPatience
		if g.handed.Version != 0 {
			lost := g.lost()
			may, mayNot = !v.wait && !lost, mayNot || !v.wait && lost
		}
		switch {
		case may && v.ready():
			select {
			case <-g.becameReady: // within a moment: nobody is to be told that it is not
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		case may:
			return nil
		case mayNot:
			return fmt.Errorf("the process before this one goes on, since this one does not know all that it does: %s", strings.Join(v.missing, "; "))
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lost reports whether a service has peers in the process before this one, perhaps
// on probation, and is not known here.
func (g *Gateway) lost() bool {
	return slices.ContainsFunc(g.services.all(), func(s *service) bool {
		before := g.handed.Services[s.name].Watch
		return before != nil && slices.ContainsFunc(before.Instances, discovery.Instance.Usable) && !s.known()
	})
}
