package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sluice/admin"
	"sluice/balancer/reading"
	"sluice/certificates"
	"sluice/config"
	"sluice/config/live"
	"sluice/consul/registration"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/discovery/saved"
	"sluice/healthcheck"
	"sluice/observe/metrics"
	"sluice/observe/panics"
	"sluice/observe/tracing"
	"sluice/operator"
	"sluice/proxy"
	"sluice/proxy/accesslog"
	"sluice/release"
	"sluice/route"
	"sluice/route/compression"
	"sluice/tags/claim"
)

// newAdmin returns the server of the admin API, and sets adminCertificate.
func (g *Gateway) newAdmin(secure *config.AdminTLS) (_ *http.Server, err error) {
	if secure != nil {
		files := certificates.Files{Cert: secure.Cert, Key: secure.Key}
		if g.adminCertificate, err = certificates.Follow(files, certificates.LogChanges(adminUser, g.log)); err != nil {
			return nil, fmt.Errorf("admin.tls: %w", err)
		}
	}
	handler := admin.New(admin.Options{
		Process: admin.Process{
			Version: g.options.Version, Ready: g.readiness, TurnReady: g.process.TurnReady,
			LogLevel: g.process.LogLevel, SetLogLevel: g.process.SetLogLevel, Certificates: g.certificateStatuses,
		},
		Services: admin.Services{
			Pools: g.services.pools, Watches: g.discovery.Statuses, Health: g.services.health,
			Series: g.series, Consul: g.askConsul, Catalog: g.finder.Status,
		},
		Routes: admin.Routes{
			Table: g.table, Effective: g.effective.Load,
			Tags: func() claim.Result { return g.tags.Present(g.history.Current().Config, g.effective.Load()) },
		},
		Fleet: admin.Fleet{
			Registration: func() registration.Status { return g.registrar.Status() },
			Replica:      g.replicaView, Replicas: g.surveyFleet,
		},
		Documents: g.documents,
		Shares:    admin.Shares{Splits: g.judge.States, OrderShare: g.judge.Order},
		Orders:    g.orders,
		Events:    g.events,
		Metrics:   g.metrics(),
		Tokens:    func() admin.Tokens { return g.tokens.Load().Tokens },
		Log:       g.log,
	})
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          stdlog.New(g.log.With().Str("listener", "admin").Logger(), "", 0),
	}
	server.RegisterOnShutdown(g.events.Close) // else Shutdown would wait for the streams
	return server, nil
}

// metrics returns the metrics of all parts. Each part has its own, beside the values that they show.
func (g *Gateway) metrics() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		metrics.Panics(),
		admin.ProcessMetrics(g.options.Version, g.readiness),
		release.Metrics(g.judge.States),
		operator.Metrics(g.orders.Stats),
		reading.Metrics(g.services.pools),
		healthcheck.Metrics(g.health.Load, g.services.health),
		discovery.Metrics(g.discovery.Statuses),
		saved.Metrics(g.snapshot.Status),
		consulsource.Metrics(g.sources.Stats),
		registration.Metrics(func() registration.Status { return g.registrar.Status() }),
		live.Metrics(g.history, g.documents.Statuses),
		claim.Metrics(func() []claim.Problem { return g.tags.InUse().Problems }),
		certificates.Metrics(g.certificateStatuses),
		route.Metrics(g.table),
		proxy.Metrics(g.proxy.Stats),
		compression.Metrics(g.proxy.Compression),
		accesslog.Metrics(func() uint64 { return g.accessLog.Load().Dropped() }),
		tracing.Metrics(g.spans.Read),
	)
	return registry
}

// adminUser is the admin API as a user of certificates.
const adminUser = "admin API"

// serveAdmin serves the admin API: at once, or, if this process replaces another one,
// when it serves clients.
func (g *Gateway) serveAdmin() {
	l := g.adminListener
	if g.adminCertificate != nil {
		l = tls.NewListener(l, &tls.Config{
			MinVersion: certificates.MinVersion, CipherSuites: certificates.Suites,
			NextProtos: []string{"http/1.1"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return g.adminCertificate.Contents().Certificate, nil
			},
		})
	}
	g.log.Info().Str("listener", adminName).Str("address", endpoint(l.Addr())).Msg("listening")
	g.serving.Go(func() {
		defer panics.Contain(panics.Task, nil)
		if g.takingOver {
			if <-g.warm; !g.served.Load() {
				return
			}
		}
		if err := g.admin.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			g.fail(fmt.Errorf("admin listener %s: %w", endpoint(l.Addr()), err))
		}
	})
}

// adminTokens are the tokens of the admin API, and the files that contain them.
type adminTokens struct {
	admin.Tokens
	operateFile, lookFile string // empty: no token
}

func readTokens(operateFile, lookFile string) (t *adminTokens, err error) {
	t = &adminTokens{operateFile: operateFile, lookFile: lookFile}
	if t.Operate, err = readToken("admin.token_file", operateFile); err != nil {
		return nil, err
	}
	if t.Look, err = readToken("admin.read_token_file", lookFile); err != nil {
		return nil, err
	}
	if t.Look == t.Operate && t.Look != "" {
		return nil, errors.New("admin.read_token_file: it has the token of admin.token_file: want another one")
	}
	return t, nil
}

// readToken returns the token in the file that is the value of key; "" if file is empty.
func readToken(key, file string) (string, error) {
	if file == "" {
		return "", nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("%s: %s is empty", key, file)
	}
	return token, nil
}

// isAdmin reports whether c is for the bound listener of the admin API: its tokens and
// permissions protect that, and do not change while another address waits for a restart.
func (g *Gateway) isAdmin(c config.Admin) bool {
	return c.Address == g.started.Admin.Address && (c.TLS == nil) == (g.started.Admin.TLS == nil)
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
