package config

import (
	"testing"
	"time"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/route"
	"sluice/test/verify"
)

// withBalance is a service with the balance given in flow style.
func withBalance(text string) string {
	return "services: { star: { consul: {}, balance: " + text + " } }\nroutes: [{ service: star }]"
}

func TestBalanceReadsEveryKey(t *testing.T) {
	f := func(text string, change func(*Balance)) {
		t.Helper()
		want := defaultBalance
		change(&want)
		verify.DeepEqual(t, mustParse(t, withBalance(text)).Services["star"].Balance, want, "%s", text)
	}
	f("{}", func(*Balance) {})
	f("{ policy: hash }", func(b *Balance) { b.Policy, b.Hash.Keys = "hash", []HashKey{byClientAddress} })
	f(`{ policy: hash, hash: { keys: [header X-User, cookie sid, query q, path], bound: 0 } }`, func(b *Balance) {
		b.Policy, b.Hash = "hash", Hash{Keys: typedList[string, route.HashKey]("hash_key", "header X-User", "cookie sid", "query q", "path")}
	})
	f("{ tiers: [{ nodes: [local] }, { tags: [a, b], meta: [zone=eu] }], overprovisioning: 200%, subset: { size: 20, replica: 3, replicas: 4 } }", func(b *Balance) {
		b.Tiers = []Tier{{Nodes: []string{"local"}}, {Tags: []string{"a", "b"}, Meta: []Meta{{Text: "zone=eu", Value: [2]string{"zone", "eu"}}}}}
		b.Overprovisioning, b.Subset = 2, balancer.Subset{Size: 20, Replica: 3, Replicas: 4}
	})
	f(`{ policy: sticky, sticky: { cookie: __Host-p, path: /app, domain: example.com, max_age: 1h, secure: true, same_site: none, secret: x } }`, func(b *Balance) {
		b.Policy = "sticky"
		b.Sticky = Sticky{Cookie: "__Host-p", Path: "/app", Domain: "example.com", MaxAge: time.Hour, Secure: true, SameSite: "none", Secret: units.NewSecret("x")}
	})
}

func TestBalanceRefusals(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		refuses(t, withBalance(text), want)
	}
	f("{ hash: { keys: [path] } }", "services.star.balance.hash.keys: without effect: balance.policy is ewma, want hash")
	f("{ policy: hash, hash: { keys: [header] } }", `hash.keys[0]: value "header": want client_address, path, "header NAME"`)
	f("{ policy: hash, hash: { keys: [path, path] } }", `hash.keys[1]: value "path": given twice`)
	f("{ policy: hash, hash: { bound: 0.5 } }", `hash.bound: value "0.5": want 1 or more, or 0 for no bound`)
	f("{ tiers: [{ tags: [a] }, {}] }", "services.star.balance.tiers[1]: without a condition")
	f("{ tiers: [{ meta: [zone] }] }", `tiers[0].meta[0]: value "zone": want "KEY=VALUE"`)
	f("{ subset: { size: 20 } }", "subset.replicas: required with subset.size")
	f("{ subset: { size: 20, replica: 4, replicas: 4 } }", `subset.replica: value "4": want at most 3`)
	f("{ policy: hash, subset: { size: 20, replicas: 4 } }", `subset.size: value "20": not with policy hash`)
	f("{ tiers: [{ tags: [a] }, { tags: [a] }] }", "tiers[1]: the same as services.star.balance.tiers[0]")
	f("{ sticky: { same_site: none } }", `sticky.same_site: value "none": browsers drop such a cookie unless sticky.secure is true`)
	f("{ sticky: { cookie: 'a b' } }", "sticky.cookie")
	f("{ sticky: { path: '/; Domain=x' } }", "sticky.path")
	f(`{ sticky: { domain: "a\r\nb" } }`, "sticky.domain")
}
