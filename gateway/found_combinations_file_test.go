package gateway

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sluice/config"
	"sluice/test/dnstest"
)

// A foundFile is a configuration file of TestFoundCombinations. It is not changed.
type foundFile struct {
	number    int
	dialects  []string
	shares    bool              // the claim for sharedKey, and for connections of all names
	defined   map[string]string // services that it names, with their policies
	divided   map[string]bool   // some of them: they have groups of their own
	moving    moving
	leadsBy   string // tag, key, passing
	cuts      bool   // who no longer leads; else it drains
	waitsFor  bool   // a leader
	debounces bool
}

// moving is a service with a route of the file, wherever its instances are registered.
type moving struct {
	name, source string   // consul, peers, file, dns
	addresses    []string // of other sources than Consul
	names        []string // of their peers
	at           any      // where other sources have them, as a value of the configuration
	keys         settings
}

// movingHost is the host of the route of the file.
const movingHost = "moving.example.com"

// peers returns who gets the requests of the route while the service is in a state.
func (m *moving) peers(s *foundService) (names []string) {
	if m.source != "consul" {
		return m.names
	}
	for _, i := range s.instances {
		if i.usable() {
			names = append(names, i.name)
		}
	}
	return names
}

func (f *foundFile) reads(dialect string) bool { return slices.Contains(f.dialects, dialect) }

// allows reports whether services may ask for a key.
func (f *foundFile) allows(k *askedKey) bool {
	return f.reads(k.dialect) && (k != sharedKey && !k.wide || f.shares)
}

func (f *foundFile) defines(service string) bool {
	_, defined := f.defined[service]
	return defined || f.moving.name == service
}

func (f *foundFile) inConsul(service string) bool {
	return f.moving.name != service || f.moving.source == "consul"
}

// nextFile changes a configuration at random. quiet says that Consul is away, so that it asks for
// nothing that only Consul has.
func (c *foundRun) nextFile(quiet, upgrade bool) *foundFile {
	f := *c.files.latest()
	f.number++
	f.defined, f.divided = maps.Clone(f.defined), maps.Clone(f.divided)
	one := func(n int) bool { return c.random.IntN(n) == 0 }
	if one(3) && !(quiet && upgrade) && !slices.ContainsFunc(foundServices, c.remembers) { // a new process may not have found the services of another selection
		all := []string{config.DialectSluice, config.DialectFabio, config.DialectTraefik}
		if f.dialects = all; one(3) {
			f.dialects = slices.Delete(slices.Clone(all), 0, 1+c.random.IntN(2))
		}
	}
	if one(3) {
		f.shares = !one(3)
	}
	for _, name := range foundServices {
		if !one(3) || quiet && upgrade || c.remembers(name) {
			continue
		}
		if delete(f.defined, name); one(2) {
			f.defined[name] = pickOf(c.random, "ewma", "least_conn", "random", "round_robin")
		}
		if delete(f.divided, name); f.defines(name) && one(3) {
			f.divided[name] = true
		}
	}
	if one(2) && !c.remembers(f.moving.name) {
		f.moving = c.move(f.moving, quiet)
	}
	if one(3) && !quiet && !c.leaderLost {
		f.leadsBy = pickOf(c.random, "tag", "key", "passing")
	}
	if one(2) {
		f.cuts = !f.cuts
	}
	if one(4) {
		f.waitsFor = !f.waitsFor
	}
	f.debounces = one(2)
	for name := range f.divided {
		if !f.defines(name) {
			delete(f.divided, name)
		}
	}
	return &f
}

