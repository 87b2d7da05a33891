package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestAllErrorsAreReportedInOrder(t *testing.T) {
	_, err := Parse("sluice.yaml", []byte(`log: { level: inof }
listener:
  - { name: web, address: ":8080" }
services:
  star:
    consul: { service: star, pasing_only: true }
    timeouts: { connect: 5, idle: 60s }
    retry: { attempts: 9 }
  star:
    peers: []
  empty:
routes:
  - { host: "http://star.example.com", service: star }
  - { path: api, service: sta }
`))
	want := []string{
		`sluice.yaml:1: log.level: value "inof": want one of debug, info, warn, error (did you mean info?)`,
		`sluice.yaml:2: listener: unknown key, did you mean "listeners"? (allowed here: log, access_log, tracing, admin, listeners, client, discovery, config, consul, catalog, dynamic, defaults, services, actions, routes, shutdown, health)`,
		`sluice.yaml:6: services.star.consul.pasing_only: unknown key, did you mean "passing_only"? (allowed here: service, prepared_query, poll, tags, filter, passing_only, address, port, check_port, datacenters, min_healthy, spill, nearest, namespace, partition, peer, consistency, cached, connect, leader, probation)`,
		`sluice.yaml:7: services.star.timeouts.connect: value "5": want a duration with a unit (ms, s, m, h), from 1ms to 10m`,
		`sluice.yaml:8: services.star.retry.attempts: value "9": want a whole number from 1 to 5`,
		`sluice.yaml:9: services.star: given twice, first in line 5`,
		`sluice.yaml:11: services.empty: no source: want "consul: { service: NAME }", "etcd: { endpoints: [URL, …], prefix: /NAME/ }", "dns: { name: NAME, server: HOST:PORT }", "consul_kv: { key: KEY }", "file: PATH" or "peers: [HOST:PORT, …]"`,
		`sluice.yaml:13: routes[0].host: value "http://star.example.com": must have no port and no scheme: a route matches the host on every port`,
		`sluice.yaml:14: routes[1].path: value "api": must start with a slash`,
		`sluice.yaml:14: routes[1].service: value "sta": no such service, did you mean "star"? (known: empty, star)`,
	}
	diffLines(t, err, want)
}

func diffLines(t *testing.T, err error, want []string) {
	t.Helper()
	var all Errors
	verify.Require(t, errors.As(err, &all), "error is %T (%v), want Errors", err, err)
	got, wanted := err.Error(), strings.Join(want, "\n")
	verify.That(t, got == wanted, "errors:\n%s\nwant:\n%s", got, wanted)
}

