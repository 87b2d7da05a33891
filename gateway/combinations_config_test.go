package gateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/config"
	"sluice/test/discoverytest"
	"sluice/test/testcert"
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
	world
	servers  *combinedServers
	consul   *discoverytest.Consul
	dir      string // of files of this seed
	site     testcert.Files
	routes   []*combinedRoute
	tokens   *combinedTokens // nil: no route has jwks_url
	allTerms []terms         // of all configurations
	// In a seed one of these may be, since a reload gives a pool its peers and its settings one
	// after the other, and routes theirs before or after. impatient: services have
	// retry.per_try_timeout, and keep their peers, because whether another peer can answer in place
	// of a slow one is decided when the request is sent. dying: services have a peer that refuses
	// connections, and retries that find another one. crashing: peers crash for requests that
	// another one answers, which all services have. plain: the peers of the service any have no
	// TLS.
	impatient, dying, crashing, plain bool

	trusting bool // the clients of some listeners, whose X-Forwarded-For counts
	closing  bool // the service any is in maintenance at times
	divided  bool // a document beside the file has routes and their services
	local    bool // clients use unix sockets too
	waiting  bool // requests wait for a peer, for a service may have only new ones, which must pass a check first
	crowded  bool // somebody greedy uses the service one too

	// What the next configuration depends on.
	healthy   bool     // Consul
	lost      bool     // while it is not: it has no instances
	upgrading bool     // it is for a new process
	lacking   bool     // that does not find its peers
	known     []string // services of which this process has a set from Consul
	present   []string // services of this process

	terms terms // of the configuration that was composed last
}

// A combinedRoute is what stays of a route, and what clients get by it.
type combinedRoute struct {
	service  string
	keys     settings
	named    []string          // of keys: those that are named actions of the file
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
	host     string            // that peers get
	limited  bool              // to bodies of 20 KiB
	streamed bool              // for WebSocket, or gRPC
	names    []string          // of the certificates of clients; nil: any or none
	other    []string          // names for which another route comes before; with opposite it does for all others
	opposite bool
}

// web are the services for requests; one has HTTP/1.1.
var web = []string{"one", "any", "h2c", "h2"}

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
	c.trusting, c.closing, c.divided, c.waiting, c.plain, c.local = c.one(2), c.one(3), c.one(3), c.one(2), c.one(2), c.one(2)
	c.crowd()
	for n := range 5 {
		path := fmt.Sprint("/r", n)
		r := &combinedRoute{service: pick(c, web...), got: path, keys: settings{"path": path}, host: "a.example.com", fields: map[string]string{}, header: map[string]string{}}
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
			c.chooseTokens(r)
		case 2:
			ask := settings{"url": "http://" + c.servers.auth + "/", "timeout": "1m", "response_headers": []string{"X-User"}, "client_headers": []string{"X-Allowed"}}
			r.keys["forward_auth"], r.without = ask, http.StatusForbidden
			r.header["X-Pass"], r.fields["Got-X-User"], r.fields["X-Allowed"] = "yes", "asked", "yes"
			if c.one(2) {
				ask["decides"], r.got = []string{"path"}, "/decided"
			}
		}
		c.chooseCertificates(r)
		if c.one(3) {
			r.keys["request_headers"], r.fields["Got-X-Extra"] = settings{"set": settings{"X-Extra": "$method $scheme"}}, "?"
		}
		if c.one(4) {
			r.keys["host_header"], r.host = "c.example.com", "c.example.com"
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
			if c.one(2) {
				r.keys["direct_response"], r.body = settings{"status": 203, "file": c.servers.page}, "a page"
			}
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
	for _, r := range c.routes[5:] {
		c.chooseCertificates(r)
	}
}

