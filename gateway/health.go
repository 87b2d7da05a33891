package gateway

import (
	"fmt"
	"reflect"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/config"
	"sluice/healthcheck"
)

// healthOf returns the health settings of a service, and adds their certificates to p.
func (g *Gateway) healthOf(name string, c config.Service, p *plan) (healthcheck.Settings, error) {
	p.certificates[name] = nil
	if c.Health.Active == nil || c.Health.Active.TLS == nil {
		return healthSettings(&c, nil), nil
	}
	files, user := c.Health.Active.TLS, fmt.Sprintf("checks of service %q", name)
	secure, err := certificates.NewClient(certificates.ClientOptions{
		Files:              certificates.Files{CA: files.CA, Cert: files.Cert, Key: files.Key},
		ServerName:         files.ServerName,
		InsecureSkipVerify: files.SkipVerify,
		Changed:            certificates.LogChanges(user, g.log),
	})
	if err != nil {
		return healthcheck.Settings{}, fmt.Errorf("health.active.tls: %w", err)
	}
	p.certificates[name] = []certificates.Use{{User: user, Source: secure.Follower}}
	return healthSettings(&c, secure), nil
}

// upstreamTLSOf returns the TLS settings of connections to the peers of a service, nil
// if there is none, and adds their certificates to p.
func (g *Gateway) upstreamTLSOf(name string, c config.Service, current *service, p *plan) (*certificates.Client, error) {
	files, user := c.Upstream.TLS, fmt.Sprintf("peers of service %q", name)
	if files == nil {
		return nil, nil
	}
	if current != nil && reflect.DeepEqual(current.config.Upstream.TLS, files) {
		secure := current.upstreamTLS.Load() // its connections can be reused
		p.certificates[name] = append(p.certificates[name], certificates.Use{User: user, Source: secure.Follower})
		return secure, nil
	}
	secure, err := certificates.NewClient(certificates.ClientOptions{
		Files:              certificates.Files{CA: files.CA, Cert: files.Cert, Key: files.Key},
		ServerName:         files.ServerName,
		InsecureSkipVerify: files.Insecure,
		Changed:            certificates.LogChanges(user, g.log),
	})
	if err != nil {
		return nil, fmt.Errorf("upstream.tls: %w", err)
	}
	p.certificates[name] = append(p.certificates[name], certificates.Use{User: user, Source: secure.Follower})
	return secure, nil
}

// configurePool changes the settings of a pool in use, and of the checks of its peers.
func (g *Gateway) configurePool(s *service, c config.Service, health healthcheck.Settings) error {
	if err := s.pool.Reconfigure(g.poolOptions(c, s.checker, health, s.upstreamTLS.Load)); err != nil {
		return err
	}
	s.checker.Configure(health)
	return nil
}

// newPool returns a service with an empty pool, which is not in use yet.
func (g *Gateway) newPool(name string, c config.Service, health healthcheck.Settings) (*service, error) {
	checker := g.health.NewChecker()
	s := newService(name, checker)
	o := g.poolOptions(c, checker, health, s.upstreamTLS.Load)
	o.MayConnect, o.MayUseSocket = g.mayConnect(name), g.machine.MayUseSocket
	pool, err := balancer.NewPool(name, o)
	if err != nil {
		return nil, err
	}
	s.pool = pool
	g.applyOrders(s)
	return s, nil
}

// health returns the counters of health checks by service.
func (s *services) health() map[string]healthcheck.Stats {
	all := s.all()
	stats := make(map[string]healthcheck.Stats, len(all))
	for _, service := range all {
		stats[service.name] = service.checker.Stats()
	}
	return stats
}
