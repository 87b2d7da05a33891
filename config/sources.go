package config

import (
	"net"
	"strings"
	"time"

	"sluice/config/decoding"
	"sluice/discovery"
	"sluice/discovery/dns"
	"sluice/discovery/leader"
)

// KVService selects the instances in the value of a key of Consul's KV store.
type KVService struct {
	Key       string         `key:"key" format:"consul_key" required:"yes"`
	Probation *time.Duration `key:"probation" min:"0s" max:"24h"` // nil: consul.probation; not nil after loading
}

// checkSource checks that a service has one source of instances, and completes it.
func (s *Service) checkSource(d *decoder, key, name string, consul *Consul) {
	set := setKeys([]given{
		{"consul", s.Consul != nil}, {"etcd", s.Etcd != nil}, {"dns", s.DNS != nil}, {"consul_kv", s.ConsulKV != nil},
		{"file", s.File != ""}, {"peers", len(s.Peers) > 0},
	})
	switch {
	case len(set) > 1:
		d.Fail(d.Place(decoding.Join(key, set[len(set)-1])), key, "", "has several sources, "+strings.Join(set, " and ")+": want one")
	case len(set) == 0 && !d.Failed(key):
		d.Refuse(key, "", `no source: want "consul: { service: NAME }", "etcd: { endpoints: [URL, …], prefix: /NAME/ }", `+
			`"dns: { name: NAME, server: HOST:PORT }", "consul_kv: { key: KEY }", "file: PATH" or "peers: [HOST:PORT, …]"`)
	}
	if s.Consul != nil {
		s.Consul.check(d, decoding.Join(key, "consul"), name, consul)
	}
	if s.Etcd != nil {
		s.Etcd.check(d, decoding.Join(key, "etcd"))
	}
	if s.DNS != nil {
		checkDNSService(d, decoding.Join(key, "dns"), s.DNS)
	}
	if s.ConsulKV != nil && s.ConsulKV.Probation == nil {
		s.ConsulKV.Probation = &consul.Probation
	}
}

// checkDNSService checks which keys may be set together, and sets Servers.
func checkDNSService(d *decoder, key string, s *dns.Options) {
	switch {
	case d.Failed(decoding.Join(key, "type")) || d.Failed(decoding.Join(key, "port")):
	case s.Type == dns.SRV && s.Port != 0:
		d.Refuse(decoding.Join(key, "port"), "", "not with type srv, whose records have ports")
	case s.Type != dns.SRV && s.Port == 0:
		d.Refuse(key, "", "port is missing: type "+string(s.Type)+" has no ports")
	}
	switch {
	case d.Failed(decoding.Join(key, "server")) || d.Failed(decoding.Join(key, "servers")):
		return
	case (s.Server == "") == (len(s.Servers) == 0):
		d.Refuse(key, "", `want either server, such as "127.0.0.1:8600", or servers`)
		return
	case s.Server != "":
		s.Servers, s.Server = []string{s.Server}, ""
	}
	first := make(map[string]string, len(s.Servers))
	for i, server := range s.Servers {
		s.Servers[i] = withPort(server)
		d.RefuseDuplicate(first, s.Servers[i], decoding.Join(key, "servers"), server)
	}
}

// dnsPort is the port of a DNS server: RFC 1035, section 4.2.
const dnsPort = "53"

// withPort returns HOST:PORT for HOST or HOST:PORT.
func withPort(server string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), dnsPort)
}

func isDNSServer(s string) bool { return isTarget(withPort(s)) }

// isDNSName reports whether s is a name to query, absolute, with or without a dot at its end.
func isDNSName(s string) bool {
	return len(s) <= 253 && discovery.IsHostName(s)
}

// isConsulKey reports whether s is a key of Consul's KV store with a value.
func isConsulKey(s string) bool {
	return len(s) <= 512 && !strings.HasPrefix(s, "/") && !strings.HasSuffix(s, "/")
}

// Leader says which instance of a service gets everything: the one that Consul names. One of Tag,
// Passing and Key is set.
type Leader struct {
	leader.Options
	// OnDemotion is what happens to the connections and requests of an instance that no longer
	// leads.
	OnDemotion string `key:"on_demotion" default:"cut" oneof:"cut|drain"`
}

// CutsDemoted reports whether connections to an instance end at once when it no longer leads. l may
// be nil.
func (l *Leader) CutsDemoted() bool { return l != nil && l.OnDemotion == "cut" }

// check checks which keys are set together.
func (l *Leader) check(d *decoder, key string) {
	if l == nil || d.Failed(key) {
		return
	}
	if set := setKeys([]given{{"tag", l.Tag != ""}, {"passing", l.Passing}, {"key", l.Key != ""}}); len(set) != 1 {
		d.Refuse(key, "", "want one of tag, passing: true and key, which says how Consul names the leader")
	}
}

// Leader returns how Consul names the leader of s; nil: all instances are used.
func (s *Service) Leader() *Leader {
	if s.Consul == nil {
		return nil
	}
	return s.Consul.Leader
}
