package app

import (
	"cmp"
	"context"
	"net"
	"strconv"
	"time"

	"sluice/consul"
	"sluice/discovery/locality"
	"sluice/healthcheck"
	"sluice/observe/wake"
)

const (
	// reachTries limits the queries for the advertised address, with reachPause before each:
	// the catalog has a registration a moment after the agent.
	reachTries = 10
	reachPause = 500 * time.Millisecond
)

// reach warns if the application does not answer at the address that the agent advertises,
// where clients look for it: it may listen on 127.0.0.1 only, where checks find it. Without
// the permission to read that address it says nothing.
func (r *Registration) reach(ctx context.Context) {
	if r.options.Address != "" || r.probe == nil || ctx.Err() != nil {
		return
	}
	if wake.Await(ctx, r.Registered()) != nil {
		return
	}
	for range reachTries {
		if consul.Sleep(ctx, reachPause) != nil {
			return
		}
		host := r.advertised(ctx)
		if host == "" {
			continue
		}
		address := net.JoinHostPort(host, strconv.Itoa(r.options.Port))
		limited, cancel := context.WithTimeout(ctx, r.options.Check.Timeout)
		defer cancel()
		if err := r.probe.Check(limited, healthcheck.Target{Address: address, Control: locality.ByOperator}); err != nil && ctx.Err() == nil {
			r.options.Log.Warn().Str("address", address).Str("answer", err.Error()).
				Msg("the app does not answer at the address that the agent advertises to clients: it must listen there, or needs another address (--address)")
		}
		return
	}
}

// advertised returns the address at which Consul lists the application; "": not yet known.
func (r *Registration) advertised(ctx context.Context) string {
	owner := r.registrar.Self.Owner
	list, err := r.client.Listed(ctx, r.client.URL(), r.options.Name, owner.Key, owner.Value)
	if err != nil || len(list) == 0 || list[0].Node == nil {
		return ""
	}
	return cmp.Or(list[0].Service.Address, list[0].Node.Address)
}
