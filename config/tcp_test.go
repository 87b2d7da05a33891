package config

import (
	"fmt"
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestTCPRefusals(t *testing.T) {
	const services = "services: { star: { peers: ['127.0.0.1:1'] }, db: { peers: ['127.0.0.1:2'] } }\n"
	const routes = "routes: [{ service: star }]\n"
	const web, db = "listeners:\n- { address: ':80' }\n", "- { address: ':5432', protocol: tcp, service: db }\n"
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"other protocol", web + "- { address: ':1', protocol: udp, service: db }\n" + services + routes, []string{
			`sluice.yaml:3: listeners[1].protocol: value "udp": want one of http, tcp`}},
		{"no service", web + "- { address: ':1', protocol: tcp }\n" + services + routes, []string{
			`sluice.yaml:3: listeners[1].service: required with protocol: tcp, unless there is sni, or catalog.tags has traefik or fabio: the name of a service`}},
		{"unknown service", web + "- { address: ':1', protocol: tcp, service: dp }\n" + services + routes, []string{
			`sluice.yaml:3: listeners[1].service: value "dp": no such service, did you mean "db"? (known: db, star)`}},
		{"service for HTTP", "listeners:\n- { address: ':80', service: db }\n" + services + routes, []string{
			`sluice.yaml:2: listeners[0].service: value "db": only with protocol: tcp; with http, routes lead to services`}},
		{"TLS", web + "- { address: ':1', protocol: tcp, service: db, tls: { hsts: {} } }\n" + services + routes, []string{
			`sluice.yaml:3: listeners[1].tls.certificates: empty: want at least one, such as { cert: site.pem, key: site.key }`,
			`sluice.yaml:3: listeners[1].tls.hsts: not with protocol: tcp, which has no responses`}},
		{"TLS that passes through", web + "- { address: ':1', protocol: tcp, sni: [{ host: a, service: db, passthrough: true }] }\n" + services + routes, []string{
			`sluice.yaml:3: listeners[1].sni[0].passthrough: value "true": only with tls of the listener: without it, all TLS is forwarded as it is`}},
		{"routes without HTTP", "listeners:\n" + db + services + routes, []string{
			`sluice.yaml:4: routes: without effect: no listener has protocol: http`}},
		{"sticky", web + db + "services:\n  star: { peers: ['127.0.0.1:1'] }\n  db: { peers: ['127.0.0.1:2'], balance: { policy: sticky } }\n" + routes, []string{
			`sluice.yaml:6: services.db.balance.policy: value "sticky": not for a service of a listener with protocol: tcp, which has no cookies: want ewma, hash, least_conn, random or round_robin`}},
		{"HTTP/2", web + db + "services:\n  star: { peers: ['127.0.0.1:1'] }\n  db: { peers: ['127.0.0.1:2'], upstream: { protocol: h2c } }\n" + routes, []string{
			`sluice.yaml:6: services.db.upstream.protocol: value "h2c": not for a service of a listener with protocol: tcp, which forwards bytes as they are`}},
		{"h2c with TLS", web + "services:\n  star: { peers: ['127.0.0.1:1'], upstream: { protocol: h2c, tls: {} } }\n" + routes, []string{
			`sluice.yaml:4: services.star.upstream.protocol: value "h2c": not with upstream.tls: h2c is HTTP/2 without TLS, h2 is HTTP/2 over TLS`}},
		{"h2 without TLS", web + "services:\n  star: { peers: ['127.0.0.1:1'], upstream: { protocol: h2 } }\n" + routes, []string{
			`sluice.yaml:4: services.star.upstream.protocol: value "h2": only with upstream.tls or consul.connect: h2 is HTTP/2 over TLS, h2c is HTTP/2 without TLS`}},
		{"hash of a header", web + db + "services:\n  star: { peers: ['127.0.0.1:1'] }\n  db: { peers: ['127.0.0.1:2'], balance: { policy: hash, hash: { keys: [header x] } } }\n" + routes, []string{
			`sluice.yaml:6: services.db.balance.hash.keys: without client_address, the only key of a connection of a listener with protocol: tcp`}},
		{"settings of requests", web + db + "services:\n  star: { peers: ['127.0.0.1:1'] }\n  db:\n    peers: ['127.0.0.1:2']\n    timeouts: { response_header: 1s }\n    retry: { body: 1KiB }\n" + routes, []string{
			`sluice.yaml:8: services.db.timeouts.response_header: without effect: only listeners with protocol: tcp use service "db", and this is about requests`,
			`sluice.yaml:9: services.db.retry.body: without effect: only listeners with protocol: tcp use service "db", and this is about requests`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("sluice.yaml", []byte(test.text))
			diffLines(t, err, test.want)
		})
	}
}