// route returns the keys of a route that stay, and some that may change.
func (c *combinations) route(r *combinedRoute, services settings) settings {
	keys := maps.Clone(r.keys)
	if keys["service"] = r.service; !r.streamed && c.one(3) {
		keys["service"] = pick(c, web...)
	}
	if c.crowded && !r.streamed && c.one(2) {
		keys["service"] = "one"
	}
	c.match(r, keys)
	c.varyTokens(keys)
	c.varyQuestions(r, keys)
	if r.keys["direct_response"] != nil || r.keys["redirect"] != nil && c.one(2) {
		delete(keys, "service")
	}
	if keys["service"] != nil && r.status == 0 && !r.streamed && c.one(4) {
		if service, other := keys["service"].(string), pick(c, web...); other != service {
			delete(keys, "service")
			keys["services"] = settings{service: "50%", other: "50%", "key": pick(c, "cookie", "none", "header X-Client")}
		}
	}
	if !r.rated && c.one(3) {
		keys["rate_limit"] = settings{"rate": 1_000_000, "key": pick(c, "client_address", "header X-Client", "route")}
	}
	if c.one(3) {
		keys["when"] = pick(c, settings{"not": settings{"header": settings{"X-None": "*"}}}, settings{"any": []settings{{"scheme": "https"}, {"scheme": "http"}}}, c.addressed(), settings{"not": settings{"cookie": settings{"none": "*"}}})
	}
	if r.status != 0 {
		return keys
	}
	if c.one(3) {
		keys["compress"] = settings{"encodings": pick(c, []string{"gzip"}, []string{"zstd", "gzip"}, []string{"zstd", "br", "gzip"}), "min_length": pick(c, "0", "1KiB"), "level": pick(c, "fast", "default")}
	}
	if keys["redirect"] == nil && c.one(6) {
		keys["redirect"] = settings{"regexp": "^ftp:", "to": "https://b.example.com/"}
	}
	if c.one(3) {
		keys["timeouts"] = settings{"response_header": "9m", "idle": "9m"}
	}
	if c.one(3) {
		keys["retry"] = settings{"attempts": pick(c, 3, 5), "body": pick(c, "0", "40KiB")}
	}
	if c.one(3) {
		keys["mirror"] = settings{"service": pick(c, web...), "share": pick(c, "50%", "100%"), "body": pick(c, "0", "64KiB", "1MiB"), "in_flight": pick(c, 1, 100)}
		if c.crowded {
			keys["mirror"].(settings)["in_flight"] = 1
		}
	}
	if service, _ := services[fmt.Sprint(keys["service"])].(settings); service["groups"] != nil {
		switch c.random.IntN(4) {
		case 0:
			keys["group"] = "rest"
		case 1:
			keys["split"] = settings{"canary": pick(c, "0%", "30%", "100%"), "key": pick(c, "cookie", "none"), "fallback": "rest"}
		case 2:
			if !c.crowded {
				keys["mirror"] = settings{"group": pick(c, "canary", "rest"), "share": "50%"}
			}
		}
	}
	if !r.limited && c.one(3) {
		keys["body_limit"] = "10MiB"
	}
	if c.one(3) {
		keys["criticality"] = pick(c, "critical", "normal", "sheddable")
	}
	return keys
}

// varyQuestions changes what the authentication server gets, and which of its answers are kept.
func (c *combinations) varyQuestions(r *combinedRoute, keys settings) {
	before, ok := keys["forward_auth"].(settings)
	if !ok {
		return
	}
	ask := maps.Clone(before)
	switch {
	case c.one(3) && !r.limited: // else a long body may be refused first
		ask["body"] = pick(c, "1KiB", "64KiB")
	case c.one(2):
		ask["cache"] = []string{"X-Pass", "X-Forwarded-Uri"}
	}
	keys["forward_auth"] = ask
}

// addressed returns a condition on addresses that all clients keep. At a unix socket they have
// none.
func (c *combinations) addressed() settings {
	address := settings{"client": []string{"127.0.0.0/8"}}
	if c.local {
		return settings{"any": []settings{address, {"header": settings{isBarred: "*"}}}}
	}
	return address
}

// match adds conditions that all requests of a route keep.
func (c *combinations) match(r *combinedRoute, keys settings) {
	switch path := r.keys["path"].(string); c.random.IntN(6) {
	case 0:
		keys["match"] = "string_prefix"
	case 1:
		if keys["match"], keys["path"] = "regexp", "^"+path+"(/|$)"; r.streamed {
			keys["path"] = "^" + path
		}
	}
	switch c.random.IntN(6) {
	case 0:
		keys["host"] = "a.example.com"
	case 1:
		keys["host"] = "*.example.com"
	case 2:
		keys["host_regexp"] = "^[ab][.]"
	}
	if c.one(4) {
		keys["listeners"] = combinedListeners
	}
	if !r.streamed && c.one(4) {
		keys["methods"] = []string{"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"}
	}
	keys["priority"] = pick(c, 0, 0, 1, -1)
}

