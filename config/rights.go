package config

import (
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/config/decoding"
	"sluice/proxy/http1"
)

// Setter is who sets a key, or several of them.
type Setter uint8

const (
	// ByFile: the configuration file, the files of dynamic, flags and the environment.
	ByFile Setter = 1 << iota
	// ByDocument: a document in Consul's KV store or in etcd.
	ByDocument
	// ByTag: a tag of a service, in any dialect.
	ByTag
	// ByRegistration: an entry of a service's meta.
	ByRegistration
)

// byRoutes are all who may ask for a route.
const byRoutes = ByDocument | ByTag | ByRegistration

// String returns the name of one setter.
func (s Setter) String() string {
	switch s {
	case ByDocument:
		return "a document"
	case ByTag:
		return "a tag"
	case ByRegistration:
		return "the meta of a service"
	}
	return "the file"
}

// right says who, besides the file, may set some keys of a section.
type right struct {
	section string
	keys    string         // with spaces between them; "*": all that the section has, now and later
	setters Setter         // 0: the file only
	only    *decoding.Only // nil: all values that the key allows
}

var (
	noSocket   = &decoding.Only{Want: `"HOST:PORT": only the file names unix sockets`, OK: func(s string) bool { return !strings.HasPrefix(s, "unix:") }}
	shortCheck = &decoding.Only{Want: "1ms to 10s: only the file sets a longer timeout of a check", OK: func(s string) bool {
		d, err := time.ParseDuration(s)
		return err != nil || d <= 10*time.Second // an error has its own text
	}}
	noIdentity = &decoding.Only{Want: "another field: only the file sets fields that say who the client is", OK: func(s string) bool { return !isIdentity(s) }}
)

