package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

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
routes: [{ service: a }]
`
	c := mustParse(t, text)
	shown := verify.Result(yaml.Marshal(encode(reflect.ValueOf(*c), true))).Must(t)
	asJSON := verify.Result(json.Marshal(c)).Must(t)
	parts := verify.Result(json.Marshal([]any{c.Consul, c.Services})).Must(t)
	for _, text := range []string{string(shown), string(asJSON), string(parts), fmt.Sprint(c.Consul, c.Services, *c.Consul.Register, c.Services["a"].Health.Active), fmt.Sprintf("%+v %#v", *c.Services["a"].Health.Active, *c.Services["b"].Health.Active)} {
		verify.That(t, !strings.Contains(text, "s3cret"), "shown: %s", text)
	}
	verify.That(t, strings.Contains(string(shown), "/health?***") && strings.Contains(string(shown), "http://127.0.0.1:8081/readyz?***"), "more than the query is masked: %s", shown)
}

func TestErrorsMaskCredentials(t *testing.T) {
	for _, text := range []string{
		`consul: { token: ["s3cret"] }`,
		`consul: { addresses: ["http://user:s3cret@127.0.0.1:8500"] }`,
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

// A new key whose name suggests a credential must be a Secret.
func TestKeysOfCredentialsAreSecrets(t *testing.T) {
	credential := regexp.MustCompile(`(?i)(^|[._])(token|secret|password|passphrase|credentials?|headers|send)(\[\])?$`)
	found := 0
	var walk func(typ reflect.Type, key string)
	walk = func(typ reflect.Type, key string) {
		switch kindIn(typ) {
		case reflect.Pointer:
			walk(typ.Elem(), key)
		case reflect.Slice:
			walk(typ.Elem(), key+"[]")
		case reflect.Map:
			walk(typ.Elem(), key+".NAME")
		case reflect.Struct:
			for _, f := range keyFields(typ) {
				if f.Type != reflect.PointerTo(typ) && f.Type != reflect.SliceOf(typ) {
					walk(f.Type, join(key, f.Tag.Get("key")))
				}
			}
		default:
			if credential.MatchString(key) && !strings.HasSuffix(key, ".response_headers[]") && !strings.Contains(key, ".cors.") { // those are names
				found++
				verify.That(t, typ == secretType || typ.Kind() == reflect.Struct && typ.Field(0).Type == secretType, "%s is a %s", key, typ)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
	verify.That(t, found >= 4, "only %d keys found", found)
}

func TestEncodedConfigurationLoadsAgain(t *testing.T) {
	c := mustParse(t, "consul: { token: s3cret }"+tail)
	shown := verify.Result(yaml.Marshal(encode(reflect.ValueOf(*c), true))).Must(t)
	asJSON := verify.Result(c.MarshalJSON()).Must(t)
	for _, text := range []string{string(shown), string(asJSON)} {
		verify.That(t, !strings.Contains(text, "s3cret") && strings.Contains(text, `***`), "shown: %s", text)
	}
	want := *c
	want.Consul.Token = "***"
	for _, text := range []string{string(shown), string(asJSON)} { // JSON is YAML
		got := mustParse(t, text)
		verify.That(t, reflect.DeepEqual(withoutOrigins(got), withoutOrigins(&want)), "got  %+v\nwant %+v", got, want)
	}
}