// decoys returns routes for requests that nobody sends.
func (c *combinations) decoys() (routes []settings) {
	for _, keys := range []settings{
		{"host": "b.example.com"},
		{"host_regexp": "^[bc][.]"},
		{"methods": []string{"PATCH"}},
		{"when": settings{"header": settings{"X-None": "*"}}},
		{"when": settings{"query": settings{"how": "none"}}},
		{"when": settings{"cookie": settings{"mine": "~^[6-9]$"}}},
		{"when": settings{"client": []string{"10.0.0.0/8"}}},
		{"match": "regexp", "path": "^/r[0-9]/none"},
	} {
		if c.one(3) {
			if keys["path"] == nil {
				keys["path"] = fmt.Sprint("/r", c.random.IntN(5))
			}
			keys["priority"], keys["direct_response"] = pick(c, 0, 2), settings{"status": 299, "body": "a decoy"}
			routes = append(routes, keys)
		}
	}
	return routes
}

func (c *combinations) tls() settings {
	keys := settings{"certificates": []settings{{"cert": c.site.Cert, "key": c.site.Key}}}
	switch c.random.IntN(4) {
	case 0:
		keys["profile"] = pick(c, "modern", "intermediate")
	case 1:
		keys["min_version"], keys["curves"] = pick(c, "1.2", "1.3"), []string{"X25519", "P-256"}
	case 2:
		keys["ciphers"] = pick(c, []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}, []string{"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"})
	}
	if c.one(2) {
		keys["ticket_keys"] = pick(c, c.servers.tickets...)
	}
	if c.one(3) {
		keys["hsts"] = settings{}
	}
	return keys
}

// asking returns the TLS of a listener with these terms.
func (c *combinations) asking(t terms) settings {
	keys := c.tls()
	if delete(keys, "min_version"); keys["profile"] == "modern" { // clients have 1.2 too
		delete(keys, "profile")
	}
	if t.auth != "" {
		keys["client_ca"], keys["client_auth"] = c.servers.clientCA, t.auth
		delete(keys, "ticket_keys")
	}
	if t.list {
		keys["client_crl"] = c.servers.clientCRL
	}
	return keys
}