func TestRefusals(t *testing.T) {
	const listen = `want HOST:PORT or :PORT, an IPv6 address in brackets, the port from 0 (any free one) to 65535; or unix:/PATH`
	const peer = `want "HOST:PORT" or "HOST:PORT weight=N", an IPv6 address in brackets, the port from 1 to 65535, the weight from 0 to 65535; unix:/PATH instead of HOST:PORT`
	const route = "\nroutes: [{ service: star }]\n"
	const name = `want a name of up to 128 letters, digits, '.', '_' or '-' that starts with a letter or digit`
	tests := []struct {
		name, text string
		want       []string // without "sluice.yaml:"
	}{
		{"empty file", "", []string{
			`sluice.yaml: services: empty: want at least one, such as "star: { consul: { service: star } }"`,
			`sluice.yaml: routes: empty: want at least one, such as "- { path: /, service: star }"`}},
		{"not YAML", "a: [1\nb: 2\n", []string{`sluice.yaml:2: not valid YAML: did not find expected ',' or ']'`}},
		{"tab", "log:\n\tlevel: info\n", []string{`sluice.yaml:2: not valid YAML: found character that cannot start any token`}},
		{"two documents", tail + "---\nlog: {}\n", []string{`sluice.yaml:4: a second document: a file contains one configuration`}},
		{"a key by the name of other programs", "services: { star: { peers: ['127.0.0.1:1'], upstream: { tls: { insecure: true } } } }" + route, []string{
			`sluice.yaml:1: services.star.upstream.tls.insecure: unknown key, did you mean "skip_verify"? (allowed here: ca, cert, key, server_name, skip_verify)`}},
		{"a list", "- a\n", []string{`sluice.yaml:1: want a mapping of keys to values, not a list`}},
		{"twice", "log: {}\nlog: {}" + tail, []string{`sluice.yaml:2: log: given twice, first in line 1`}},
		{"no name", "? [a]\n: b" + tail, []string{`sluice.yaml:1: want a name before the colon`}},
		{"scalar for mapping", "log: debug" + tail, []string{`sluice.yaml:1: log: want a mapping of keys to values, not a single value`}},
		{"mapping for scalar", "log: { level: { a: b } }" + tail, []string{`sluice.yaml:1: log.level: want one of debug, info, warn, error, not a mapping`}},
		{"scalar for list", "consul: { addresses: a }" + tail, []string{`sluice.yaml:1: consul.addresses: want a list, such as [a, b], not a single value`}},
		{"empty entry", "consul: { addresses: ['', ~] }" + tail, []string{
			`sluice.yaml:1: consul.addresses[0]: empty: write a value, or remove the entry`,
			`sluice.yaml:1: consul.addresses[1]: empty: write a value, or remove the entry`}},
		{"tag", "log: { level: !!binary aW5mbw== }" + tail, []string{`sluice.yaml:1: log.level: tag !!binary: want one of debug, info, warn, error`}},
		{"control character", `consul: { datacenter: "a\nb" }` + tail, []string{`sluice.yaml:1: consul.datacenter: value "a\nb": want a text on one line`}},
		{"merge of nothing", "log: { <<: 1 }" + tail, []string{`sluice.yaml:1: log.<<: want an alias of a mapping, such as *defaults`}},
		{"merge of itself", "log: &a { <<: *a }" + tail, []string{`sluice.yaml:1: value "*a": an alias within what it stands for`}},
		{"log format", "access_log: { format: xml }" + tail, []string{`sluice.yaml:1: access_log.format: value "xml": want json, combined, or a template such as '$client "$method $target" $status'`}},
		{"log template", "access_log: { format: '$client $remote_user' }" + tail, []string{`sluice.yaml:1: access_log.format: value "$client $remote_user": $remote_user is not a variable: want one of $attempts, $bytes_in, $bytes_out, $client, $connect_ms, $duration_ms, $group, $grpc_status, $host, $method, $peer, $proto, $proxy, $reason, $referer, $request_id, $route, $service, $status, $target, $time, $time_combined, $tls_cipher, $tls_server_name, $tls_version, $trace_id, $tries, $upstream_ms, $upstream_status, $user, $user_agent, $http_NAME for a header of the request, or $$ for a dollar sign`}},
		{"ratio not a number", "access_log: { sample: .nan }" + tail, []string{`sluice.yaml:1: access_log.sample: value ".nan": want a number from 0 to 1, or a percentage`}},
		{"duration too long", "shutdown: { grace: 48h }" + tail, []string{`sluice.yaml:1: shutdown.grace: value "48h": want a duration with a unit (ms, s, m, h), from 0s to 24h`}},
		{"size", "client: { limits: { body: 10M, target: 1MiB } }" + tail, []string{
			`sluice.yaml:1: client.limits.target: value "1MiB": want a number of bytes or a size such as 64KiB or 10MiB, from 256B to 16KiB`,
			`sluice.yaml:1: client.limits.body: value "10M": want a number of bytes or a size such as 64KiB or 10MiB, from 0 to 1024GiB`}},
		{"network", "client: { trusted_proxies: [10.0.0.0/33] }" + tail, []string{
			`sluice.yaml:1: client.trusted_proxies[0]: value "10.0.0.0/33": want a network such as 10.0.0.0/8 or fd00::/8, a single IP address, or unix: for who uses a unix socket`}},
		{"network of clients", "services: { a: { peers: [\"a:1\"] } }\nroutes: [{ service: a, allow: ['unix:'] }]", []string{
			`sluice.yaml:2: routes[0].allow[0]: value "unix:": want a network such as 10.0.0.0/8 or fd00::/8, or a single IP address`}},
		{"two tokens", "consul:\n  token: s3cret\n  token_file: x" + tail, []string{`sluice.yaml:2: consul.token: give either consul.token or consul.token_file, not both`}},
		{"prepared query with keys of a service", "services: { star: { consul: { prepared_query: q, service: s, tags: [v1], datacenters: [a, b] } } }\nroutes: [{ service: star }]", []string{
			"sluice.yaml:1: services.star.consul.service: not allowed with prepared_query, which defines this itself",
			"sluice.yaml:1: services.star.consul.tags: not allowed with prepared_query, which defines this itself",
			"sluice.yaml:1: services.star.consul.datacenters: not allowed with prepared_query, which defines this itself"}},
		{"cached and consistent", "services: { star: { consul: { cached: true, consistency: consistent } } }\nroutes: [{ service: star }]", []string{
			`sluice.yaml:1: services.star.consul.cached: value "true": not allowed with consistency: consistent`}},
		{"a data centre twice", "services: { star: { consul: { datacenters: [a, b, a] } } }\nroutes: [{ service: star }]", []string{
			`sluice.yaml:1: services.star.consul.datacenters[2]: value "a": the same as services.star.consul.datacenters[0] at sluice.yaml:1`}},
		{"an agent twice", `consul: { addresses: ["http://a:1", "a:2", "a:1"] }` + tail, []string{
			`sluice.yaml:1: consul.addresses[2]: value "a:1": the same as consul.addresses[0] at sluice.yaml:1`}},
		{"certificate without key", "consul:\n  tls: { cert: a }" + tail, []string{
			`sluice.yaml:2: consul.tls: give both cert and key, or neither`}},
		{"agent with password", `consul: { addresses: ["http://u:p@a:1"] }` + tail, []string{
			`sluice.yaml:1: consul.addresses[0]: value "http://***@a:1": want http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:///PATH`}},
		{"debounce", "discovery:\n  debounce:\n    quiet: 2s" + tail, []string{
			`sluice.yaml:2: discovery.debounce.quiet: value "2s": want at most discovery.debounce.max_wait, which is 1s`}},
		{"admin for everybody", `admin: { address: ":8081" }` + tail, []string{
			`sluice.yaml:1: admin.address: value ":8081": reachable from other machines: set admin.token_file too, or use a loopback address such as 127.0.0.1:8081`}},
		{"admin address", `admin: { address: "unix:run/a" }` + tail, []string{
			`sluice.yaml:1: admin.address: value "unix:run/a": ` + listen}},
		{"admin socket", `admin: { address: "unix:/run/a/", socket: { mode: "9" } }` + tail, []string{
			`sluice.yaml:1: admin.address: value "unix:/run/a/": ` + listen,
			`sluice.yaml:1: admin.socket.mode: value "9": want permissions in octal, such as 0660`}},
		{"admin socket of nobody", `admin: { address: "unix:/run/a", socket: { user: no-such-user, group: no-such-group } }` + tail, []string{
			`sluice.yaml:1: admin.socket.user: value "no-such-user": this machine has no such user: user: unknown user no-such-user`,
			`sluice.yaml:1: admin.socket.group: value "no-such-group": this machine has no such group: group: unknown group no-such-group`}},
		{"admin socket without one", `admin: { socket: { mode: 0660 } }` + tail, []string{
			`sluice.yaml:1: admin.socket.mode: value "0660": only with the address of a unix socket, such as unix:/run/sluice/admin.sock`}},
		{"admin tls", `admin: { tls: { cert: a.pem } }` + tail, []string{
			`sluice.yaml:1: admin.tls.key: required: the path of a file`,
			`sluice.yaml:1: admin.tls.cert: value "a.pem": cannot be read: open a.pem: no such file or directory`}},
		{"admin tls on a socket", `admin: { address: "unix:/run/a", tls: {} }` + tail, []string{
			`sluice.yaml:1: admin.tls.cert: required: the path of a file`,
			`sluice.yaml:1: admin.tls.key: required: the path of a file`,
			`sluice.yaml:1: admin.tls: not with a unix socket, which only programs of this machine reach`}},
		{"admin socket that Consul asks", "admin: { address: 'unix:/run/a' }\nconsul: { register: { check: { type: http } } }" + tail, []string{
			`sluice.yaml:2: consul.register.check.type: value "http": the admin API is a unix socket, which Consul cannot ask: give check.url, or use type: ttl`}},
		{"only a token for looking", "admin: { read_token_file: a }" + tail, []string{
			`sluice.yaml:1: admin.read_token_file: value "a": only with admin.token_file, the token with the right to do more than read`}},
		{"certificates of replicas", "consul: { register: { replica_tls: { ca: /nonexistent } } }" + tail, []string{
			`sluice.yaml:1: consul.register.replica_tls.ca: value "/nonexistent": cannot be used: trusted certificates: open /nonexistent: no such file or directory`}},
		{"listener sockets", "listeners:\n- { address: 'unix:/run/a', tls: { acme: { names: [a.example] } } }\n- { address: 'unix:/run//a' }\n- { address: ':80', socket: { mode: 0666 } }" + tail, []string{
			`sluice.yaml:2: listeners[0].tls.acme: not on a unix socket, which no authority reaches, except with acme.dns`,
			`sluice.yaml:3: listeners[1].address: value "unix:/run//a": already taken by listeners[0].address (unix:/run/a): want another port or address`,
			`sluice.yaml:4: listeners[2].socket.mode: value "0666": only with the address of a unix socket, such as unix:/run/sluice/admin.sock`}},
		{"wildcard without DNS-01", "listeners:\n- address: ':443'\n  tls:\n    acme:\n      names:\n      - a.example\n      - '*.example'\n      - '*'\n      - 'a.*.example'" + tail, []string{
			`sluice.yaml:7: listeners[0].tls.acme.names[1]: value "*.example": a wildcard needs acme.dns: authorities prove it by DNS-01 only`,
			`sluice.yaml:8: listeners[0].tls.acme.names[2]: value "*": want a host name, or with acme.dns a wildcard such as *.example.com`,
			`sluice.yaml:9: listeners[0].tls.acme.names[3]: value "a.*.example": want a host name, or with acme.dns a wildcard such as *.example.com`}},
		{"providers of DNS-01", "listeners:\n- { address: ':1', tls: { acme: { names: ['*.a'], dns: { provider: route53 } } } }\n- { address: ':2', tls: { acme: { names: ['*.a'], dns: { provider: cloudflare, command: [a] } } } }\n- { address: ':3', tls: { acme: { names: ['*.a'], dns: { provider: rfc2136, server: a, token_file: b } } } }\n- { address: ':4', tls: { acme: { names: ['*.a'], dns: { provider: cloudflare, token_file: /nonexistent } } } }\n- { address: 'unix:/run/a', tls: { acme: { names: ['*.a'], dns: { provider: exec, command: [/nonexistent] } } } }\n- { address: ':6', tls: { acme: { names: ['*.a'], dns: {} } } }" + tail, []string{
			`sluice.yaml:2: listeners[0].tls.acme.dns.provider: value "route53": want one of cloudflare, rfc2136, exec`,
			`sluice.yaml:3: listeners[1].tls.acme.dns.token_file: required with provider: cloudflare`,
			`sluice.yaml:3: listeners[1].tls.acme.dns.command: value "a": only with provider: exec`,
			`sluice.yaml:4: listeners[2].tls.acme.dns.token_file: value "b": only with provider: cloudflare`,
			`sluice.yaml:4: listeners[2].tls.acme.dns.key_file: required with provider: rfc2136`,
			`sluice.yaml:5: listeners[3].tls.acme.dns.token_file: value "/nonexistent": cannot be used: open /nonexistent: no such file or directory`,
			`sluice.yaml:6: listeners[4].tls.acme.dns.command: value "/nonexistent": cannot be used: exec: "/nonexistent": stat /nonexistent: no such file or directory`,
			`sluice.yaml:7: listeners[5].tls.acme.dns.provider: required: one of cloudflare, rfc2136, exec`}},
		{"registered sockets", "listeners: [{ address: 'unix:/run/a' }]\nconsul: { register: { address: a.example } }" + tail, []string{
			`sluice.yaml:2: consul.register: every listener is a unix socket: give the address and the port that clients use`}},
		{"peer sockets", "services: { a: { peers: ['unix:/run/a', 'unix:/run//a weight=2', 'unix:run/b'] } }\nroutes: [{ service: a }]", []string{
			`sluice.yaml:1: services.a.peers[2]: value "unix:run/b": want "HOST:PORT" or "HOST:PORT weight=N", an IPv6 address in brackets, the port from 1 to 65535, the weight from 0 to 65535; unix:/PATH instead of HOST:PORT`,
			`sluice.yaml:1: services.a.peers[1]: value "unix:/run//a weight=2": the same as services.a.peers[0] at sluice.yaml:1`}},
		{"listener without address", "listeners: [{ name: web }]" + tail, []string{`sluice.yaml:1: listeners[0].address: required: ` + listen[5:]}},
		{"listener address", `listeners: [{ address: "80" }]` + tail, []string{`sluice.yaml:1: listeners[0].address: value "80": ` + listen}},
		{"listener port", `listeners: [{ address: ":65536" }]` + tail, []string{`sluice.yaml:1: listeners[0].address: value ":65536": ` + listen}},
		{"listener IP", `listeners: [{ address: "300.1.1.1:80" }]` + tail, []string{`sluice.yaml:1: listeners[0].address: value "300.1.1.1:80": ` + listen}},
		{"listeners on one port", "listeners:\n- { address: ':80' }\n- { address: '127.0.0.1:80' }" + tail, []string{
			`sluice.yaml:3: listeners[1].address: value "127.0.0.1:80": already taken by listeners[0].address (:80): want another port or address`}},
		{"listener on the admin's port", "listeners:\n- { address: ':8081' }" + tail, []string{
			`sluice.yaml:2: listeners[0].address: value ":8081": already taken by admin.address (127.0.0.1:8081): want another port or address`}},
		{"listener names", "listeners:\n- { name: a, address: ':1' }\n- { name: a, address: ':2' }" + tail, []string{
			`sluice.yaml:3: listeners[1].name: value "a": the same as listeners[0].name at sluice.yaml:2`}},
		{"service name", "services: { 'a/b': { consul: {} } }\nroutes: [{ service: a }]", []string{
			`sluice.yaml:1: services.a/b: value "a/b": ` + name,
			`sluice.yaml:2: routes[0].service: value "a": no such service`}},
		{"policy", "services:\n  star:\n    consul: {}\n    balance: { policy: roundrobin }" + route, []string{
			`sluice.yaml:4: services.star.balance.policy: value "roundrobin": want one of ewma, hash, least_conn, random, round_robin, sticky (did you mean round_robin?)`}},
		{"boolean", "services:\n  star:\n    consul: { passing_only: yes }" + route, []string{
			`sluice.yaml:3: services.star.consul.passing_only: value "yes": want true or false`}},
		{"several wrong peers", "services:\n  star:\n    peers: ['127.0.0.1', ':1']" + route, []string{
			`sluice.yaml:3: services.star.peers[0]: value "127.0.0.1": ` + peer,
			`sluice.yaml:3: services.star.peers[1]: value ":1": ` + peer}},
		{"peer weight", "services:\n  star:\n    peers: ['a:1 weight=65536']" + route, []string{
			`sluice.yaml:3: services.star.peers[0]: value "a:1 weight=65536": ` + peer}},
		{"peer twice", "services:\n  star:\n    peers:\n    - a:1\n    - A:1 weight=2" + route, []string{
			`sluice.yaml:5: services.star.peers[1]: value "A:1 weight=2": the same as services.star.peers[0] at sluice.yaml:4`}},
		{"route twice", "services: { star: { consul: {} } }\nroutes:\n- { host: a.b, service: star }\n- { host: A.b., path: /, service: star }", []string{
			`sluice.yaml:4: routes[1]: value "A.b./": the same as routes[0] at sluice.yaml:3`}},
		{"route without service", "services: { star: { consul: {} } }\nroutes: [{ path: / }]", []string{
			`sluice.yaml:2: routes[0].service: required, except with redirect, direct_response or admin_api: a text on one line`}},
		{"groups without service", "services: { star: { consul: {} } }\nroutes:\n- { path: /a, redirect: { to: /x }, group: canary }\n- { path: /b, redirect: { to: /x }, split: { canary: 5% } }", []string{
			`sluice.yaml:3: routes[0].group: value "canary": the route has no service, of which this could be a group`,
			`sluice.yaml:4: routes[1].split: the route has no service, of which these could be groups`}},
		{"actions", "services: { star: { consul: {} } }\nroutes:\n- service: star\n  strip_prefix: api\n- path: /b\n  service: star\n  add_prefix: /a/../b\n- path: /c\n  redirect: { to: \"//$host\" }\n- path: /d\n  redirect: { to: /x, code: 304 }\n- path: /e\n  service: star\n  host_header: a b\n  rewrite: { regexp: ^/(.*)$, to: /$2 }\n  request_headers:\n    set: { X-A: a }\n- path: /f\n  service: star\n  response_headers: { remove: [content-length] }", []string{
			`sluice.yaml:4: routes[0].strip_prefix: value "api": must start with a slash`,
			`sluice.yaml:7: routes[1].add_prefix: value "/a/../b": has an empty segment or a dot segment`,
			`sluice.yaml:9: routes[2].redirect.to: value "//$host": must start with http://, https://, $scheme:// or one slash`,
			`sluice.yaml:11: routes[3].redirect.code: value "304": want one of 301, 302, 303, 307, 308`,
			`sluice.yaml:14: routes[4].host_header: value "a b": want "peer", or HOST or HOST:PORT, an IPv6 address in brackets`,
			`sluice.yaml:15: routes[4].rewrite.to: value "/$2": $2: there is no such group in the regular expression`,
			`sluice.yaml:20: routes[5].response_headers.remove: value "content-length": cannot be edited: it frames the body`}},
		{"statuses of redirects", "routes:\n- { path: /a, redirect: { to: /x, code: 200 } }\n- { path: /b, redirect: { to: /x, get_code: 305 } }\n- { path: /c, redirect: { to: /x, get_code: found } }", []string{
			`sluice.yaml:2: routes[0].redirect.code: value "200": want one of 301, 302, 303, 307, 308`,
			`sluice.yaml:3: routes[1].redirect.get_code: value "305": want one of 301, 302, 303, 307, 308`,
			`sluice.yaml:4: routes[2].redirect.get_code: value "found": want one of 301, 302, 303, 307, 308`}},
		{"compression", "services: { star: { consul: {} } }\nroutes:\n- service: star\n  compress: { encodings: [gzip, deflate], types: [text/html, text], min_length: -1, level: max }", []string{
			`sluice.yaml:4: routes[0].compress.encodings[1]: value "deflate": want one of zstd, br, gzip`,
			`sluice.yaml:4: routes[0].compress.types[1]: value "text": want a media type such as text/html, or a pattern such as text/*, application/*+json or */*`,
			`sluice.yaml:4: routes[0].compress.min_length: value "-1": want a number of bytes or a size such as 64KiB or 10MiB, from 0 to 1GiB`,
			`sluice.yaml:4: routes[0].compress.level: value "max": want one of fast, default, best`}},
		{"values of actions", "services: { star: { consul: {} } }\nroutes: [{ service: star, body_limit: 0, request_headers: { set: { X Y: a } } }]", []string{
			`sluice.yaml:2: routes[0].request_headers.set.X Y: value "X Y": want a name without spaces, such as X-Canary`,
			`sluice.yaml:2: routes[0].body_limit: value "0": want a number of bytes or a size such as 64KiB or 10MiB, from 1 to 1024GiB`}},
		{"a limit of a fleet that is not registered", "consul: {}\nservices: { star: { consul: {} } }\nroutes:\n- { service: star, rate_limit: { rate: 1 } }\n- path: /b\n  service: star\n  rate_limit:\n    rate: 1\n    scope: fleet", []string{
			`sluice.yaml:9: routes[1].rate_limit.scope: value "fleet": needs consul.register, which says who is a replica: want that section, or replica`}},
		{"a limit of a fleet that is registered badly", "consul:\n  register: yes\nservices: { star: { consul: {} } }\nroutes: [{ service: star, rate_limit: { rate: 1, scope: fleet } }]", []string{
			`sluice.yaml:2: consul.register: want a mapping of keys to values, not a single value`}},
		{"edits", "services: { star: { consul: {} } }\nroutes:\n- service: star\n  request_headers:\n    set: { Host: a }\n  response_headers:\n    add: { X-A: $nothing }", []string{
			`sluice.yaml:5: routes[0].request_headers.set.Host: cannot be edited: it is edited by host_header`,
			`sluice.yaml:7: routes[0].response_headers.add.X-A: $nothing is not a variable: want one of $authority, $client_address, $host, $method, $path, $query, $request_id, $scheme, $user, or $$ for a dollar sign`}},
		{"an error in an alias", "services:\n  a: { peers: ['a:1'], timeouts: &t { connect: 0s } }\n  b: { peers: ['a:1'], timeouts: *t }\nroutes: [{ service: a }]", []string{
			`sluice.yaml:2: services.a.timeouts.connect: value "0s": want a duration with a unit (ms, s, m, h), from 1ms to 10m`,
			`sluice.yaml:2: services.b.timeouts.connect: value "0s": want a duration with a unit (ms, s, m, h), from 1ms to 10m`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("sluice.yaml", []byte(test.text))
			diffLines(t, err, test.want)
		})
	}
}

