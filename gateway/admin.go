package gateway

import (
	"context"
	stdlog "log"
	"net/http"
	"time"

	"sluice/admin"
	"sluice/registration"
)

// newAdmin returns the server of the admin API.
func (g *Gateway) newAdmin() *http.Server {
	handler := admin.New(admin.Options{
		Version:          g.options.Version,
		Pools:            g.services.pools,
		Watches:          g.discovery.Statuses,
		Snapshot:         g.snapshotStatus,
		Table:            g.table.Load,
		History:          &g.history,
		Consul:           g.askConsul,
		ConsulStats:      g.consul.Stats,
		Catalog:          g.catalogStatus,
		Registration:     func() registration.Status { return g.registrar.Status() },
		Replica:          g.replicaView,
		Replicas:         g.surveyFleet,
		Ready:            g.readiness,
		Connections:      g.proxy.Connections,
		Unrouted:         g.proxy.Unrouted(),
		AccessLogDropped: g.accessLog.Dropped,
		Health:           g.services.health,
		Checks:           g.health.Load,
		Token:            func() string { return *g.token.Load() },
		Log:              g.log,
	})
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          stdlog.New(g.log.With().Str("listener", "admin").Logger(), "", 0),
	}
}

// askConsul asks Consul now for the instances of a service that comes from it.
func (g *Gateway) askConsul(ctx context.Context, name string) (admin.ConsulAnswer, error) {
	config := g.effective.Load()
	service, ok := config.Services[name]
	if !ok || service.Consul == nil {
		return admin.ConsulAnswer{}, admin.ErrNotInConsul
	}
	answer, err := g.consul.Health(ctx, *specOf(service, config.Consul).consul)
	if err != nil {
		return admin.ConsulAnswer{}, err
	}
	return admin.ConsulAnswer{
		Instances:   answer.Instances,
		Index:       answer.Index,
		KnownLeader: answer.KnownLeader,
		LastContact: answer.LastContact,
	}, nil
}
