package gateway

import (
	"fmt"
	"regexp"

	"sluice/balancer"
	"sluice/config"
	"sluice/healthcheck"
)

// healthSettings are the settings by which the peers of a service are judged.
// It reads the certificates that they name.
//
// changed hears when the certificates do, and with an error when they cannot be
// used.
func healthSettings(h config.ServiceHealth, changed func(error)) (healthcheck.Settings, error) {
	s := healthcheck.Settings{Passive: passiveSettings(h.Passive)}
	if h.Active == nil {
		return s, nil
	}
	probe, err := newProbe(h.Active, changed)
	if err != nil {
		return s, fmt.Errorf("health.active: %w", err)
	}
	s.Active = &healthcheck.Active{
		Probe:              probe,
		Interval:           h.Active.Interval,
		FailingInterval:    h.Active.FailingInterval,
		Jitter:             float64(h.Active.Jitter),
		Timeout:            h.Active.Timeout,
		UnhealthyThreshold: h.Active.Unhealthy,
		HealthyThreshold:   h.Active.Healthy,
		Port:               h.Active.Port,
		MustPassFirst:      h.Active.MustPassFirst,
		OverridesConsul:    h.Active.OverridesConsul,
	}
	return s, nil
}

func passiveSettings(p config.Passive) healthcheck.Passive {
	s := healthcheck.Passive{
		ConsecutiveConnectFailures: p.ConsecutiveConnectFailures,
		ConsecutiveFailures:        p.ConsecutiveFailures,
		Consecutive5xx:             p.Consecutive5xx,
		Interval:                   p.Interval,
		Ejection:                   p.Ejection,
		MaxEjection:                p.MaxEjection,
		MaxEjected:                 float64(p.MaxEjected),
	}
	if r := p.SuccessRate; r != nil {
		s.SuccessRate = &healthcheck.SuccessRate{
			StdevFactor: r.StdevFactor, Below: float64(r.Below), MinRequests: r.MinRequests, MinPeers: r.MinPeers,
		}
	}
	if l := p.Latency; l != nil {
		s.Latency = &healthcheck.Latency{Factor: l.Factor, Above: l.Above, MinRequests: l.MinRequests, MinPeers: l.MinPeers}
	}
	return s
}

func newProbe(a *config.ActiveCheck, changed func(error)) (healthcheck.Probe, error) {
	expect := healthcheck.Expectation{Text: a.Expect.Text, Within: int(a.Expect.Within)}
	var err error
	if a.Expect.Regexp != "" {
		if expect.Regexp, err = regexp.Compile(a.Expect.Regexp); err != nil {
			return nil, err
		}
	}
	var tls *healthcheck.TLS
	if a.TLS != nil {
		if tls, err = healthcheck.NewTLS(healthcheck.TLSOptions{
			CAFile: a.TLS.CA, CertFile: a.TLS.Cert, KeyFile: a.TLS.Key,
			ServerName: a.TLS.ServerName, InsecureSkipVerify: a.TLS.SkipVerify,
			Changed: changed,
		}); err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
	}
	switch a.Type {
	case "grpc":
		return healthcheck.NewGRPC(healthcheck.GRPCOptions{Service: a.Service, TLS: tls, Reuse: a.ReuseConnections}), nil
	case "tcp":
		send, _ := config.Unescape(string(a.Send)) // as the loader checked
		return healthcheck.NewTCP(healthcheck.TCPOptions{Send: send, Expect: expect, TLS: tls}), nil
	}
	status, err := healthcheck.ParseStatuses(a.Expect.Status)
	if err != nil {
		return nil, err
	}
	o := healthcheck.HTTPOptions{
		Method: a.Method, Path: string(a.Path), Host: a.Host,
		Status: status, Body: expect, TLS: tls, Reuse: a.ReuseConnections,
	}
	for _, header := range a.Headers {
		if name, value, ok := config.Header(string(header)); ok { // as the loader checked
			o.Headers = append(o.Headers, [2]string{name, value})
		}
	}
	return healthcheck.NewHTTP(o), nil
}

// certificatesOf returns what logs that the certificates of a service's checks have
// changed.
func (g *Gateway) certificatesOf(service string) func(error) {
	return func(err error) {
		if err != nil {
			g.log.Warn().Str("service", service).Err(err).Msg("checks: the certificates cannot be used, going on with those that were read before")
			return
		}
		g.log.Info().Str("service", service).Msg("checks: the certificates have changed and are used for new connections")
	}
}

// configurePool changes the settings of a pool that is in use and how its
// peers are judged.
func (g *Gateway) configurePool(s *service, c config.Service, health healthcheck.Settings) error {
	if err := s.pool.Reconfigure(g.poolOptions(c, s.checker, health)); err != nil {
		return err
	}
	s.checker.Configure(health)
	return nil
}

// newPool returns a service with an empty pool that is not in use yet.
func (g *Gateway) newPool(name string, c config.Service, health healthcheck.Settings) (*service, error) {
	checker := g.health.NewChecker()
	o := g.poolOptions(c, checker, health)
	o.MayConnect = g.mayConnect(name)
	pool, err := balancer.NewPool(name, o)
	if err != nil {
		return nil, err
	}
	return newService(name, pool, checker), nil
}

// health returns what judging the peers has counted, by service.
func (s *services) health() map[string]healthcheck.Stats {
	all := s.all()
	stats := make(map[string]healthcheck.Stats, len(all))
	for _, service := range all {
		stats[service.name] = service.checker.Stats()
	}
	return stats
}
