package registration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
)

// Behind a load balancer of agents, each request may reach another agent. The registrar
// notices that when two answers contradict each other. From then on the catalog tells which
// agents have the registration, and it changes that by one at a time until exactly one has
// it. Requests cannot choose their agent, so the registrar does not choose which one: all
// registrations with the settings are alike.

const (
	// holderTries limits the requests for the agent that has the registration.
	holderTries = 16
	// sureLooks is the number of looks after which the agents of a URL that agree are one.
	sureLooks = 3
	// settleInterval is the time between two changes; the catalog has the first one by then.
	settleInterval = 2 * time.Second
	// leavePause is the time between two looks in the catalog at the end.
	leavePause = 200 * time.Millisecond
)

// has reports whether services have one with id.
func has(services []*api.AgentService, id string) bool {
	return slices.ContainsFunc(services, func(s *api.AgentService) bool { return s.ID == id })
}

// severalAgents finds out whether several agents answer at the URL, before a registration
// there. found says whether the agent that has just answered has the service.
func (r *Registrar) severalAgents(ctx context.Context, p *agentState, want registration, found bool) bool {
	limited, cancel := context.WithTimeout(ctx, clearTimeout)
	defer cancel()
	tries := sureLooks
	if !found {
		// Without the catalog, the registrar registers, as with one agent.
		if listed, err := r.listed(limited, p, want.Name, want.ID); err != nil || len(listed) == 0 {
			return false
		}
		tries = holderTries
	}
	for range tries {
		services, err := r.ours(consul.OnOwnConnection(limited), p.url)
		if err != nil {
			return false
		}
		if has(services, want.ID) != found {
			r.recordSeveral(p)
			return true
		}
	}
	return false
}

// recordSeveral notes that several agents answer at the URL.
func (r *Registrar) recordSeveral(p *agentState) {
	if !p.several {
		p.several = true
		r.Log.Info().Str("agent", p.url).Msg("several agents of Consul answer at this address: the catalog tells which one has the registration")
	}
}

// listed returns our instances in the catalog that were registered at the URL, without the ones
// at dead agents.
func (r *Registrar) listed(ctx context.Context, p *agentState, name, id string) ([]*api.ServiceEntry, error) {
	list, err := r.Consul.Listed(ctx, p.url, name, r.Self.Owner.Key, r.Self.Owner.Value)
	return slices.DeleteFunc(list, func(e *api.ServiceEntry) bool {
		return e.Service.ID != id || e.Service.Meta[metaAgent] != p.url || slices.ContainsFunc(e.Checks, func(c *api.HealthCheck) bool {
			return c.CheckID == "serfHealth" && c.Status == api.HealthCritical
		})
	}), err
}

// ensureOne brings the registrations at several agents nearer to one like want.
func (r *Registrar) ensureOne(ctx context.Context, p *agentState, want registration) error {
	ctx = consul.OnOwnConnection(ctx)
	list, err := r.listed(ctx, p, want.Name, want.ID)
	if err != nil {
		return err
	}
	alike := 0
	why := "missing in the catalog"
	for _, e := range list {
		switch difference := want.difference(e.Service); {
		case difference != "":
			why = "different in the catalog: " + difference
		case want.Check != nil && !slices.ContainsFunc(e.Checks, func(c *api.HealthCheck) bool { return c.CheckID == want.Check.CheckID }):
			why = "different in the catalog: check"
		default:
			alike++
		}
	}
	// A balancer that takes the agents in turn could lead all registrations to one
	// agent and all deregistrations to another.
	for range rand.N(3) {
		if _, err := r.ours(ctx, p.url); err != nil {
			return err
		}
	}
	former := p.made
	p.settling = alike != 1 || len(list) != 1
	switch {
	case alike == 0:
		err = r.registerAgain(ctx, p, want, why)
	case len(list) > 1:
		p.made = &want
		err = r.dropOne(ctx, p, want, "registered with another agent")
	default:
		p.made = &want
	}
	if err == nil && former != nil && former.ID != want.ID {
		err = r.dropOne(ctx, p, *former, "new id")
	}
	return err
}

// dropOne deregisters a service from one of the agents that have it.
func (r *Registrar) dropOne(ctx context.Context, p *agentState, which registration, why string) error {
	err := r.atHolder(ctx, p, func(ctx context.Context) error {
		return r.Consul.Deregister(ctx, p.url, which.Name, which.ID)
	})
	if err == nil {
		r.Log.Info().Str("service", which.Name).Str("id", which.ID).Str("agent", p.url).Str("why", why).Msg("deregistered from Consul")
	}
	if errors.Is(err, consul.ErrNotRegistered) {
		return nil // the next round sees more
	}
	return err
}

// atHolder repeats do until it reaches an agent that has the registration.
func (r *Registrar) atHolder(ctx context.Context, p *agentState, do func(context.Context) error) (err error) {
	if p.several {
		ctx = consul.OnOwnConnection(ctx)
	}
	for n := range holderTries {
		if err = do(ctx); !errors.Is(err, consul.ErrNotRegistered) {
			if err == nil && n > 0 {
				r.recordSeveral(p)
			}
			return err
		}
		ctx = consul.OnOwnConnection(ctx)
	}
	return err
}

// leave deregisters the service from all agents that answer at the URL.
func (r *Registrar) leave(ctx context.Context, p *agentState) error {
	for {
		err := r.atHolder(ctx, p, func(ctx context.Context) error {
			return r.Consul.Deregister(ctx, p.url, p.made.Name, p.made.ID)
		})
		if err != nil && !errors.Is(err, consul.ErrNotRegistered) {
			return err
		}
		if !p.several {
			return nil
		}
		list, failure := r.listed(consul.OnOwnConnection(ctx), p, p.made.Name, p.made.ID)
		if failure == nil && len(list) == 0 || failure != nil && err == nil {
			return nil
		}
		if consul.Sleep(ctx, leavePause) != nil {
			return fmt.Errorf("the catalog still has it at %d agents", len(list))
		}
	}
}
