package gateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"testing"

	"sluice/test/configtest"
	"sluice/test/verify"
)

// settings are keys of a configuration; JSON is YAML.
type settings = map[string]any

func asYAML(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// combinations compose configurations at random. What clients get stays in all of a seed.
type combinations struct {
	t       *testing.T
	random  *rand.Rand
	servers *combinedServers
	routes  []*combinedRoute
	// In a seed one of these may be, since a reload gives a pool its peers and its settings one after the other, and routes theirs
	// before or after. impatient: services have retry.per_try_timeout, and keep their peers, because whether another peer can answer
	// in place of a slow one is decided when the request is sent. dying: services have a peer that refuses connections, and retries
	// that find another one. crashing: peers crash for requests that another one answers, which all services have.
	impatient, dying, crashing bool
}

// A combinedRoute is what stays of a route, and what clients get by it.
type combinedRoute struct {
	service  string
	keys     settings
	got      string            // path that peers get, before the rest of the path
	header   map[string]string // of requests that may use it
	without  int               // status without header; 0: the same
	denied   bool              // clients of the listener proxied
	status   int               // of an answer of sluice's own, with fields and body; 0: a peer answers
	body     string
	fields   map[string]string // of all answers of peers, or of sluice's own
	page     bool              // in place of a 404 of a peer, and of errors of sluice's own
	rated    bool              // some requests get 429
	removed  bool              // the field X-Removed
	limited  bool              // to bodies of 20 KiB
	streamed bool              // for WebSocket, or gRPC
}

// web are the services for requests; one and tls have HTTP/1.1.
var web = []string{"one", "tls", "h2c", "h2"}

// one in n.
func (c *combinations) one(n int) bool { return c.random.IntN(n) == 0 }

func pick[T any](c *combinations, of ...T) T { return of[c.random.IntN(len(of))] }

// newRoutes chooses what stays in all configurations of a seed.
func (c *combinations) newRoutes() {
	switch c.random.IntN(4) {
	case 0:
		c.impatient = true
	case 1:
		c.dying = true
	case 2:
		c.crashing = true
	}
	for n := range 5 {
		path := fmt.Sprint("/r", n)
		r := &combinedRoute{service: pick(c, web...), got: path, keys: settings{"path": path}, fields: map[string]string{}, header: map[string]string{}}
		switch c.random.IntN(5) {
		case 0:
			r.keys["strip_prefix"], r.got = path, ""
		case 1:
			r.keys["add_prefix"], r.got = "/more", "/more"+path
		case 2:
			r.keys["rewrite"], r.got = settings{"regexp": "^" + path + "(.*)$", "to": "/other$1"}, "/other"
		}
		switch c.random.IntN(6) {
		case 0:
			r.keys["basic_auth"], r.without = settings{"users_file": c.servers.users}, http.StatusUnauthorized
			r.header["Authorization"] = "Basic YWRhOnNlY3JldA=="
		case 1:
			r.keys["jwt"], r.without = settings{"jwks_file": c.servers.tokens, "issuer": "issuer", "audiences": []string{"shop"}, "headers": settings{"X-User": "sub"}}, http.StatusUnauthorized
			r.header["Authorization"], r.fields["Got-X-User"] = "Bearer "+c.servers.issuer.token("ada"), "ada"
		case 2:
			r.keys["forward_auth"], r.without = settings{"url": "http://" + c.servers.auth + "/", "timeout": "1m", "response_headers": []string{"X-User"}}, http.StatusForbidden
			r.header["X-Pass"], r.fields["Got-X-User"] = "yes", "asked"
		}
		if c.one(3) {
			r.keys["request_headers"], r.fields["Got-X-Extra"] = settings{"set": settings{"X-Extra": "$method $scheme"}}, "?"
		}
		if c.one(3) {
			r.keys["response_headers"], r.fields["X-Answer"], r.removed = settings{"set": settings{"X-Answer": "of $host"}, "remove": []string{"X-Removed"}}, "of a.example.com", true
		}
		if c.one(4) {
			r.keys["cors"] = settings{"allow_origins": []string{"https://a.example.com"}}
			r.header["Origin"], r.fields["Access-Control-Allow-Origin"] = "https://a.example.com", "https://a.example.com"
		}
		if c.one(4) {
			r.keys["deny"], r.denied = []string{"127.0.0.9"}, true
		} else if c.one(4) {
			r.keys["allow"] = []string{"127.0.0.0/8"}
		}
		if c.one(4) {
			r.keys["error_pages"], r.page = []settings{{"status": "404", "file": c.servers.page, "peers": true}, {"status": "400-599", "file": c.servers.page}}, true
		}
		if c.one(8) {
			r.keys["rate_limit"], r.rated = settings{"rate": 20, "burst": 3, "key": pick(c, "client_address", "header X-Client", "route")}, true
		}
		if c.one(5) {
			r.keys["body_limit"], r.limited = "20KiB", true
		}
		switch c.random.IntN(12) {
		case 0:
			r.keys["redirect"], r.status = settings{"to": "https://b.example.com/x?y", "code": 307}, http.StatusTemporaryRedirect
			r.fields, r.without = map[string]string{"Location": "https://b.example.com/x?y"}, 0
		case 1:
			r.keys["direct_response"], r.status, r.body = settings{"status": 203, "body": "fixed"}, http.StatusNonAuthoritativeInfo, "fixed"
			r.fields = map[string]string{"X-Sluice-Reason": "direct_response"}
		}
		if r.status != 0 {
			r.limited = false
			delete(r.keys, "body_limit")
		}
		c.routes = append(c.routes, r)
	}
	c.routes = append(c.routes,
		&combinedRoute{service: "one", got: "/ws", keys: settings{"path": "/ws"}, streamed: true},
		&combinedRoute{service: pick(c, "h2c", "h2"), keys: settings{"path": "/grpc.testing.TestService"}, streamed: true})
}

// retry returns settings of retries of a service or a route, by which no request fails that another peer can answer.
func (c *combinations) retry() settings {
	keys := settings{"budget": 10, "min_per_second": 1_000_000, "attempts": pick(c, 3, 4, 5)}
	if !c.dying && !c.crashing && c.one(3) {
		keys["attempts"] = pick(c, 1, 2)
	}
	if c.impatient && c.one(2) {
		keys["per_try_timeout"] = pick(c, "5ms", "50ms", "1s")
	}
	if c.one(3) {
		keys["body"] = pick(c, "0", "1KiB", "40KiB", "1MiB")
	}
	if c.one(3) {
		keys["hedge"] = settings{"after": pick(c, "1ms", "5ms")}
	}
	return keys
}

// service composes a service for requests.
func (c *combinations) service(name string) settings {
	addresses, keys := c.servers.plain, settings{
		"timeouts": settings{"connect": "5m", "response_header": "10m", "idle": "10m", "tunnel": "10m"}, "drain": settings{"timeout": "10m"},
	}
	secure := settings{"ca": c.servers.ca, "server_name": "a.example.com"}
	switch upstream := (settings{}); name {
	case "tls":
		addresses, upstream["tls"] = c.servers.secure, secure
		keys["upstream"] = upstream
	case "h2":
		addresses, upstream["tls"], upstream["protocol"] = c.servers.secure, secure, "h2"
		keys["upstream"] = upstream
	case "h2c":
		upstream["protocol"] = "h2c"
		keys["upstream"] = upstream
	}
	if !c.impatient && !c.crashing {
		addresses = addresses[:pick(c, 1, 2, 3, 3)]
	}
	balance := settings{"proof": !c.one(4), "policy": pick(c, "ewma", "hash", "least_conn", "random", "round_robin", "sticky")}
	limits, health := settings{}, settings{}
	dead := c.dying && len(addresses) == 3 && c.one(2)
	switch {
	case len(addresses) == 3 && !dead && c.one(3):
		keys["file"] = c.servers.instances(c.t, name, addresses)
		if c.one(3) {
			balance["tiers"] = []settings{{"tags": []string{pick(c, "v1", "v2", "none")}}}
			break
		}
		keys["groups"] = settings{"canary": settings{"tags": []string{"v2"}}}
		keys["split"] = settings{"canary": pick(c, "0%", "50%", "100%"), "key": pick(c, "cookie", "none", "client_address", "header X-Client"), "fallback": "rest"}
	default:
		peers := []string{}
		for _, a := range addresses {
			peers = append(peers, a+pick(c, "", " weight=2", " weight=9"))
		}
		if dead {
			peers = append(peers, "127.0.0.1:1")
		}
		keys["peers"] = peers
	}
	if balance["policy"] == "hash" {
		balance["hash"] = settings{"keys": []string{pick(c, "path", "client_address", "query key", "header X-Client", "cookie mine")}, "bound": pick(c, 0.0, 1.25)}
	} else if c.one(3) {
		balance["reported_load"] = true
	}
	if !c.dying && !c.impatient && !c.crashing && balance["policy"] != "hash" && balance["policy"] != "sticky" && c.one(4) {
		balance["subset"] = settings{"size": pick(c, 1, 2), "replica": 0, "replicas": pick(c, 1, 3)}
	}
	if c.one(3) {
		limits["connections_per_peer"], limits["connection_wait"] = pick(c, 2, 3, 8), "1m"
	}
	if c.one(3) {
		limits["adaptive"], limits["adaptive_min"] = true, 10_000
	}
	if c.one(3) {
		limits["requests"], limits["requests_per_peer"], limits["retries"] = 10_000, 10_000, 10_000
	}
	if c.one(3) {
		active := settings{"interval": "50ms", "timeout": "5m", "path": "/health"}
		if name == "h2" || name == "tls" {
			active["tls"] = secure
		}
		if c.one(2) {
			active["reuse_connections"] = true
		}
		if active["must_pass_first"] = c.one(2); active["must_pass_first"] == true {
			keys["wait_for_peer"] = "1m"
		}
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
	if c.one(3) {
		keys["keepalive"] = settings{"idle": pick(c, "100ms", "4s"), "max": pick(c, 1, 512), "max_requests": pick(c, 0, 3, 10)}
	}
	keys["balance"], keys["limits"], keys["health"], keys["retry"] = balance, limits, health, c.retry()
	return keys
}

// route returns the keys of a route that stay, and some that may change.
func (c *combinations) route(r *combinedRoute) settings {
	keys := maps.Clone(r.keys)
	keys["service"] = r.service
	if r.keys["direct_response"] != nil || r.keys["redirect"] != nil && c.one(2) {
		delete(keys, "service")
	}
	if keys["service"] != nil && r.status == 0 && !r.streamed && c.one(4) {
		other := pick(c, web...)
		if other != r.service {
			delete(keys, "service")
			keys["services"] = settings{r.service: "50%", other: "50%", "key": pick(c, "cookie", "none", "header X-Client")}
		}
	}
	if !r.rated && c.one(3) {
		keys["rate_limit"] = settings{"rate": 1_000_000, "key": pick(c, "client_address", "header X-Client", "route")}
	}
	if c.one(3) {
		keys["when"] = pick(c, settings{"not": settings{"header": settings{"X-None": "*"}}}, settings{"any": []settings{{"scheme": "https"}, {"scheme": "http"}}}, settings{"client": []string{"127.0.0.0/8"}})
	}
	if r.status != 0 {
		return keys
	}
	if c.one(3) {
		keys["compress"] = settings{"encodings": pick(c, []string{"gzip"}, []string{"zstd", "gzip"}, []string{"zstd", "br", "gzip"}), "min_length": pick(c, "0", "1KiB"), "level": pick(c, "fast", "default")}
	}
	if c.one(3) {
		keys["timeouts"] = settings{"response_header": "9m", "idle": "9m"}
	}
	if c.one(3) {
		keys["retry"] = settings{"attempts": pick(c, 3, 5), "body": pick(c, "0", "40KiB")}
	}
	if c.one(3) {
		keys["mirror"] = settings{"service": pick(c, web...), "share": pick(c, "50%", "100%"), "body": pick(c, "0", "64KiB", "1MiB"), "in_flight": pick(c, 1, 100)}
	}
	if !r.limited && c.one(3) {
		keys["body_limit"] = "10MiB"
	}
	if c.one(3) {
		keys["criticality"] = pick(c, "critical", "normal", "sheddable")
	}
	return keys
}

// text composes a configuration.
func (c *combinations) text() string {
	tls := settings{"certificates": []settings{{"cert": c.servers.site.Cert, "key": c.servers.site.Key}}}
	at := "127.0.0.1:0"
	listeners := []settings{
		{"name": "web", "address": at},
		{"name": "secure", "address": at, "tls": tls},
		{"name": "proxied", "address": at, "proxy_protocol": settings{"from": []string{"127.0.0.0/8"}}},
		{"name": "db", "address": at, "protocol": "tcp", "service": "streams"},
		{"name": "told", "address": at, "protocol": "tcp", "service": "told", "proxy_protocol": settings{"from": []string{"127.0.0.0/8"}}},
		{"name": "names", "address": at, "protocol": "tcp", "tls": tls, "sni": []settings{
			{"host": "ended.example.com", "service": "streams"},
			{"host": "again.example.com", "service": "again"},
			{"host": "passed.example.com", "service": "passed", "passthrough": true}}},
	}
	services := settings{}
	for _, name := range web {
		services[name] = c.service(name)
	}
	for name, addresses := range map[string][]string{"streams": c.servers.streams, "told": c.servers.toldStreams, "again": c.servers.secureStreams, "passed": c.servers.secureStreams} {
		service := settings{"peers": addresses[:pick(c, 1, 2, 3)], "timeouts": settings{"connect": "5m"}, "drain": settings{"timeout": "10m"}, "balance": settings{"proof": true, "policy": pick(c, "least_conn", "ewma", "round_robin", "random")}}
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
		services[name] = service
	}
	routes := []settings{}
	for _, r := range c.routes {
		routes = append(routes, c.route(r))
	}
	tracing := settings{"sample": pick(c, "1%", "100%")}
	if c.one(4) {
		tracing["otlp"] = "http://127.0.0.1:1"
	}
	client := settings{"request_id": c.one(2), "keep_for_gone_clients": c.one(2), "forwarded": c.one(2), "limits": settings{"kept_bodies": pick(c, "1MiB", "256MiB"), "compression": pick(c, "1MiB", "256MiB")},
		"timeouts": settings{"head": "5m", "body": "10m", "write": "10m", "idle": "10m"}, "connections": settings{"max_requests": pick(c, 0, 0, 5, 50)}}
	log := settings{"path": c.servers.dir + "/access.log", "format": pick(c, "json", "combined")}
	return fmt.Sprintf("listeners: %s\nadmin: { address: \"127.0.0.1:0\" }\naccess_log: %s\ntracing: %s\nclient: %s\nshutdown: { idle: 100ms, grace: 10m }\nservices: %s\nroutes: %s\n",
		asYAML(listeners), asYAML(log), asYAML(tracing), asYAML(client), asYAML(services), asYAML(routes))
}

// valid is text, which is checked.
func (c *combinations) valid() string {
	text := c.text()
	_, err := configtest.Build(text)
	verify.Require(c.t, err == nil, "the configuration is not valid: %v\n%s", err, text)
	return text
}

// order returns the path of an order about a peer of a service, which may not be in use; "" for none. It concerns only the last of three,
// so that the others can answer.
func (c *combinations) order() string {
	if c.impatient || c.crashing || c.one(2) {
		return ""
	}
	addresses := map[string][]string{"one": c.servers.plain, "tls": c.servers.secure, "streams": c.servers.streams, "told": c.servers.toldStreams}
	service := pick(c, "one", "tls", "streams", "told")
	return "/api/peers/" + service + "/" + addresses[service][2] + pick(c, "/drain", "/enable", "/weight?weight=5", "/weight/release")
}