// rights has each key, and who may set it besides the file. A key without a row is the file's
// only; a test makes sure that each key has one. Keys that name files, unix sockets, keys
// and tokens of sluice, other services (in tags), fields that say who the client is, or that
// raise what sluice keeps in memory for a request, are the file's only.
var rights = []right{
	{"log", "*", 0, nil}, {"access_log", "*", 0, nil}, {"tracing", "*", 0, nil}, {"admin", "*", 0, nil},
	{"listeners[]", "*", 0, nil}, {"client", "*", 0, nil}, {"discovery", "*", 0, nil}, {"config", "*", 0, nil},
	{"consul", "*", 0, nil}, {"catalog", "*", 0, nil}, {"dynamic[]", "*", 0, nil}, {"shutdown", "*", 0, nil}, {"health", "*", 0, nil},

	{"services.NAME.consul", "service prepared_query poll tags filter passing_only address port check_port datacenters min_healthy spill nearest", ByDocument, nil},
	{"services.NAME.consul", "namespace partition peer consistency cached connect probation", ByDocument, nil},
	{"services.NAME.consul.leader", "tag passing on_demotion", ByDocument, nil},
	{"services.NAME.consul.leader", "key", 0, nil}, // as consul_kv
	{"services.NAME.etcd", "*", 0, nil},            // password_file, tls.key; an endpoint gets what these contain
	{"services.NAME.consul_kv", "*", 0, nil},       // sluice's token reads keys that the writer of a document may not read
	{"services.NAME.dns", "name type port server servers probation", ByDocument, nil},
	{"services.NAME", "file", 0, nil},
	{"services.NAME", "peers", ByDocument, noSocket},
	{"services.NAME.balance", "policy", ByDocument | ByTag, nil},
	{"services.NAME.balance", "overprovisioning", ByDocument, nil},
	{"services.NAME.balance.hash", "keys bound", ByDocument, nil},
	{"services.NAME.balance.sticky", "cookie path domain max_age secure same_site", ByDocument | ByTag, nil},
	{"services.NAME.balance.sticky", "secret", ByDocument, nil},
	{"services.NAME.balance.tiers[]", "tags meta nodes", ByDocument, nil},
	{"services.NAME.balance.subset", "size replica replicas", ByDocument, nil},
	{"services.NAME.timeouts", "connect response_header idle tunnel", ByDocument, nil},
	{"services.NAME.keepalive", "idle max max_requests max_age", ByDocument, nil},
	{"services.NAME.upstream", "protocol", ByDocument | ByTag, nil},
	{"services.NAME.upstream.tls", "server_name skip_verify", ByDocument | ByTag, nil},
	{"services.NAME.upstream.tls", "ca cert key", 0, nil},
	{"services.NAME.retry", "attempts per_try_timeout budget min_per_second", ByDocument, nil},
	{"services.NAME.retry", "body", 0, nil},
	{"services.NAME.limits", "requests requests_per_peer connections_per_peer connection_wait pending retries adaptive adaptive_min", ByDocument, nil},
	{"services.NAME.limits", "response_head response_fields", 0, nil},
	{"services.NAME", "wait_for_peer", ByDocument, nil},
	{"services.NAME.drain", "timeout", ByDocument, nil},
	{"services.NAME", "proxy_protocol", ByDocument | ByTag, nil},
	{"services.NAME.health", "slow_start slow_start_aggression slow_start_min panic_threshold", ByDocument, nil},
	{"services.NAME.health.active", "type interval failing_interval port method path host headers", ByDocument | ByTag, nil},
	{"services.NAME.health.active", "timeout", ByDocument | ByTag, shortCheck},
	{"services.NAME.health.active", "jitter unhealthy_threshold healthy_threshold must_pass_first overrides_consul reuse_connections service send", ByDocument, nil},
	{"services.NAME.health.active.tls", "server_name skip_verify", ByDocument, nil},
	{"services.NAME.health.active.tls", "ca cert key", 0, nil},
	{"services.NAME.health.active.expect", "status", ByDocument | ByTag, nil},
	{"services.NAME.health.active.expect", "text regexp within", ByDocument, nil},
	{"services.NAME.health.passive", "consecutive_failures consecutive_connect_failures consecutive_5xx flaps", ByDocument, nil},
	{"services.NAME.health.passive", "interval ejection max_ejection max_ejected", ByDocument, nil},
	{"services.NAME.health.passive.success_rate", "below", ByDocument, nil},
	{"services.NAME.health.passive.latency", "factor above", ByDocument, nil},
	{"services.NAME.groups.NAME", "tags meta", ByDocument, nil},
	{"services.NAME", "split", ByDocument, nil},
	{"services.NAME.judge", "act steps step max_wait slower", ByDocument, nil},

	{"defaults", "*", 0, nil}, {"actions.NAME", "*", 0, nil},

	{"routes[]", "host host_regexp path match methods listeners priority name", byRoutes, nil},
	{"routes[].when", "header query cookie scheme client client_certificates not any", byRoutes, nil},
	{"routes[]", "use", byRoutes, nil}, // of what actions.NAME.offered_to offers them
	{"routes[]", "service services group split", ByDocument, nil},
	{"routes[].mirror", "service group share", ByDocument, nil},
	{"routes[].mirror", "body in_flight", 0, nil},
	{"routes[]", "strip_prefix add_prefix host_header body_limit criticality allow deny client_certificate client_certificates", byRoutes, nil},
	{"routes[].rewrite", "regexp to", byRoutes, nil},
	{"routes[].redirect", "regexp to code get_code", byRoutes, nil},
	{"routes[].direct_response", "status body content_type headers", byRoutes, nil},
	{"routes[].direct_response", "file", 0, nil},
	{"routes[]", "admin_api", 0, nil},
	{"routes[].error_pages[]", "*", 0, nil},
	{"routes[].cors", "allow_origins allow_methods allow_headers expose_headers allow_credentials max_age", byRoutes, nil},
	{"routes[].request_headers", "set add remove", byRoutes, noIdentity},
	{"routes[].response_headers", "set add remove", byRoutes, nil},
	{"routes[].timeouts", "connect response_header idle tunnel", byRoutes, nil},
	{"routes[].retry", "attempts per_try_timeout", byRoutes, nil},
	{"routes[].retry", "body", 0, nil},
	{"routes[].rate_limit", "rate per burst key scope", byRoutes, nil},
	{"routes[].basic_auth", "users realm", ByTag, nil}, // if catalog.basic_auth allows it
	{"routes[].basic_auth", "users_file", 0, nil},
	{"routes[].jwt", "jwks_url issuer audiences algorithms leeway from remove require", ByDocument, nil},
	{"routes[].jwt", "headers", ByDocument, noIdentity},
	{"routes[].jwt", "jwks_file", 0, nil},
	{"routes[].forward_auth", "url response_headers client_headers timeout", byRoutes, nil},
	{"routes[].forward_auth", "decides", ByDocument, nil}, // as services and split
	{"routes[].forward_auth", "body cache", 0, nil},
	{"routes[].compress", "encodings types min_length level", byRoutes, nil},
}

