package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/config/decoding"
	"sluice/config/units"
	"sluice/test/verify"
)

// All output of a configuration uses these encodings.
func TestEncodingsMaskCredentials(t *testing.T) {
	const text = `
consul:
  token: s3cret
  register: { check: { type: http, url: "http://127.0.0.1:8081/readyz?key=s3cret" } }
services:
  a:
    peers: ["127.0.0.1:1"]
    balance: { policy: sticky, sticky: { secret: s3cret } }
    health: { active: { path: "/health?token=s3cret", headers: ["Authorization: Bearer s3cret"] } }
  b:
    peers: ["127.0.0.1:1"]
    health: { active: { type: tcp, send: "AUTH s3cret\\r\\n" } }
routes:
  - service: a
    jwt: { jwks_url: "http://127.0.0.1:1/keys?key=s3cret", issuer: i, audiences: [a] }
    forward_auth: { url: "http://127.0.0.1:1/verify?key=s3cret" }
    rewrite: { regexp: ".*", to: "/x?key=s3cret" }
    request_headers: { set: { Authorization: "Basic s3cret" }, add: { X-Key: s3cret } }
    response_headers: { set: { X-A: s3cret }, add: { X-B: s3cret } }
  - { path: /users, service: a, basic_auth: { users: ["s3cret:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="] } }
tracing: { otlp: "http://127.0.0.1:1/v1?key=s3cret", headers: ["Authorization: Bearer s3cret"] }
catalog: { tags: [sluice], forward_auth: ["http://127.0.0.1:1/verify?key=s3cret"] }
listeners: [{ name: web, address: ":1", tls: { acme: { names: [a.example], directory: "https://127.0.0.1:1/directory?key=s3cret" } } }]
`
	c := mustParse(t, text)
	masked := verify.Result(yaml.Marshal(schema.Encode(*c, true))).Must(t)
	asJSON := verify.Result(json.Marshal(c)).Must(t)
	parts := verify.Result(json.Marshal([]any{c.Consul, c.Services})).Must(t)
	for _, text := range []string{string(masked), string(asJSON), string(parts), fmt.Sprint(*c, c.Consul, c.Services, *c.Consul.Register, c.Services["a"].Health.Active), fmt.Sprintf("%+v %#v", *c.Services["a"].Health.Active, *c.Services["b"].Health.Active)} {
		verify.That(t, !strings.Contains(text, "s3cret"), "shown: %s", text)
	}
	verify.That(t, strings.Contains(string(masked), "/health?***") && strings.Contains(string(masked), "http://127.0.0.1:8081/readyz?***"), "more than the query is masked: %s", masked)
}

func TestErrorsMaskCredentials(t *testing.T) {
	for _, text := range []string{
		`consul: { token: ["s3cret"] }`,
		`consul: { addresses: ["http://user:s3cret@127.0.0.1:8500"] }`,
		`consul: { addresses: ["user:s3cret@127.0.0.1:8500"] }`,
		`consul: { addresses: ["http://127.0.0.1:8500/?token=s3cret"] }`,
		`consul: { addresses: ["http://user:a/s3cret@127.0.0.1:8500", "http://user:%zz/s3cret@127.0.0.1"] }`,
		`dynamic: [{ etcd: { endpoints: ["http://user:s3cret@127.0.0.1:2379"], prefix: / } }]`,
		`tracing: { otlp: "http://user:s3cret@127.0.0.1/" }`,
		`tracing: { otlp: "ftp://127.0.0.1/#s3cret" }`,
		`catalog: { forward_auth: ["ftp://127.0.0.1/?s3cret"] }`,
		`routes: [{ service: a, basic_auth: { users: ["ann:s3cret"] } }]`,
		`routes: [{ service: a, forward_auth: { url: "127.0.0.1/?s3cret" } }]`,
		`routes: [{ service: a, jwt: { jwks_url: "127.0.0.1/?s3cret", issuer: i, audiences: [a] } }]`,
		`routes: [{ service: a, rewrite: { regexp: ".*", to: "x?s3cret" } }]`,
		`routes: [{ service: a, request_headers: { set: { X-A: "s3cret $unknown" } } }]`,
		`consul: { addresses: ["https://s3cret@127.0.0.1:8500/?x"] }`,
		`consul: { register: { check: { url: "http://user:s3cret@127.0.0.1/" } } }`,
		`consul: { register: { check: { type: http, url: "127.0.0.1/readyz?key=s3cret" } } }`,
		`consul: { register: { check: { type: ttl, url: "http://127.0.0.1/readyz?key=s3cret" } } }`,
		"consul: { tls: { key: \"-----BEGIN PRIVATE KEY-----\\ns3cret\\n-----END PRIVATE KEY-----\" } }",
		`services: { a: { peers: ["127.0.0.1:1"], health: { active: { path: "health?token=s3cret" } } } }`,
		`services: { a: { peers: ["127.0.0.1:1"], health: { active: { headers: ["Authorization Bearer s3cret"] } } } }`,
		`services: { a: { peers: ["127.0.0.1:1"], health: { active: { type: tcp, send: "s3cret\x" } } } }`,
		`services: { a: { peers: ["127.0.0.1:1"], health: { active: { send: "s3cret" } } } }`,
	} {
		_, err := Parse("sluice.yaml", []byte(text+"\n"+strings.TrimPrefix(tail, "\n")))
		if err == nil {
			_, err = Parse("sluice.yaml", []byte(text))
		}
		all := new(Errors)
		verify.That(t, err != nil && errors.As(err, all) && !strings.Contains(err.Error(), "s3cret"), "%s: %v", text, err)
	}
}

