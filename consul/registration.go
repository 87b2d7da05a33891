package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
)

// registrationTimeout bounds each request of a registration. An agent contacts a server
// only to resolve a token.
const registrationTimeout = 5 * time.Second

// ErrNotRegistered is in errors about a service or check that the agent does not have.
var ErrNotRegistered = errors.New("the agent does not have it")

// ErrRegistered is in errors of Register if the agent has the service nevertheless.
var ErrRegistered = errors.New("the service is registered, but may have obsolete checks")

// Register registers a service with the agent at url, or replaces the one with the same
// id. The status and the maintenance mode of an existing service do not change.
// obsolete are the ids of checks to deregister.
func (c *Client) Register(ctx context.Context, url string, r *api.AgentServiceRegistration, obsolete ...string) error {
	err := c.atAgent(ctx, url, r.Name, func(ctx context.Context, a *api.Client, q *api.QueryOptions) error {
		// Replacing the checks would end maintenance mode, which is a check.
		return a.Agent().ServiceRegisterOpts(r, api.ServiceRegisterOpts{Token: q.Token}.WithContext(ctx))
	})
	if err != nil || len(obsolete) == 0 {
		return err
	}
	err = c.atAgent(ctx, url, r.Name, func(_ context.Context, a *api.Client, q *api.QueryOptions) error {
		checks, err := a.Agent().ChecksWithFilterOpts("ServiceID == `"+r.ID+"`", q)
		if err != nil {
			return err
		}
		for _, id := range obsolete {
			if checks[id] == nil {
				continue
			}
			if err := a.Agent().CheckDeregisterOpts(id, q); err != nil && StatusCode(err) != http.StatusNotFound {
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

// Deregister deregisters a service from the agent at url. If the agent does not have it,
// the error is ErrNotRegistered.
func (c *Client) Deregister(ctx context.Context, url, service, id string) error {
	return c.atAgent(ctx, url, service, func(_ context.Context, a *api.Client, q *api.QueryOptions) error {
		return a.Agent().ServiceDeregisterOpts(id, q)
	})
}

// Registered returns the services of the agent at url with a meta value, as far as the
// token permits. Neither key nor value contains `.
func (c *Client) Registered(ctx context.Context, url, key, value string) ([]*api.AgentService, error) {
	filter := fmt.Sprintf("Meta[`%s`] == `%s`", key, value) // raw strings, as in Go
	var list []*api.AgentService
	err := c.atAgent(ctx, url, "", func(_ context.Context, a *api.Client, q *api.QueryOptions) error {
		services, err := a.Agent().ServicesWithFilterOpts(filter, q)
		if err == nil && services == nil {
			return errors.New("the answer is no list of services")
		}
		for _, s := range services {
			if s != nil {
				list = append(list, s)
			}
		}
		return err
	})
	return list, err
}

// Listed returns the instances of a service in the catalog with a meta value, as far as
// the token permits. The agent at url asks a server. Neither key nor value contains `.
func (c *Client) Listed(ctx context.Context, url, service, key, value string) ([]*api.ServiceEntry, error) {
	var list []*api.ServiceEntry
	err := c.atAgent(ctx, url, service, func(_ context.Context, a *api.Client, q *api.QueryOptions) (err error) {
		q.Filter = fmt.Sprintf("Service.Meta[`%s`] == `%s`", key, value)
		list, _, err = a.Health().Service(service, "", false, q)
		return err
	})
	list = slices.DeleteFunc(list, func(e *api.ServiceEntry) bool { return e == nil || e.Service == nil })
	for _, e := range list {
		e.Checks = slices.DeleteFunc(e.Checks, func(c *api.HealthCheck) bool { return c == nil })
	}
	return list, err
}

// OnOwnConnection returns a context whose requests do not keep their connection open: behind
// a load balancer, the next request may reach another agent.
func OnOwnConnection(ctx context.Context) context.Context {
	return context.WithValue(ctx, ownConnection{}, true)
}

// ownConnection is the key of OnOwnConnection.
type ownConnection struct{}

// Report sets the status of a TTL check of a service at the agent at url:
// api.HealthPassing, api.HealthWarning or api.HealthCritical.
func (c *Client) Report(ctx context.Context, url, service, checkID, status, output string) error {
	return c.atAgent(ctx, url, service, func(_ context.Context, a *api.Client, q *api.QueryOptions) error {
		return a.Agent().UpdateTTLOpts(checkID, output, status, q)
	})
}

// atAgent calls do with the agent at url. The token needs service:write for service.
func (c *Client) atAgent(ctx context.Context, url, service string, do func(context.Context, *api.Client, *api.QueryOptions) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, registrationTimeout, fmt.Errorf("no answer within %v", registrationTimeout))
	defer cancel()
	room := c.gate.tryEnter()
	if room {
		defer c.gate.leave(kindNonBlocking, false)
	}
	for _, a := range c.agents.all {
		if a.url != url {
			continue
		}
		q := (&api.QueryOptions{Token: c.token.current()}).WithContext(ctx)
		client := a.api
		if !room { // the connection for probes is idle most of the time
			client = a.probeAPI
		}
		err := do(ctx, client, q)
		if err != nil && StatusCode(err) == 0 && a == c.agents.inUse() {
			c.agents.alarm.Send() // so that Changed tells of the recovery
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case StatusCode(err) == http.StatusNotFound:
			err = ErrNotRegistered
		default:
			err = explain(err, fmt.Sprintf("service:write: service %q { policy = \"write\" }", service))
		}
		return fmt.Errorf("consul %s: %w", a.url, err)
	}
	return fmt.Errorf("consul %s: no such agent", url)
}