// move returns another place of a service.
func (c *foundRun) move(m moving, quiet bool) moving {
	before := m.source
	if m.source = pickOf(c.random, "consul", "peers", "file", "dns"); quiet && before != "consul" {
		m.source = pickOf(c.random, "peers", "file", "dns")
	}
	if m.source != "consul" {
		m.addresses = slices.Clone(c.servers.addresses[m.name])
		c.random.Shuffle(3, func(a, b int) { m.addresses[a], m.addresses[b] = m.addresses[b], m.addresses[a] })
		if m.source != "dns" { // whose changes come late
			m.addresses = m.addresses[:1+c.random.IntN(3)]
		}
		m.names = nil
		for _, a := range m.addresses {
			m.names = append(m.names, c.servers.names[a])
		}
		m.at = c.place(&m)
	}
	m.keys = settings{}
	if c.random.IntN(2) == 0 {
		m.keys["health"] = settings{"active": settings{"type": "http", "path": "/health", "interval": "50ms", "timeout": "5m", "must_pass_first": c.waits && c.random.IntN(2) == 0}}
	}
	if c.waits {
		m.keys["wait_for_peer"] = "1m"
	}
	return m
}

func (c *foundRun) text(f *foundFile) string {
	// They are for services that are only found, too: a machine may stand still for seconds.
	common := settings{"timeouts": settings{"connect": "5m", "response_header": "10m"}, "drain": settings{"timeout": "10m"}}
	services := make(settings)
	for _, name := range foundServices {
		if !f.defines(name) {
			continue
		}
		keys := settings{"consul": settings{}}
		if f.divided[name] {
			keys["groups"] = settings{"canary": settings{"tags": []string{"v2"}}}
		}
		if m := f.moving; m.name == name {
			maps.Copy(keys, m.keys)
			if m.source != "consul" {
				delete(keys, "consul")
				keys[m.source] = m.at
			}
		} else {
			keys["balance"] = settings{"policy": f.defined[name]}
		}
		services[name] = keys
	}
	leads := settings{"on_demotion": map[bool]string{true: "cut", false: "drain"}[f.cuts]}
	leads[f.leadsBy] = map[string]any{"tag": "primary", "key": leaderKey, "passing": true}[f.leadsBy]
	database := settings{"consul": settings{"leader": leads}}
	if f.waitsFor {
		database["wait_for_peer"] = "1m"
	}
	services["db"] = database
	claims := []settings{{"service": "*", "priority": 1, "hosts": []string{"{service}.example.com", "t.{service}.example.com", "{service}.wires.example.com", contestedKey.host}}}
	if f.shares {
		claims = append(claims, settings{"service": "*", "hosts": []string{"*"}})
	}
	quiet := map[bool]string{true: "100ms", false: "0s"}[f.debounces]
	return fmt.Sprintf(`listeners: [{ name: web, address: "127.0.0.1:0" }, { name: db, address: "127.0.0.1:0", protocol: tcp, service: db },
  { name: secure, address: "127.0.0.1:0", http3: true, tls: { certificates: [{ cert: %q, key: %q }] } },
  { name: wires, address: "127.0.0.1:0", protocol: tcp, sni: [{ host: db.wires.example.com, service: db }] }]
consul: { addresses: [%q] }
discovery: { debounce: { quiet: %s }, allow_local: true }
shutdown: { idle: 100ms, grace: 10m }
catalog: { tags: [%s], claims: %s, forward_auth: [%q], traefik: { exposed: true } }
defaults: { service: %s }
services: %s
routes: [{ host: %s, service: %s }, { host: %d.example.com, direct_response: { status: 203 } }]
`, c.servers.site.Cert, c.servers.site.Key, c.server.URL, quiet, strings.Join(f.dialects, ", "), asYAML(claims), c.servers.authURL, asYAML(common), asYAML(services), movingHost, f.moving.name, f.number)
}

// place registers the addresses of a service at its source, and returns where they are.
func (c *foundRun) place(m *moving) any {
	switch m.source {
	case "file":
		path := fmt.Sprintf("%s/%s", c.t.TempDir(), m.name)
		replaceFile(c.t, path, strings.Join(m.addresses, "\n"))
		return path
	case "dns":
		records := []dnstest.Record{{Name: "host.test", Address: "127.0.0.1", TTL: 300}}
		for _, a := range m.addresses {
			records = append(records, dnstest.Record{Name: "_moving.test", Target: "host.test", Port: netip.MustParseAddrPort(a).Port(), TTL: 300})
		}
		c.names.Set(records...)
		return settings{"name": "_moving.test", "server": c.nameServer}
	}
	return m.addresses
}
