package config

import (
	"reflect"
	"strings"
	"testing"

	"sluice/tags"
	"sluice/test/verify"
)

func TestDecodeRoute(t *testing.T) {
	r := verify.Result(DecodeRoute(tags.Keys{
		"host": "h", "path": "/api", "match": "string_prefix", "strip_prefix": "/api", "listeners": []string{"web"},
		"when":  tags.Keys{"header": tags.Keys{"x-a": "1"}, "any": []tags.Keys{{"scheme": "https"}}},
		"retry": tags.Keys{"attempts": "3"},
	}, ByTag, nil)).Must(t)
	verify.That(t, r.Host == "h" && r.Match == "string_prefix" && r.StripPrefix == "/api" && r.When.Header["x-a"] == "1" &&
		r.When.Any[0].Scheme == "https" && *r.Retry.Attempts == 3 && r.Listeners[0] == "web", "the route is %+v", r)
	r, err := DecodeRoute(tags.Keys{"path": "/"}, ByTag, nil)
	verify.That(t, err == nil && r.Match == "prefix", "without more keys: %+v, %v: want the defaults", r, err)
	for _, test := range []struct {
		keys tags.Keys
		want string
	}{
		{tags.Keys{"colour": "red"}, "colour: unknown key"},
		{tags.Keys{"strp": "/x"}, `strp: unknown key, did you mean "strip"? (allowed here: host, `},
		{tags.Keys{"strp": "/x"}, `, compress, add, code, listener, method, strip, timeout)`},
		{tags.Keys{"when": tags.Keys{"meth": "GET"}}, `when.meth: unknown key (allowed here: header, query, cookie, scheme, client, client_certificates, not, any)`},
		{tags.Keys{"strip_prefix": "api"}, `strip_prefix: value "api": must start with a slash`},
		{tags.Keys{"match": "glob"}, "match: value"},
		{tags.Keys{"when": tags.Keys{"colour": "red"}}, "when.colour: unknown key"},
		{tags.Keys{"when": "x"}, "when: want a mapping"},
		{tags.Keys{"redirect": tags.Keys{"to": "javascript:x"}}, "redirect.to"},
		// A text is never more than a text.
		{tags.Keys{"<<": tags.Keys{"host": "h"}}, "unknown key"},
		{tags.Keys{"path": "/\nhost: other"}, ""},
		{tags.Keys{"host": "&a *a"}, ""},
	} {
		r, err := DecodeRoute(test.keys, ByTag, nil)
		if err == nil && (test.want != "" || r.Host == "other") || err != nil && (!strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %+v, the error is %v, want %q", test.keys, r, err, test.want)
		}
	}
}

// Only sluice's own tags have the short keys.
func TestShortKeysAreNoKeysOfDocuments(t *testing.T) {
	_, err := DecodeRoute(tags.Keys{"strp": "/x"}, ByDocument, nil)
	verify.That(t, err != nil && strings.HasSuffix(err.Error(), ", compress)"), "the error is %v", err)
}

func TestDecodeService(t *testing.T) {
	c := mustParse(t, "catalog: { tags: [fabio] }")
	found, _ := c.Found([]string{"star"}, "")
	star := found.Services["star"]
	s := verify.Result(DecodeService(star, tags.Keys{
		"upstream": tags.Keys{"protocol": "h2", "tls": tags.Keys{"server_name": "s"}},
		"balance":  tags.Keys{"policy": "sticky", "sticky": tags.Keys{"cookie": "c"}},
		"health":   tags.Keys{"active": tags.Keys{"type": "http", "path": "/up", "interval": "5s"}},
	}, c)).Must(t)
	verify.That(t, s.Upstream.Protocol == ProtocolH2 && s.Upstream.TLS.ServerName == "s" && s.Balance.Sticky.Cookie == "c" &&
		s.Health.Active.Path.Reveal() == "/up" && s.Consul.Service == "star" && s.Retry == star.Retry, "the service is %+v", s)
	same, err := DecodeService(star, tags.Keys{"upstream": tags.Keys{}}, c)
	verify.That(t, err == nil && reflect.DeepEqual(same, star), "without settings: %+v, %v, want %+v", same, err, star)
	for want, keys := range map[string]tags.Keys{
		"retry: a tag cannot set this: want it in the file (allowed here: balance, upstream, proxy_protocol, health)": {"retry": tags.Keys{"attempts": "3"}},
		"upstream.protocol": {"upstream": tags.Keys{"protocol": "h2"}}, // without tls
		`health.active.timeout: value "300s": a tag cannot set this: want 1ms to 10s: only the file sets a longer timeout of a check`: {"health": tags.Keys{"active": tags.Keys{"timeout": "300s"}}},
		`health.active.timeout: value "soon"`: {"health": tags.Keys{"active": tags.Keys{"timeout": "soon"}}},
		"balance.policy: value":               {"balance": tags.Keys{"policy": "magic"}},
	} {
		_, err := DecodeService(star, keys, c)
		verify.That(t, err != nil && strings.Contains(err.Error(), want), "%s: the error is %v, want %q", keys, err, want)
	}
}

func TestClaimedHosts(t *testing.T) {
	for host, ok := range map[string]bool{
		"*": true, "h": true, "*.example.com": true, "{service}.example.com": true, "*.{service}.example.com": true,
		"a.*.com": false, "*x.com": false, "h/": false, "h:80": false, "a b": false,
	} {
		verify.Equal(t, isClaimedHost(host), ok, "%q", host)
	}
}