// shown are the keys with names as of credentials whose values are shown nevertheless, and why.
var shown = map[string]string{
	"admin.tls.key": aPath, "consul.tls.key": aPath, "listeners[].tls.certificates[].key": aPath, "listeners[].tls.ticket_keys": aPath,
	"listeners[].tls.acme.encryption_keys[]": aPath, "dynamic[].etcd.tls.key": aPath, "services.NAME.etcd.tls.key": aPath,
	"services.NAME.upstream.tls.key": aPath, "services.NAME.health.active.tls.key": aPath,

	"dynamic[].consul_kv.key": "a name in Consul", "services.NAME.consul_kv.key": "a name in Consul",
	"services.NAME.consul.leader.key": "a name in Consul", "services.NAME.etcd.key": "a name in etcd",

	"services.NAME.balance.hash.keys[]": "what of a request counts", "routes[].rate_limit.key": "what of a request counts",

	"routes[].when.header.NAME":                "it chooses a route, and the page, logs and errors name routes by it: docs/routes.md says that it is shown",
	"routes[].direct_response.headers.NAME":    "every client gets it",
	"listeners[].tls.client_auth":              "one of a few words",
	"routes[].host_header":                     "the name of a host",
	"routes[].jwt.headers.NAME":                "the name of a claim",
	"routes[].forward_auth.response_headers[]": aName, "routes[].request_headers.remove[]": aName, "routes[].response_headers.remove[]": aName,
	"routes[].forward_auth.client_headers[]": aName, "routes[].forward_auth.cache[]": aName, "routes[].forward_auth.decides[]": "one of a few words",
	"routes[].cors.allow_headers[]": aName, "routes[].cors.expose_headers[]": aName,
	"routes[].basic_auth.realm": "every client gets it",
}

const (
	aPath = "the path of a file"
	aName = "the name of a field"
)

// A key whose name or format suggests a credential has a type that masks it.
func TestKeysOfCredentialsAreMasked(t *testing.T) {
	name := regexp.MustCompile(`(^|[._])(token|secret|passw|passphrase|credential|key|header|auth|send|url)`)
	formats := []string{"http_url", "consul", "etcd", "check_path", "header", "escaped"}
	masked, used := 0, make(map[string]bool)
	var walk func(typ reflect.Type, tag reflect.StructTag, key string)
	walk = func(typ reflect.Type, tag reflect.StructTag, key string) {
		switch decoding.Kind(typ) {
		case reflect.Pointer:
			walk(typ.Elem(), tag, key)
		case reflect.Slice:
			walk(typ.Elem(), tag, key+"[]")
		case reflect.Map:
			walk(typ.Elem(), tag, key+".NAME")
		case reflect.Struct:
			for _, f := range decoding.Fields(typ) {
				if typ == reflect.TypeFor[Defaults]() || typ == reflect.TypeFor[NamedActions]() && len(f.Index) > 1 {
					continue // as of services and routes
				}
				if f.Type != reflect.PointerTo(typ) && f.Type != reflect.SliceOf(typ) {
					walk(f.Type, f.Tag, decoding.Join(key, f.Tag.Get("key")))
				}
			}
		case reflect.String:
			text := typ
			if typ.Kind() == reflect.Struct && typ.NumField() > 1 { // a Parsed
				text = typ.Field(0).Type
			}
			switch {
			case !name.MatchString(key) && !slices.Contains(formats, tag.Get("format")), strings.HasSuffix(key, "_file"):
			case text == reflect.TypeFor[Secret]() || text == reflect.TypeFor[Location]():
				masked++
			default:
				used[key] = true
				verify.That(t, shown[key] != "", "%s is a %s, which is shown", key, typ)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "", "")
	verify.That(t, masked >= 19, "%d keys are masked", masked)
	for key := range shown {
		verify.That(t, used[key], "shown has %s, which is not needed", key)
	}
}

func TestEncodedConfigurationLoadsAgain(t *testing.T) {
	c := mustParse(t, "consul: { token: s3cret }"+tail)
	masked := verify.Result(yaml.Marshal(schema.Encode(*c, true))).Must(t)
	asJSON := verify.Result(c.MarshalJSON()).Must(t)
	want := *c
	want.Consul.Token = units.NewSecret("***")
	for _, text := range []string{string(masked), string(asJSON)} { // JSON is YAML
		verify.That(t, !strings.Contains(text, "s3cret") && strings.Contains(text, `***`), "shown: %s", text)
		got := mustParse(t, text)
		verify.That(t, reflect.DeepEqual(withoutOrigins(got), withoutOrigins(&want)), "got  %+v\nwant %+v", got, want)
	}
}
