package gateway

import (
	"fmt"
	"slices"

	"github.com/hashicorp/consul/api"

	"sluice/test/discoverytest"
)

// retry returns settings of retries of a service or a route, by which no request fails that another
// peer can answer.
func (c *combinations) retry() settings {
	keys := settings{"budget": 10, "min_per_second": 1_000_000, "attempts": pick(c, 3, 4, 5)}
	if !c.dying && !c.crashing && c.one(3) {
		keys["attempts"] = pick(c, 1, 2)
	}
	if !c.dying && !c.crashing && !c.impatient && c.one(2) { // then nothing uses it up
		keys["budget"], keys["min_per_second"] = pick(c, 0.0, 0.01, 0.2), pick(c, 0, 1)
	}
	if c.crashing && c.crowded {
		keys["budget"], keys["min_per_second"] = 0, greedyRetries
	}
	if c.impatient && c.one(2) {
		keys["per_try_timeout"] = pick(c, "5ms", "50ms", "1s")
	}
	if c.one(3) {
		keys["body"] = pick(c, "0", "1KiB", "40KiB", "1MiB")
	}
	return keys
}

// upstream returns the addresses of a service for requests, and how they are reached. The protocol
// of the service any changes.
func (c *combinations) upstream(name string) (addresses []string, upstream, secure settings) {
	verified := settings{"ca": c.servers.ca, "server_name": "a.example.com"}
	switch name {
	case "any":
		if c.plain {
			return c.servers.plain, settings{"protocol": pick(c, "http1", "h2c")}, nil
		}
		return c.servers.secure, settings{"protocol": pick(c, "http1", "h2"), "tls": verified}, verified
	case "h2":
		return c.servers.secure, settings{"tls": verified, "protocol": "h2"}, verified
	case "h2c":
		return c.servers.plain, settings{"protocol": "h2c"}, nil
	}
	return c.servers.plain, nil, nil
}

func (c *combinations) service(name string) settings {
	keys := settings{
		"timeouts": settings{"connect": "5m", "response_header": "10m", "idle": "10m", "tunnel": "10m"}, "drain": settings{"timeout": "10m"},
	}
	if c.waiting {
		keys["wait_for_peer"] = "1m"
	}
	addresses, upstream, secure := c.upstream(name)
	if upstream != nil {
		keys["upstream"] = upstream
	}
	if !c.impatient && !c.crashing {
		addresses = addresses[:pick(c, 1, 2, 3, 3)]
	}
	balance := settings{"policy": pick(c, "ewma", "hash", "least_conn", "random", "round_robin", "sticky")}
	limits, health := settings{}, settings{}
	dead := c.dying && len(addresses) == 3 && c.one(2)
	tagged := false
	switch {
	case c.byConsul(name):
		keys["consul"], tagged = settings{"service": name}, true
		if c.one(4) {
			keys["consul"] = settings{"service": name, "consistency": pick(c, "stale", "consistent"), "probation": pick(c, "5m", "9m")}
		}
	case len(addresses) == 3 && !dead && c.one(3):
		keys["file"], tagged = c.servers.instances(c.t, fmt.Sprint(name, secure != nil), addresses), true
	default:
		peers := []string{}
		for _, a := range addresses {
			peers = append(peers, c.near(a)+pick(c, "", " weight=2", " weight=9"))
		}
		if dead {
			peers = append(peers, "127.0.0.1:1")
		}
		keys["peers"] = peers
	}
	switch {
	case tagged && c.one(3):
		balance["tiers"] = []settings{{"tags": []string{pick(c, "v1", "v2", "none")}}}
		balance["overprovisioning"] = pick(c, 1.0, 1.4, 9.0)
	case tagged && c.one(2):
		keys["groups"] = settings{"canary": settings{"tags": []string{"v2"}}}
		keys["split"] = settings{"canary": pick(c, "0%", "50%", "100%"), "key": pick(c, "cookie", "none", "client_address", "header X-Client"), "fallback": "rest"}
		if c.one(2) {
			keys["judge"] = settings{"act": pick(c, "rollback", "report"), "steps": []string{"10%", "60%"}, "slower": pick(c, "0", "50%")}
		}
	}
	switch {
	case balance["policy"] == "hash":
		keys := []string{pick(c, "path", "client_address", "query key", "header X-Client", "cookie mine")}
		balance["hash"] = settings{"keys": append(keys, "client_address"), "bound": pick(c, 0.0, 1.25)}
		if keys[0] == "client_address" {
			balance["hash"].(settings)["keys"] = keys
		}
	case balance["policy"] == "sticky" && c.one(2):
		balance["sticky"] = settings{"cookie": pick(c, "sluice_peer", "other"), "secret": pick(c, "a", "b"), "max_age": pick(c, "0s", "1h"), "same_site": pick(c, "lax", "strict")}
	}
	if !c.dying && !c.impatient && !c.crashing && balance["policy"] != "hash" && balance["policy"] != "sticky" && c.one(4) {
		balance["subset"] = settings{"size": pick(c, 1, 2), "replica": 0, "replicas": pick(c, 1, 3)}
	}
	if c.crowded || c.one(3) {
		limits["connections_per_peer"], limits["connection_wait"] = pick(c, 2, 3, 8), "1m"
	}
	if c.crowded {
		limits["pending"] = greedyPending
	}
	if c.one(3) {
		limits["adaptive"], limits["adaptive_min"] = true, 10_000
	}
	if c.one(3) {
		limits["requests"], limits["requests_per_peer"], limits["retries"] = 10_000, 10_000, 10_000
	}
	if c.one(4) {
		limits["response_head"], limits["response_fields"] = pick(c, "4KiB", "60KiB"), pick(c, 50, 1000)
	}
	if c.one(3) {
		active := settings{"interval": "50ms", "timeout": "5m", "type": "tcp"}
		if c.one(2) {
			active["type"], active["path"] = "http", "/health"
		}
		if secure != nil && active["type"] == "http" {
			active["tls"] = secure
		}
		if c.one(2) && active["type"] == "http" {
			active["reuse_connections"] = true
		}
		active["must_pass_first"] = c.waiting && c.one(2)
		health["active"] = active
	}
	passive := settings{}
	if c.one(3) {
		passive = settings{"success_rate": settings{}, "latency": settings{}, "interval": "100ms"}
	}
	if health["passive"] = passive; c.impatient || c.crashing {
		passive["consecutive_failures"] = 0
	}
	if c.one(3) {
		health["slow_start"] = "2s"
	}
	if c.one(4) {
		health["panic_threshold"] = pick(c, "0%", "100%")
	}
	if c.one(3) {
		keys["keepalive"] = settings{"idle": pick(c, "100ms", "4s"), "max": pick(c, 1, 512), "max_requests": pick(c, 0, 3, 10), "max_age": pick(c, "0s", "50ms")}
	}
	keys["balance"], keys["limits"], keys["health"], keys["retry"] = balance, limits, health, c.retry()
	return keys
}

