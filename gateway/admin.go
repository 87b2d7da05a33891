package gateway

import (
	"context"
	stdlog "log"
	"net/http"
	"time"

	"sluice/admin"
	"sluice/catalog/claim"
	"sluice/consul/registration"
	consulsource "sluice/discovery/consul"
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
		Sources:          g.sourceStatuses,
		Rebuild:          g.rebuild,
		RollBack:         g.RollBack,
		Consul:           g.askConsul,
		ConsulStats:      g.sources.Stats,
		Catalog:          g.finder.status,
		Tags:             func() claim.Result { return g.tags.present(g.history.Current().Config, g.effective.Load()) },
		TagProblems:      func() []claim.Problem { return g.tags.last().Problems },
		Effective:        g.effective.Load,
		Registration:     func() registration.Status { return g.registrar.Status() },
		Replica:          g.replicaView,
		Replicas:         g.surveyFleet,
		Ready:            g.readiness,
		Connections:      g.proxy.Connections,
		EndedConnections: g.proxy.EndedConnections,
		ConnectionLimit:  g.proxy.ConnectionLimit,
		Refused:          g.proxy.RefusedConnections,
		Handshakes:       g.proxy.Handshakes,
		HTTP2:            g.proxy.HTTP2,
		Unrouted:         g.proxy.Unrouted(),
		AccessLogDropped: func() uint64 { return g.accessLog.Load().Dropped() },
		Certificates:     g.certificateStatuses,
		Splits:           g.splitStates,
		OrderShare:       g.orderShare,
		Health:           g.services.health,
		Checks:           g.health.Load,
		Events:           g.events,
		Series:           g.series,
		Token:            func() string { return g.token.Load().value },
		Log:              g.log,
	})
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          stdlog.New(g.log.With().Str("listener", "admin").Logger(), "", 0),
	}
	server.RegisterOnShutdown(g.events.Close) // else Shutdown would wait for the streams
	return server
}

// askConsul queries the instances of a service whose source is Consul: its catalog, or a key.
func (g *Gateway) askConsul(ctx context.Context, name string) (admin.ConsulAnswer, error) {
	config := g.effective.Load()
	service, ok := config.Services[name]
	if ok && service.ConsulKV != nil {
		set, answer, err := g.kvSources.Read(ctx, name, service.ConsulKV.Key)
		if err != nil {
			return admin.ConsulAnswer{}, err
		}
		return admin.ConsulAnswer{Instances: set, Index: answer.Index, KnownLeader: answer.KnownLeader, LastContact: answer.LastContact}, nil
	}
	if !ok || service.Consul == nil {
		return admin.ConsulAnswer{}, admin.ErrNotInConsul
	}
	answer, err := consulsource.Health(ctx, g.consul, *specOf(service, config.Consul).consul)
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
