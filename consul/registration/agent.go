package registration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
)

// agentState is the state of the registration at one agent.
type agentState struct {
	url      string
	clean    bool          // it has no registration of ours
	again    bool          // look again when clean: another process, or a lost answer, may register
	made     *registration // by this process, perhaps; nil: none
	several  bool          // several agents answer at the URL
	settling bool          // with several: not yet exactly one of them has the registration
	failures int           // consecutive
	due      time.Time     // of the next check
	report   time.Time     // of the next report to a TTL check
	outbound string        // last known local address of packets to it
	trouble  string        // error of deregistering other ids; "": none
}

// next returns the time of the next action.
func (p *agentState) next() time.Time {
	if p.reports() && p.report.Before(p.due) {
		return p.report
	}
	return p.due
}

// reports reports whether the agent has a TTL check of ours.
func (p *agentState) reports() bool {
	return p.failures == 0 && p.made != nil && p.made.check == CheckTTL
}

// done records the result of an attempt.
func (p *agentState) done(err error) {
	if err == nil {
		p.failures = 0
		return
	}
	delay, limit := firstRetry, longestRetry
	if consul.Forbidden(err) {
		delay, limit = firstRefusedRetry, longestRefusedRetry
	}
	delay = min(delay<<min(p.failures, 10), limit)
	p.failures++
	p.due = time.Now().Add(delay/2 + rand.N(delay))
}

// define returns the registration for an agent.
func (r *Registrar) define(p *agentState, s Settings) (registration, error) {
	want := define(s, r.Self, p.url, func(url string) string {
		// A failed look-up does not change the address.
		p.outbound = cmp.Or(r.Outbound(url), p.outbound)
		return p.outbound
	})
	if want.Address == "" && !IsLocal(p.url) { // the default would be the agent's
		return want, errors.New("the address of this machine for clients is unknown: set consul.register.address, or --address of sluice register")
	}
	return want, nil
}

// ours returns our registrations at an agent, also from the process before.
func (r *Registrar) ours(ctx context.Context, url string) ([]*api.AgentService, error) {
	found, err := r.Consul.Registered(ctx, url, r.Self.Owner.Key, r.Self.Owner.Value)
	if err != nil || r.former == "" {
		return found, err
	}
	former, err := r.Consul.Registered(ctx, url, r.Self.Owner.Key, r.former)
	return append(found, former...), err
}

// ensure registers want if the agent in use has something different. others are our
// registrations under other ids.
func (r *Registrar) ensure(ctx context.Context, p *agentState, want registration, anew bool) (others []*api.AgentService, err error) {
	if p.several {
		return nil, r.ensureOne(ctx, p, want)
	}
	found, err := r.ours(ctx, p.url)
	if err != nil {
		return nil, err
	}
	why := "missing at the agent"
	for _, s := range found {
		if s.ID != want.ID {
			others = append(others, s)
			continue
		}
		if why = want.difference(s); why != "" {
			why = "different at the agent: " + why
		}
	}
	if why == "" && !anew && p.made != nil {
		return others, nil
	}
	if r.severalAgents(ctx, p, want, has(found, want.ID)) {
		return nil, r.ensureOne(ctx, p, want)
	}
	return others, r.registerAgain(ctx, p, want, why)
}

