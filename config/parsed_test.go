package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestTypedTextsHideSecrets(t *testing.T) {
	header := typedList[Secret, [2]string]("header", "Authorization: s3cret")[0]
	verify.Equal(t, header.Value, [2]string{"Authorization", "s3cret"}, "value")
	encoded := verify.Result(json.Marshal([]Header{header})).Must(t)
	all := fmt.Sprintf("%v %+v %#v %s", header, struct{ List []Header }{[]Header{header}}, &header, encoded)
	verify.That(t, !strings.Contains(all, "s3cret") && strings.Contains(all, "***"), "%v", all)
}

// Each key with a value of its own has a format that makes such a value.
func TestTypedKeysHaveTheirFormat(t *testing.T) {
	for format, text := range map[string]string{
		"file_mode": "0660", "listen": ":80", "http_url": "http://h/", "network": "10.0.0.0/8", "proxy": "unix:", "media_type": "text/html", "encoding": "gzip", "level": "fast", "header": "A: b",
		"statuses": "2xx", "regexp": "^a", "escaped": `a\n`, "meta": "a=b", "catalog_meta": "a=b", "consul_meta": "a=b",
		"traefik_rule": "Host(`a`)", "hash_key": "path", "rate_key": "route",
	} {
		verify.That(t, formats[format].Parse != nil && formats[format].OK(text), "%s refuses %s", format, text)
	}
	c := mustParse(t, `
tracing: { headers: ["A: b"] }
client: { trusted_proxies: [10.0.0.0/8, "unix:"] }
admin: { address: "unix:/tmp/sluice-typed.sock", socket: { mode: "0660" } }
listeners: [{ name: web, address: ":1", proxy_protocol: { from: ["::1"] } }]
consul: { register: { meta: [a=b], check: { type: ttl } } }
catalog: { select: { meta: [a=b] }, traefik: { default_rule: "Host(`+"`a`"+`)" } }
services:
  star:
    peers: ["127.0.0.1:1"]
    balance: { policy: hash, hash: { keys: [path] }, tiers: [{ meta: [a=b] }] }
    health: { active: { headers: ["A: b"], expect: { status: 2xx, regexp: ^a } } }
  tcp: { peers: ["127.0.0.1:1"], health: { active: { type: tcp, send: 'a\n' } } }
routes:
  - { path: /, service: star, when: { client: [10.0.0.0/8] }, allow: [10.0.0.0/8], deny: ["::1"], rate_limit: { rate: 1, key: route }, compress: { encodings: [gzip], types: [text/html], level: fast } }
`)
	verify.Equal(t, string(c.Services["tcp"].Health.Active.Send.Value), "a\n", "the check sends")
}