// An error with thousands of names would not be read, and there may be one for each route.
func TestErrorListsFewNames(t *testing.T) {
	var text strings.Builder
	text.WriteString("services:\n")
	for i := range 30 {
		fmt.Fprintf(&text, "  service%02d: { peers: ['127.0.0.1:1'] }\n", i)
	}
	_, err := Parse("sluice.yaml", []byte(text.String()+"routes: [{ service: other }]"))
	verify.That(t, err != nil && strings.HasSuffix(err.Error(), "service18, service19 and 10 more)"), "got %v", err)
}

// All errors name the services that there are; a similar one is looked for only for the first
// unknown names.
func TestManyUnknownServices(t *testing.T) {
	const many = 3 * maxSuggested
	text := func(service func(i int) string) string {
		var b strings.Builder
		b.WriteString("services: { star-service: { peers: ['127.0.0.1:1'] } }\nroutes:\n")
		for i := range many {
			fmt.Fprintf(&b, "  - { path: /p%d, service: %s }\n", i, service(i))
		}
		return b.String()
	}
	check := func(t *testing.T, document string, want func(i int) string) {
		t.Helper()
		for name, sources := range map[string][]Source{
			"sluice.yaml":             {file(document)},
			"consul_kv:sluice/a.yaml": {file("dynamic: [{ consul_kv: { prefix: sluice } }]"), keys("a.yaml", document)},
		} {
			_, err := build(sources...)
			errs, _ := err.(Errors)
			verify.Require(t, len(errs) == many, "%s: %d errors, want %d: %v", name, len(errs), many, err)
			for i, err := range errs {
				want := fmt.Sprintf("%s:%d: routes[%d].service: %s", name, i+3, i, want(i))
				verify.Require(t, err.Error() == want, "%s\nwant %s", err, want)
			}
		}
	}
	check(t, text(func(int) string { return "star-servce" }), func(int) string {
		return `value "star-servce": no such service, did you mean "star-service"? (known: star-service)`
	})
	check(t, text(func(i int) string { return fmt.Sprintf("star-service-%03d", i) }), func(i int) string {
		if i < maxSuggested {
			return `value "` + fmt.Sprintf("star-service-%03d", i) + `": no such service, did you mean "star-service"? (known: star-service)`
		}
		return `value "` + fmt.Sprintf("star-service-%03d", i) + `": no such service (known: star-service)`
	})
}

// refuses fails the test unless the configuration is refused, with an error that has want.
func refuses(t *testing.T, text, want string) error {
	t.Helper()
	_, err := Parse("sluice.yaml", []byte(text))
	verify.That(t, err != nil && strings.Contains(err.Error(), want), "%s:\n got  %v\n want %s", text, err, want)
	return err
}
