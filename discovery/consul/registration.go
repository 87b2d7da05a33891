package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	neturl "net/url"
	"time"

	"github.com/hashicorp/consul/api"
)

// registrationTimeout bounds each request of a registration. An agent answers
// them by itself, and waits for a server only to resolve a token.
const registrationTimeout = 5 * time.Second

// ErrNotRegistered is in errors about a service or a check that the agent does
// not have.
var ErrNotRegistered = errors.New("the agent does not have it")

// ErrRegistered is in errors of Register if the agent has the service all the
// same.
var ErrRegistered = errors.New("it is registered, and may have former checks")

// URLs returns the addresses of all agents, in order of preference.
func (c *Client) URLs() []string {
	urls := make([]string, len(c.agents.all))
	for n, a := range c.agents.all {
		urls[n] = a.url
	}
	return urls
}

// Follow keeps the choice of the agent up to date until the caller calls done,
// as running sources do.
func (c *Client) Follow() (done func()) { return c.begin() }

// Changed returns a channel that is closed when what was registered should be
// looked at again: another agent is used, one answers again, or the token is
// another one.
func (c *Client) Changed() <-chan struct{} { return c.agents.retry() }

// Register registers a service with the agent at url, or puts r in place of what
// it has under r's id. The health and the maintenance mode of a service that is
// there stay. Obsolete are the ids of checks that the service has no more.
func (c *Client) Register(ctx context.Context, url string, r *api.AgentServiceRegistration, obsolete ...string) error {
	err := c.atAgent(ctx, url, r.Name, func(ctx context.Context, a *api.Agent, q *api.QueryOptions) error {
		// To have Consul replace the checks would end maintenance mode, which is one.
		return a.ServiceRegisterOpts(r, api.ServiceRegisterOpts{Token: q.Token}.WithContext(ctx))
	})
	if err != nil || len(obsolete) == 0 {
		return err
	}
	err = c.atAgent(ctx, url, r.Name, func(_ context.Context, a *api.Agent, q *api.QueryOptions) error {
		checks, err := a.ChecksWithFilterOpts("ServiceID == `"+r.ID+"`", q)
		if err != nil {
			return err
		}
		for _, id := range obsolete {
			if checks[id] == nil {
				continue
			}
			if err := a.CheckDeregisterOpts(id, q); err != nil && !isNotFound(err) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRegistered, err)
	}
	return nil
}

// Deregister takes a service away from the agent at url. It is no error if it
// is not there.
func (c *Client) Deregister(ctx context.Context, url, service, id string) error {
	err := c.atAgent(ctx, url, service, func(_ context.Context, a *api.Agent, q *api.QueryOptions) error {
		return a.ServiceDeregisterOpts(id, q)
	})
	if errors.Is(err, ErrNotRegistered) {
		return nil
	}
	return err
}

// Registered returns the services at the agent at url that have a value in
// their meta, as far as the token may see them.
func (c *Client) Registered(ctx context.Context, url, key, value string) ([]*api.AgentService, error) {
	filter := Selection{Meta: map[string]string{key: value}}.filter("Meta")
	var list []*api.AgentService
	err := c.atAgent(ctx, url, "", func(_ context.Context, a *api.Agent, q *api.QueryOptions) error {
		services, err := a.ServicesWithFilterOpts(filter, q)
		if err == nil && services == nil {
			return errors.New("the answer is no list of services")
		}
		for _, s := range services {
			list = append(list, s)
		}
		return err
	})
	return list, err
}

// Report sets the status of a TTL check of a service at the agent at url:
// api.HealthPassing, api.HealthWarning or api.HealthCritical.
func (c *Client) Report(ctx context.Context, url, service, checkID, status, output string) error {
	return c.atAgent(ctx, url, service, func(_ context.Context, a *api.Agent, q *api.QueryOptions) error {
		return a.UpdateTTLOpts(checkID, output, status, q)
	})
}

// atAgent has do speak to the agent at url about a service that the token must
// be allowed to change.
func (c *Client) atAgent(ctx context.Context, url, service string, do func(context.Context, *api.Agent, *api.QueryOptions) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, registrationTimeout, fmt.Errorf("no answer within %v", registrationTimeout))
	defer cancel()
	room := c.gate.tryEnter()
	if room {
		defer c.gate.leave(false)
	}
	for _, a := range c.agents.all {
		if a.url != url {
			continue
		}
		q := (&api.QueryOptions{Token: c.token.current()}).WithContext(ctx)
		speaker := a.api
		if !room { // blocking queries have all connections; those of probes are idle but for a moment
			speaker = a.probeAPI
		}
		err := do(ctx, speaker.Agent(), q)
		var unreachable *neturl.Error
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case isNotFound(err):
			err = ErrNotRegistered
		case errors.As(err, &unreachable):
			err = unreachable.Err // without the URL, which says nothing new
		default:
			err = explain(err, fmt.Sprintf("service:write: service %q { policy = \"write\" }", service))
		}
		return fmt.Errorf("consul %s: %w", a.url, err)
	}
	return fmt.Errorf("consul %s: no such agent", url)
}

func isNotFound(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}