// isIdentity reports whether a field of a request says who the client is. Peers that sluice is
// in front of believe such a field. Those are the names that the proxy reserves for proxies and
// for itself, however they are spelled, without the fields that say what the client asked for.
func isIdentity(name string) bool {
	field := []byte(name)
	switch http1.NameLike(field) {
	case http1.NameXForwardedHost, http1.NameXForwardedPort, http1.NameXForwardedProto:
		return false
	case http1.NameClaim:
		return !slices.ContainsFunc(askedFor, func(asked string) bool { return http1.Alike(field, asked) })
	case http1.NameForwarded, http1.NameXForwardedClientCert, http1.NameXForwardedFor, http1.NameXRealIP, http1.NameXSluice:
		return true
	}
	return false
}

// askedFor are the claims that say what the client asked for, and not who it is.
var askedFor = []string{"x-forwarded-prefix", "x-forwarded-scheme", "x-forwarded-uri", "x-scheme", "x-url-scheme", "x-rewrite-url", "front-end-https"}

// allRights returns the rights of the keys of [Config].
var allRights = sync.OnceValue(func() *decoding.Rights {
	table := make(map[string]right)
	for _, r := range rights {
		for key := range strings.FieldsSeq(r.keys) {
			table[r.section+"."+key] = r
		}
	}
	return rightsBelow(reflect.TypeFor[Config](), "", table)
})

func rightsBelow(t reflect.Type, key string, table map[string]right) *decoding.Rights {
	switch {
	case t.Kind() == reflect.Pointer:
		return rightsBelow(t.Elem(), key, table)
	case t.Kind() == reflect.Slice && decoding.Kind(t.Elem()) == reflect.Struct:
		return rightsBelow(t.Elem(), key+"[]", table)
	case t.Kind() == reflect.Map && decoding.Kind(t.Elem()) == reflect.Struct:
		entry := rightsBelow(t.Elem(), key+".NAME", table)
		return &decoding.Rights{Setters: entry.Setters, Entry: entry}
	case decoding.Kind(t) != reflect.Struct:
		r := table[key]
		return &decoding.Rights{Setters: decoding.Setters(ByFile | r.setters), Only: r.only}
	}
	section := &decoding.Rights{Setters: decoding.Setters(ByFile), Below: make(map[string]*decoding.Rights)}
	for _, f := range decoding.Fields(t) {
		name := f.Tag.Get("key")
		section.Names = append(section.Names, name)
		if f.Type == reflect.PointerTo(t) || f.Type == reflect.SliceOf(t) { // the same section again
			section.Below[name] = section
			continue
		}
		at := rightsBelow(f.Type, strings.TrimPrefix(key+"."+name, "."), table)
		section.Below[name] = at
		section.Setters |= at.Setters
	}
	return section
}
