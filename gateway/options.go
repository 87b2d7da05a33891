package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/config"
	"sluice/consul"
	"sluice/consul/registration"
	consulsource "sluice/discovery/consul"
	"sluice/discovery/etcd/client"
	"sluice/discovery/leader"
	"sluice/healthcheck"
	"sluice/observe/tracing"
	"sluice/proxy"
	"sluice/proxy/accesslog"
	"sluice/proxy/socket"
	"sluice/route"
)

// The functions below translate the configuration into options of other packages.

func proxyOptions(c config.Client, accessLog *accesslog.Logger, tracer *tracing.Tracer) proxy.Options {
	limits := c.Limits
	limits.Connections = cmp.Or(limits.Connections, proxy.HalfOfDescriptors())
	limits.ConnectionsPerAddress = cmp.Or(limits.ConnectionsPerAddress, (limits.Connections+1)/2)
	limits.StreamBytes = socket.MemoryLimit() / 4
	return proxy.Options{
		AccessLog: accessLog, Tracer: tracer,
		Timeouts: c.Timeouts, Limits: limits, Connections: c.Connections,
		TrustedProxies: config.Values(c.TrustedProxies), Switches: c.Switches,
	}
}

// strictTransportSecurity returns the value of the field of RFC 6797, section 6.1.
func strictTransportSecurity(h *config.HSTS) string {
	if h == nil {
		return ""
	}
	value := fmt.Sprintf("max-age=%d", h.MaxAge/time.Second)
	if h.Subdomains {
		value += "; includeSubDomains"
	}
	if h.Preload {
		value += "; preload"
	}
	return value
}

// revealed returns where to connect.
func revealed(locations []config.Location) []string {
	texts := make([]string, len(locations))
	for i, l := range locations {
		texts[i] = l.Reveal()
	}
	return texts
}

// ClientOptions returns the options of the client of Consul.
func ClientOptions(c config.Consul, log zerolog.Logger) consul.Options {
	return consul.Options{
		Addresses:  revealed(c.Addresses),
		Token:      c.Token.Reveal(),
		TokenFile:  c.TokenFile,
		Namespace:  c.Namespace,
		Partition:  c.Partition,
		TLS:        c.TLS,
		MaxWatches: c.MaxWatches,
		Log:        log,
	}
}

// ServiceOptions returns the options of the source of a service in Consul.
func ServiceOptions(s config.ConsulService, c config.Consul) consulsource.ServiceOptions {
	o := s.ServiceOptions
	o.Wait, o.Probation = c.Wait, *s.Probation
	if s.Connect { // the client's hold for queries without others, and are a part of the identities of the instances
		o.Namespace, o.Partition = cmp.Or(s.Namespace, c.Namespace), cmp.Or(s.Partition, c.Partition)
		o.MeshGateway = c.Connect.MeshGateway
	}
	return o
}

// leaderOptions returns how Consul names the leader of a service; nil: it has none.
func leaderOptions(s config.ConsulService, c config.Consul) *leader.Options {
	if s.Leader == nil {
		return nil
	}
	o := s.Leader.Options
	o.Wait, o.Keep = c.Wait, *s.Probation
	return &o
}

func etcdCluster(e config.EtcdCluster) client.Options {
	o := client.Options{Endpoints: strings.Join(revealed(e.Endpoints), ","), User: e.User, PasswordFile: e.PasswordFile}
	if e.TLS != nil {
		o.TLS = *e.TLS
	}
	return o
}

// poolOptions returns the options of the pool of a service, without what the gateway adds.
func poolOptions(s config.Service) balancer.Options {
	return balancer.Options{
		Policy:           s.Balance.Policy,
		DrainTimeout:     s.Drain.Timeout,
		OneLeader:        s.Leader() != nil,
		CutRemoved:       s.Leader().CutsDemoted(),
		HashBound:        float64(s.Balance.Hash.Bound),
		Tiers:            tiersOf(s.Balance.Tiers),
		Overprovisioning: float64(s.Balance.Overprovisioning),
		Groups:           groupsOf(s.Groups),
		Subset:           subsetOf(s.Balance.Subset),
		StickyKey:        s.Balance.Sticky.Secret,
		Limits:           s.Limits.Limits,
		SlowStart:        s.Health.SlowStart,
		PanicThreshold:   float64(s.Health.PanicThreshold),
		RetryBudget:      &s.Retry.RetryBudget,
	}
}