// registerAgain registers want at an agent, because of why; "": only to be sure.
func (r *Registrar) registerAgain(ctx context.Context, p *agentState, want registration, why string) error {
	if want.Check != nil {
		// A service that the agent has lost may not work now.
		ready, _ := r.Ready(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !ready {
			want.Check.Status = api.HealthCritical
		}
	}
	// The agent may complete an aborted request after the deregistration that follows.
	lasting, cancel := consul.Extend(ctx, finishTimeout)
	defer cancel()
	err := r.Consul.Register(lasting, p.url, want.AgentServiceRegistration, want.obsolete...)
	known := p.made != nil
	if err == nil || mayHaveTaken(err) {
		p.made = &want
		p.again = p.again || err != nil
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.status.Registrations++
	r.mu.Unlock()
	if known && why == "" {
		r.Log.Debug().Str("agent", p.url).Msg("registered in Consul again")
	} else {
		r.Log.Info().Str("service", want.Name).Str("id", want.ID).Str("address", want.Address).Int("port", want.Port).
			Str("agent", p.url).Str("check", string(want.check)).Str("why", cmp.Or(why, "new process")).Msg("registered in Consul")
	}
	return nil
}

// mayHaveTaken reports whether an agent may have a registration in spite of an error:
// it may have received the request.
func mayHaveTaken(err error) bool {
	var network *net.OpError
	unreached := errors.As(err, &network) && network.Op == "dial"
	return errors.Is(err, consul.ErrRegistered) || !unreached && !consul.Forbidden(err)
}

// tidy deregisters our other ids from the agent in use. A failure is retried at the next check.
func (r *Registrar) tidy(ctx context.Context, p *agentState, others []*api.AgentService) {
	err := r.drop(ctx, p.url, others, "new id")
	switch {
	case ctx.Err() != nil:
	case err == nil:
		p.trouble = ""
	case err.Error() != p.trouble:
		p.trouble = err.Error()
		r.Log.Warn().Err(err).Str("agent", p.url).Msg("cannot deregister an old id; will retry")
	}
}

// drop deregisters services from an agent.
func (r *Registrar) drop(ctx context.Context, url string, services []*api.AgentService, why string) error {
	for _, s := range services {
		if err := r.Consul.Deregister(ctx, url, s.Service, s.ID); err != nil && !errors.Is(err, consul.ErrNotRegistered) {
			return err
		}
		r.Log.Info().Str("service", s.Service).Str("id", s.ID).Str("agent", url).Str("why", why).Msg("deregistered from Consul")
	}
	return nil
}

// report reports to the agent's TTL check whether the service works.
func (r *Registrar) report(ctx context.Context, p *agentState, want registration) error {
	status, output := api.HealthPassing, "ready"
	if ready, missing := r.Ready(ctx); !ready {
		status, output = api.HealthCritical, strings.Join(missing, "\n")
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return r.atHolder(ctx, p, func(ctx context.Context) error {
		return r.Consul.Report(ctx, p.url, want.Name, want.Check.CheckID, status, output)
	})
}

// clear deregisters us from an agent that is not in use.
func (r *Registrar) clear(ctx context.Context, p *agentState, inUse string) {
	limited, cancel := context.WithTimeoutCause(ctx, clearTimeout, fmt.Errorf("no answer within %v", clearTimeout))
	defer cancel()
	found, err := r.ours(limited, p.url)
	if err == nil {
		why := "no longer configured"
		if inUse != "" {
			why = "registered with another agent"
			// The agent in use may have two addresses.
			found = slices.DeleteFunc(found, func(s *api.AgentService) bool { return s.Meta[metaAgent] == inUse })
		}
		err = r.drop(limited, p.url, found, why)
	}
	if ctx.Err() != nil {
		return
	}
	first := p.failures == 0
	p.done(err)
	switch {
	case err == nil:
		p.clean, p.again, p.made, p.trouble = !p.again, false, nil, ""
		p.due = time.Now().Add(r.CheckInterval)
	case p.made != nil && first:
		r.Log.Warn().Err(err).Str("agent", p.url).Msg("cannot deregister from an agent that is not in use; will retry")
	}
}

// leaveInherited deregisters what the process before has registered at an agent not seen yet.
func (r *Registrar) leaveInherited(ctx context.Context, p *agentState) {
	found, err := r.ours(ctx, p.url)
	if err == nil {
		err = r.drop(ctx, p.url, found, "stop")
	}
	if err != nil {
		r.Log.Warn().Err(err).Str("agent", p.url).Msg("cannot deregister what the process before has registered")
		return
	}
	p.again = false
}