func TestProxyProtocol(t *testing.T) {
	c := mustParse(t, `
listeners:
  - { name: web, address: ":8080", proxy_protocol: { from: [10.0.0.0/8, "::1"] } }
  - { name: db, address: ":5432", protocol: tcp, service: postgres }
services: { star: { consul: {} }, postgres: { consul: {}, proxy_protocol: v2 } }
routes: [{ service: star }]
`)
	from := c.Listeners[0].ProxyProtocol.From
	verify.That(t, len(from) == 2 && c.Services["postgres"].ProxyProtocol == "v2", "got %v, %+v", from, c.Services["postgres"])
	const web, routes = "listeners:\n- { address: ':80' }\n", "routes: [{ service: star }]\n"
	for text, want := range map[string]string{
		"listeners:\n- { address: ':80', proxy_protocol: {} }\nservices: { star: { consul: {} } }\n" + routes:              `sluice.yaml:2: listeners[0].proxy_protocol.from: required: a network such as 10.0.0.0/8 or fd00::/8, a single IP address, or unix: for who uses a unix socket`,
		"listeners:\n- { address: ':80', proxy_protocol: { from: [lan] } }\nservices: { star: { consul: {} } }\n" + routes: `sluice.yaml:2: listeners[0].proxy_protocol.from[0]: value "lan": want a network such as 10.0.0.0/8 or fd00::/8, a single IP address, or unix: for who uses a unix socket`,
		web + "services: { star: { consul: {}, proxy_protocol: v3 } }\n" + routes:                                          `sluice.yaml:3: services.star.proxy_protocol: value "v3": want one of v1, v2 (did you mean v1?)`,
		web + "services: { star: { consul: {}, proxy_protocol: v1 } }\n" + routes:                                          `sluice.yaml:3: services.star.proxy_protocol: value "v1": only for a service of a listener with protocol: tcp that no route leads to: requests of different clients share connections`,
		// The header would have to come before the handshake.
		"listeners:\n- { address: ':1', protocol: tcp, service: star }\nservices:\n  star:\n    consul: {}\n    proxy_protocol: v1\n    upstream: { tls: {} }\n": `sluice.yaml:6: services.star.proxy_protocol: value "v1": not with upstream.tls: peers expect the header before the handshake`,
		web + "- { address: ':1', protocol: tcp, service: star }\nservices: { star: { consul: {}, proxy_protocol: v1 } }\n" + routes:                             `sluice.yaml:4: services.star.proxy_protocol: value "v1": only for a service of a listener with protocol: tcp that no route leads to: requests of different clients share connections`,
	} {
		_, err := Parse("sluice.yaml", []byte(text))
		diffLines(t, err, []string{want})
	}
}

// HTTP/3 needs TLS and UDP.
func TestHTTP3(t *testing.T) {
	const rest = "services: { star: { consul: {} } }\nroutes: [{ service: star }]\n"
	for listener, want := range map[string]string{
		"address: ':80', http3: true":                                                                              `sluice.yaml:2: listeners[0].http3: value "true": only with tls`,
		"address: ':80', http3_port: 443":                                                                          `sluice.yaml:2: listeners[0].http3_port: value "443": only with http3: true`,
		"address: 'unix:/s', http3: true, tls: { certificates: [{ consul_kv: c }] }":                               `sluice.yaml:2: listeners[0].http3: value "true": not with a unix socket: HTTP/3 needs UDP`,
		"address: ':80', protocol: tcp, service: star, http3: true":                                                `sluice.yaml:2: listeners[0].http3: value "true": not with protocol: tcp, which forwards every protocol as it is`,
		"address: ':1', http3: true, tls: { certificates: [{ consul_kv: c }] }, proxy_protocol: { from: ['::1'] }": `sluice.yaml:2: listeners[0].http3: value "true": not with proxy_protocol: QUIC has no such header`,
	} {
		_, err := Parse("sluice.yaml", []byte("listeners:\n- { "+listener+" }\n"+rest))
		text := fmt.Sprint(err)
		verify.That(t, strings.Contains(text, want), "%s: got %s", listener, text)
	}
	c := mustParse(t, "listeners: [{ address: ':443', http3: true, http3_port: 8443, tls: { certificates: [{ consul_kv: c }] } }]\n"+rest)
	verify.That(t, c.Listeners[0].HTTP3 && c.Listeners[0].HTTP3Port == 8443, "got %+v", c.Listeners[0])
}

func TestSNI(t *testing.T) {
	const services = "services: { a: { consul: {} }, b: { consul: {}, balance: { policy: random } } }\n"
	c := mustParse(t, "listeners: [{ address: ':1', protocol: tcp, sni: [{ host: a.example.com, service: a }, { host: '*.b.example.com', service: b }] }]\n"+services)
	l := c.Listeners[0]
	verify.That(t, len(l.SNI) == 2 && l.Service == "" && c.Services["a"].Balance.Policy == "least_conn", "got %+v, policy %s", l, c.Services["a"].Balance.Policy)
	_, err := Parse("sluice.yaml", []byte("listeners:\n- address: ':1'\n  protocol: tcp\n  sni:\n  - { host: a.example.com, service: a }\n  - { host: A.example.com, service: b }\n  - { host: 'b:1', service: c }\n  - { service: a }\n- { address: ':2', sni: [{ host: x, service: a }] }\n"+services+"routes: [{ service: a }]\n"))
	diffLines(t, err, []string{
		`sluice.yaml:6: listeners[0].sni[1]: value "A.example.com/": the same as listeners[0].sni[0] at sluice.yaml:5`,
		`sluice.yaml:7: listeners[0].sni[2].host: value "b:1": must have no port and no scheme: a route matches the host on every port`,
		`sluice.yaml:7: listeners[0].sni[2].service: value "c": no such service, did you mean "a"? (known: a, b)`,
		`sluice.yaml:8: listeners[0].sni[3].host: required: a text on one line`,
		`sluice.yaml:9: listeners[1].sni: only with protocol: tcp; with http, routes choose by host`,
	})
}

// The policy hash is for connections too, with the key that they have.
func TestHashOfConnections(t *testing.T) {
	for _, balance := range []string{"{ policy: hash }", "{ policy: hash, hash: { keys: [client_address] } }"} {
		c := mustParse(t, "listeners: [{ address: ':1', protocol: tcp, service: db }]\n"+
			"services: { db: { peers: ['127.0.0.1:1'], balance: "+balance+" } }\n")
		verify.Equal(t, c.Services["db"].Balance.Policy, "hash", "%s: the policy", balance)
	}
}
