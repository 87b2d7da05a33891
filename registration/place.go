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

	"sluice/discovery/consul"
)

// place is what is known of one agent.
type place struct {
	url      string
	clean    bool          // it has nothing of ours
	made     *registration // what was registered there, or may have been; nil: nothing by this process
	failures int           // in a row
	due      time.Time     // of the next look
	report   time.Time     // of the next report to a TTL check
	outbound string        // of this machine, the address that packets to it come from, as last known
	trouble  string        // why it keeps what it has of ours under other ids; "": it does not
}

// next returns when something is to be done at the agent in use.
func (p *place) next() time.Time {
	if p.reports() && p.report.Before(p.due) {
		return p.report
	}
	return p.due
}

// reports reports whether the agent in use has a check that lives on reports.
func (p *place) reports() bool {
	return p.failures == 0 && p.made != nil && p.made.check == CheckTTL
}

// done takes note of how an attempt ended.
func (p *place) done(err error) {
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

// define returns what the agent is to have.
func (r *Registrar) define(p *place, s Settings) (registration, error) {
	want := define(s, r.Self, p.url, func(url string) string {
		// A name that cannot be looked up for a while is no other address.
		p.outbound = cmp.Or(r.Outbound(url), p.outbound)
		return p.outbound
	})
	if want.Address == "" && !isLocal(p.url) { // it would be taken for the agent's
		return want, errors.New("it is not known which address of this machine clients reach: set consul.register.address")
	}
	return want, nil
}

// look compares what the agent in use has with want, and registers it if that is
// not the same. Others are what the agent has of ours under other ids.
func (r *Registrar) look(ctx context.Context, p *place, want registration, anew bool) (others []*api.AgentService, err error) {
	found, err := r.Consul.Registered(ctx, p.url, MetaReplica, r.Self.Replica())
	if err != nil {
		return nil, err
	}
	why := "the agent does not have it"
	for _, s := range found {
		if s.ID != want.ID {
			others = append(others, s)
			continue
		}
		if why = want.difference(s); why != "" {
			why = "the agent has another " + why
		}
	}
	if why == "" && !anew && p.made != nil {
		return others, nil
	}
	err = r.register(ctx, p.url, want)
	known := p.made != nil
	if err == nil || mayHaveTaken(err) {
		p.made = &want
	}
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.status.Registrations++
	r.mu.Unlock()
	if known && why == "" {
		r.Log.Debug().Str("agent", p.url).Msg("registered in Consul again, to be sure")
	} else {
		r.Log.Info().Str("service", want.Name).Str("id", want.ID).Str("address", want.Address).Int("port", want.Port).
			Str("agent", p.url).Str("check", string(want.check)).Str("why", cmp.Or(why, "this process is new")).Msg("registered in Consul")
	}
	return others, nil
}

// register has an agent register want. What is under way when ctx ends is seen to
// its end, for finishTimeout at most: an agent goes on with a registration that is
// broken off, and might be through with it after the deregistration that follows.
func (r *Registrar) register(ctx context.Context, url string, want registration) error {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(finishTimeout, cancel) })
	defer stop()
	return r.Consul.Register(lasting, url, want.AgentServiceRegistration, want.obsolete...)
}

// mayHaveTaken reports whether an agent may have a registration in spite of an
// error: nobody knows, if it had the request and there was no answer.
func mayHaveTaken(err error) bool {
	var network *net.OpError
	unreached := errors.As(err, &network) && network.Op == "dial"
	return errors.Is(err, consul.ErrRegistered) || !unreached && !consul.Forbidden(err)
}

// tidy takes away what the agent in use has of ours under other ids. If that
// fails it is tried again at the next look.
func (r *Registrar) tidy(ctx context.Context, p *place, others []*api.AgentService) {
	err := r.drop(ctx, p.url, others, "it has another id now")
	switch {
	case ctx.Err() != nil:
	case err == nil:
		p.trouble = ""
	case err.Error() != p.trouble:
		p.trouble = err.Error()
		r.Log.Warn().Err(err).Str("agent", p.url).Msg("the agent still has this sluice under another id, and will be asked to deregister it")
	}
}

// drop takes away what an agent has of ours, and says why.
func (r *Registrar) drop(ctx context.Context, url string, services []*api.AgentService, why string) error {
	for _, s := range services {
		if err := r.Consul.Deregister(ctx, url, s.Service, s.ID); err != nil {
			return err
		}
		r.Log.Info().Str("service", s.Service).Str("id", s.ID).Str("agent", url).Str("why", why).Msg("deregistered from Consul")
	}
	return nil
}

// tell reports to the agent's TTL check whether this sluice serves.
func (r *Registrar) tell(ctx context.Context, url string, want registration) error {
	status, output := api.HealthPassing, "ready"
	if ready, missing := r.Ready(); !ready {
		status, output = api.HealthCritical, strings.Join(missing, "\n")
	}
	return r.Consul.Report(ctx, url, want.Name, want.Check.CheckID, status, output)
}

// clear takes away what an agent that is not in use has of ours.
func (r *Registrar) clear(ctx context.Context, p *place, inUse string) {
	limited, cancel := context.WithTimeoutCause(ctx, clearTimeout, fmt.Errorf("no answer within %v", clearTimeout))
	defer cancel()
	found, err := r.Consul.Registered(limited, p.url, MetaReplica, r.Self.Replica())
	if err == nil {
		why := "nothing is to be registered any more"
		if inUse != "" {
			why = "another agent has it now"
			// An agent with two addresses has what was registered at the other one.
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
		p.clean, p.made, p.trouble = true, nil, ""
	case p.made != nil && first:
		r.Log.Warn().Err(err).Str("agent", p.url).Msg("an agent that is not in use still has this sluice, and will be asked to deregister it")
	}
}
