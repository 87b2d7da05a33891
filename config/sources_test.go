package config

import (
	"strings"
	"testing"
	"time"

	"sluice/discovery/dns"
	"sluice/test/verify"
)

func TestSources(t *testing.T) {
	c := mustParse(t, `
consul: { probation: 3m }
services:
  star: { dns: { name: _star._tcp.service.consul, server: "127.0.0.1:8600" } }
  moon: { dns: { name: moon.example., type: ip, port: 80, servers: [ns.example, "[fd00::1]:5353", "[fd00::2]", fd00::3], probation: 0s } }
  via: { consul_kv: { key: metis/via_ip_port } }
  own: { consul_kv: { key: own, probation: 1s } }
  list: { file: peers.json }
  wide: { consul: { datacenters: [dc1, dc2], spill: true, nearest: true } }
routes: [{ service: star }]`)
	for name, want := range map[string]*dns.Options{
		"star": {Name: "_star._tcp.service.consul", Type: "srv", Servers: []string{"127.0.0.1:8600"}, Probation: 10 * time.Minute},
		"moon": {Name: "moon.example.", Type: "ip", Port: 80, Servers: []string{"ns.example:53", "[fd00::1]:5353", "[fd00::2]:53", "[fd00::3]:53"}},
	} {
		verify.DeepEqual(t, c.Services[name].DNS, want, "%s", name)
	}
	via, own := c.Services["via"].ConsulKV, c.Services["own"].ConsulKV
	verify.That(t, via.Key == "metis/via_ip_port" && *via.Probation == 3*time.Minute && *own.Probation == time.Second, "%+v, %+v", via, own)
	wide := c.Services["wide"].Consul
	verify.That(t, wide.Spill && wide.Nearest && len(wide.Datacenters) == 2, "%+v", wide)
	verify.Equal(t, c.Services["list"].File, "peers.json", "file")
}

func TestSourcesAreChecked(t *testing.T) {
	for source, want := range map[string]string{
		"dns: { server: 'a:53' }":                                      "services.star.dns.name: required",
		"dns: { name: 'a b', server: 'a:53' }":                         `services.star.dns.name: value "a b": want a name`,
		"dns: { name: a.example }":                                     "services.star.dns: want either server, such as",
		"dns: { name: a.example, server: 'a:53', servers: ['b:53'] }":  "services.star.dns: want either server, such as",
		"dns: { name: a.example, server: 'a:0' }":                      `services.star.dns.server: value "a:0": want HOST:PORT`,
		"dns: { name: a.example, servers: [a, 'A', 'a:53'] }":          `services.star.dns.servers: value "a:53": the same as`,
		"dns: { name: a.example, server: a, port: 80 }":                "services.star.dns.port: not with type srv",
		"dns: { name: a.example, server: a, type: a }":                 "services.star.dns: port is missing",
		"dns: { name: a.example, server: a, type: mx }":                "services.star.dns.type",
		"consul: { spill: true }":                                      "services.star.consul.spill: value \"true\": only with several datacenters",
		"consul: { datacenters: [a], nearest: true }":                  "services.star.consul.nearest: value \"true\": only with several datacenters",
		"consul: { datacenters: [a, b], spill: true, min_healthy: 2 }": "services.star.consul.min_healthy: without effect",
		"consul_kv: {}":                "services.star.consul_kv.key: required",
		"consul_kv: { key: /a }":       `services.star.consul_kv.key: value "/a": want a key`,
		"consul_kv: { key: a/ }":       `services.star.consul_kv.key: value "a/": want a key`,
		"file: peers/":                 `services.star.file: value "peers/": want the path of a file`,
		"{ file: a, peers: ['a:80'] }": "services.star: has several sources, file and peers: want one",
		"{ consul: {}, consul_kv: { key: a }, dns: { name: a, server: a } }": "services.star: has several sources, consul and dns and consul_kv: want one",
	} {
		if !strings.HasPrefix(source, "{") {
			source = "{ " + source + " }"
		}
		refuses(t, "services: { star: "+source+" }\nroutes: [{ service: star }]", want)
	}
}