// text composes a configuration: what the file has in any case, and what a document may have in its
// place.
func (c *combinations) text() (file, document string) {
	at := "127.0.0.1:0"
	c.terms = terms{auth: pick(c, "", "optional", "required")}
	c.terms.list, c.terms.http3 = c.terms.auth != "" && c.one(2), !c.one(4)
	plain := settings{"name": "plain", "address": at}
	if c.one(2) {
		c.terms.port = pick(c, 443, 8443)
		plain["redirect_https"] = settings{"port": c.terms.port}
	}
	names := c.asking(c.terms)
	delete(names, "hsts")
	listeners := []settings{
		{"name": "web", "address": at}, plain,
		{"name": "local", "address": "unix:" + c.dir + "/local"},
		{"name": "relayed", "address": "unix:" + c.dir + "/relayed", "proxy_protocol": settings{"from": []string{"unix:"}}},
		{"name": "secure", "address": at, "tls": c.tls(), "http3": c.terms.http3},
		{"name": "certified", "address": at, "tls": c.asking(c.terms), "http3": c.terms.http3},
		{"name": "proxied", "address": at, "proxy_protocol": settings{"from": []string{"127.0.0.0/8"}}},
		{"name": "db", "address": at, "protocol": "tcp", "service": "streams"},
		{"name": "told", "address": at, "protocol": "tcp", "service": "told", "proxy_protocol": settings{"from": []string{"127.0.0.0/8"}}},
		{"name": "names", "address": at, "protocol": "tcp", "tls": names, "sni": []settings{
			{"host": "ended.example.com", "service": "streams"},
			{"host": "again.example.com", "service": "again"},
			{"host": "passed.example.com", "service": "passed", "passthrough": true}}},
	}
	if c.one(3) {
		listeners = append(listeners, settings{"name": "another", "address": at})
	}
	services, streams := settings{}, settings{}
	for _, name := range web {
		services[name] = c.service(name)
	}
	addresses := map[string][]string{"streams": c.servers.streams, "told": c.servers.toldStreams, "again": c.servers.secureStreams, "passed": c.servers.secureStreams}
	for _, name := range slices.Sorted(maps.Keys(addresses)) { // in an order that a seed repeats
		streams[name] = c.streams(name, addresses[name])
	}
	if c.lacking {
		delete(streams["told"].(settings), "peers")
		streams["told"].(settings)["file"] = c.dir + "/missing"
	}
	routes := append(c.decoys(), c.others()...)
	if c.crowded {
		routes = append(routes, settings{"path": "/greedy", "service": "one"})
	}
	for _, r := range c.routes {
		routes = append(routes, r.withNames(c.route(r, services)))
	}
	if text := asYAML(routes); c.one(2) { // those that are not used
		maps.DeleteFunc(services, func(name string, _ any) bool {
			return !strings.Contains(text, fmt.Sprintf("%q", name))
		})
	}
	c.random.Shuffle(len(routes), func(a, b int) { routes[a], routes[b] = routes[b], routes[a] })
	tracing := settings{"sample": pick(c, "1%", "100%")}
	if c.one(4) {
		tracing["otlp"] = "http://127.0.0.1:1"
	}
	client := settings{"request_id": c.one(2), "keep_for_gone_clients": c.one(2), "forwarded": c.one(2), "keep_underscores": c.one(2), "keep_dot_segments": c.one(2),
		"limits":   settings{"kept_bodies": pick(c, "1MiB", "256MiB"), "compression": pick(c, "1MiB", "256MiB"), "connections": pick(c, 0, 10_000), "head": pick(c, "8KiB", "60KiB"), "fields": pick(c, 50, 1000)},
		"timeouts": settings{"head": "5m", "body": "10m", "write": "10m", "idle": "10m"}, "connections": settings{"max_requests": pick(c, 0, 0, 5, 50), "max_age": pick(c, "0s", "0s", "100ms")}}
	if c.trusting {
		client["trusted_proxies"] = []string{"127.0.0.1", "unix:"}
	}
	accessLog := settings{"path": pick(c, c.dir+"/access.log", "off"), "format": pick(c, "json", "combined", "$client $target $status"), "sample": pick(c, "10%", "100%")}
	log := settings{"level": pick(c, "info", "info", "debug", "warn"), "format": pick(c, "auto", "json", "console")}
	admin := settings{"address": at}
	for _, key := range []string{"orders", "shares"} {
		if c.one(3) {
			admin[key] = c.dir + "/" + key
		}
	}
	discovery, history := settings{"debounce": settings{"quiet": pick(c, "0s", "100ms")}, "allow_local": true}, settings{}
	if c.one(3) {
		discovery["snapshot"] = c.dir + "/snapshot"
	}
	if c.one(3) {
		history["history"] = c.dir + "/history"
	}
	defaults := c.defaults(routes, services, streams)
	if !c.divided {
		maps.Copy(services, streams)
		streams = services
	}
	file = fmt.Sprintf("listeners: %s\nadmin: %s\naccess_log: %s\nlog: %s\nconsul: { addresses: [%q] }\ndiscovery: %s\nconfig: %s\ntracing: %s\nclient: %s\nshutdown: { idle: 100ms, grace: %s }\nactions: %s\ndefaults: %s\nservices: %s\n",
		asYAML(listeners), asYAML(admin), asYAML(accessLog), asYAML(log), c.consul.URL(), asYAML(discovery), asYAML(history), asYAML(tracing), asYAML(client), graceOf(len(c.texts)), asYAML(c.namedActions()), asYAML(defaults), asYAML(streams))
	if document = fmt.Sprintf("routes: %s\n", asYAML(routes)); c.divided {
		file += fmt.Sprintf("dynamic: [{ file: %q }]\n", c.dir+"/documents/*.yaml")
		return file, fmt.Sprintf("services: %s\n", asYAML(services)) + document
	}
	return file + document, ""
}

// graceOf returns what each configuration has another value of.
func graceOf(n int) time.Duration { return 10*time.Minute + time.Duration(n)*time.Second }

// next composes a configuration, and returns the file, after a document has been written that it
// names. Documents are not for one process, so the one before gets it too.
func (c *combinations) next() (file string) {
	file, document := c.text()
	verify.That(c.t, config.Equal(c.compose(file), c.compose(file)), "the same text is another configuration:\n%s", file)
	if document != "" {
		verify.Require(c.t, os.MkdirAll(c.dir+"/documents", 0o700) == nil, "no directory")
		replaceFile(c.t, c.dir+"/documents/routes.yaml", document)
	}
	c.texts, c.allTerms = append(c.texts, file+document), append(c.allTerms, c.terms)
	return file
}