// groupsOf returns the groups of a service in the order in which they select instances.
func groupsOf(groups map[string]config.Group) []balancer.GroupSelector {
	var selectors []balancer.GroupSelector
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		selectors = append(selectors, balancer.GroupSelector{Name: name, Selector: groups[name]})
	}
	return selectors
}

func tiersOf(tiers []config.Tier) []balancer.Selector {
	var selectors []balancer.Selector
	for _, t := range tiers {
		s := balancer.Selector{Tags: t.Tags, Meta: config.MetaOf(t.Meta)}
		for _, node := range t.Nodes {
			if node == config.LocalNode {
				node, _ = os.Hostname() // "" selects no peer
			}
			s.Nodes = append(s.Nodes, node)
		}
		selectors = append(selectors, s)
	}
	return selectors
}

// subsetOf returns s with the number of this replica.
func subsetOf(s balancer.Subset) balancer.Subset {
	if s.Replica < 0 && s.Replicas > 0 {
		host, _ := os.Hostname()
		s.Replica = replicaNumber(host, s.Replicas)
	}
	s.Replica = max(s.Replica, 0)
	return s
}

// replicaNumber returns the number at the end of a host name, such as "sluice-3" in a
// StatefulSet of Kubernetes. Without a number below replicas it returns a hash of the name,
// which two replicas may have in common.
func replicaNumber(host string, replicas int) int {
	name, _, _ := strings.Cut(host, ".")
	digits := name[len(strings.TrimRight(name, "0123456789")):]
	if n, err := strconv.Atoi(digits); err == nil && n < replicas {
		return n
	}
	return int(xxhash.Sum64String(host) % uint64(replicas))
}

// registrationSettings returns the settings of the registration of sluice, or nil for none.
// secure: the admin API uses TLS.
func registrationSettings(r config.Revision, listener string, secure bool) *registration.Settings {
	c := r.Config.Consul.Register
	if c == nil {
		return nil
	}
	meta := map[string]string{registration.MetaConfig: r.Hash}
	maps.Copy(meta, config.MetaOf(c.Meta))
	check := c.Check
	check.Name, check.Path, check.TLS = "sluice serves", "/readyz", secure
	return &registration.Settings{
		Listener:        listener,
		Name:            c.Service,
		ID:              c.ID,
		Address:         c.Address,
		Port:            c.Port,
		Tags:            c.Tags,
		Meta:            meta,
		Check:           check,
		DeregisterAfter: c.DeregisterCriticalAfter,
	}
}

// healthSettings returns the health settings of a service. secure has the certificates of
// active checks; nil: without TLS.
func healthSettings(c *config.Service, secure certificates.Security) healthcheck.Settings {
	h := &c.Health
	s := healthcheck.Settings{Passive: h.Passive}
	if h.Active == nil {
		return s
	}
	foreign := c.ByDocument || h.Active.ByTag
	// Another port may belong to another server.
	otherPort := h.Active.Port != 0 || c.Consul != nil && c.Consul.CheckPort != ""
	probe := newProbe(h.Active, secure, c.Upstream.UsesHTTP2() && !otherPort, foreign)
	s.Active = &healthcheck.Active{Schedule: h.Active.Schedule, Probe: probe, Foreign: foreign}
	return s
}

// newProbe returns the probe of a check. http2: a check of type http uses HTTP/2. foreign: see
// healthcheck.Active.
func newProbe(a *config.ActiveCheck, secure certificates.Security, http2, foreign bool) healthcheck.Probe {
	expect := healthcheck.Expectation{Text: a.Expect.Text, Regexp: a.Expect.Regexp.Value, Within: int(a.Expect.Within)}
	if foreign && expect.Regexp != nil {
		expect.RegexpBytes = route.MaxOctets(expect.Regexp)
	}
	switch a.Type {
	case "grpc":
		return healthcheck.NewGRPC(healthcheck.GRPCOptions{Service: a.Service, TLS: secure, Reuse: a.ReuseConnections})
	case "tcp":
		return healthcheck.NewTCP(healthcheck.TCPOptions{Send: a.Send.Value, Expect: expect, TLS: secure})
	}
	o := healthcheck.HTTPOptions{
		Method: a.Method, Path: a.Path.Reveal(), Host: a.Host, Headers: config.Values(a.Headers),
		Status: a.Expect.Status.Value, Body: expect, TLS: secure, Reuse: a.ReuseConnections, HTTP2: http2,
	}
	return healthcheck.NewHTTP(o)
}