// near returns the address of a server, or that of its unix socket, which is another peer.
func (c *combinations) near(address string) string {
	if !c.impatient && !c.crashing && c.one(3) {
		return "unix:" + c.servers.sockets[address]
	}
	return address
}

// streams composes a service for the connections of listeners for TCP.
func (c *combinations) streams(name string, addresses []string) settings {
	service := settings{"timeouts": settings{"connect": "5m"}, "drain": settings{"timeout": "10m"}, "balance": settings{"policy": pick(c, "least_conn", "ewma", "round_robin", "random")}}
	if c.byConsul(name) {
		service["consul"] = settings{}
	} else {
		peers := []string{}
		for _, a := range addresses[:pick(c, 1, 2, 3)] {
			peers = append(peers, c.near(a))
		}
		service["peers"] = peers
	}
	if name == "again" {
		service["upstream"] = settings{"tls": settings{"ca": c.servers.ca, "server_name": "a.example.com"}}
	}
	if name == "told" {
		service["proxy_protocol"] = pick(c, "v1", "v2")
	}
	if c.one(3) {
		service["limits"] = settings{"connections_per_peer": pick(c, 2, 3), "connection_wait": "1m"}
	}
	if c.one(3) {
		service["health"] = settings{"active": settings{"type": "tcp", "interval": "50ms", "timeout": "5m"}}
	}
	return service
}

// registered are the services that Consul has, with their peers. The first of each is always in
// service.
func (c *combinations) registered() map[string][]string {
	s := c.servers
	return map[string][]string{"one": s.plain, "h2c": s.plain, "h2": s.secure, "streams": s.streams}
}

// byConsul reports whether a service has its instances from Consul in the next configuration. While
// Consul is away, a reload waits for those of a new service, and a new process takes over only if
// this one knows them. If it has lost them, a process that does not know them believes it.
func (c *combinations) byConsul(name string) bool {
	switch {
	case c.registered()[name] == nil:
		return false
	case c.healthy:
		return c.one(2)
	case slices.Contains(c.known, name):
		return !c.one(4)
	}
	return !c.upgrading && !c.lost && slices.Contains(c.present, name) && c.one(2)
}

// register sets the instances of services in Consul: in an order and a state at random, or without
// some.
func (c *combinations) register() {
	all := make(map[string][]*api.ServiceEntry)
	for _, name := range []string{"one", "h2c", "h2", "streams"} {
		var entries []*api.ServiceEntry
		for n, a := range c.registered()[name] {
			e := discoverytest.Instance(name, a, port(c.t, a))
			e.Service.Tags = []string{fmt.Sprint("v", 1+n%2)}
			e.Service.Weights.Passing = 1 + c.random.IntN(3)
			if n > 0 && !c.impatient && !c.crashing {
				switch c.random.IntN(6) {
				case 0:
					continue
				case 1:
					discoverytest.Health(e, api.HealthCritical, "")
				case 2:
					discoverytest.Health(e, api.HealthWarning, "")
				case 3:
					discoverytest.Maintenance(e, "")
				}
			}
			entries = append(entries, e)
		}
		c.random.Shuffle(len(entries), func(a, b int) { entries[a], entries[b] = entries[b], entries[a] })
		all[name] = entries
	}
	c.consul.SetAll(all)
}
