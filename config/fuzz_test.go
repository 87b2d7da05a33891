package config

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/test/verify"
)

// FuzzParse: no text makes the loader panic, each line of an error begins with the name of
// the file, and an accepted configuration is the same after it is encoded and parsed.
func FuzzParse(f *testing.F) {
	f.Add(tail)
	f.Add("log: &a { <<: *a }" + tail)
	f.Add("services: &s { <<: [*s], a: *s }")
	f.Add("services: { a: &a { peers: ['[::1]:80 weight=7'], timeouts: { idle: 1.5h } }, b: *a }\nroutes: [{ host: '*.a', service: a }]")
	f.Add("access_log: { sample: 0x1p-2, path: '1' }\nconsul: { token: ~, wait: 61s, datacenter: 'true' }\nlisteners: [{ address: '[::]:0' }]" + tail)
	f.Add("services: { a: { peers: ['a:1'], health: { active: { type: tcp, send: '\\x00', tls: {}, expect: { regexp: '[a]' } }, passive: { latency: {} } } } }\nroutes: [{ service: a }]")
	f.Add("? [a, b]\n: - c\n---\n...")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f", []byte(text))
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				verify.That(t, strings.HasPrefix(line, "f:"), "line %q does not begin with the file", line)
			}
			return
		}
		written := verify.Result(yaml.Marshal(schema.Encode(*c, false))).Must(t)
		again, err := Parse("f", written)
		verify.Require(t, err == nil, "%v\nwritten:\n%s\nfrom:\n%s", err, written, text)
		verify.DeepEqual(t, withoutOrigins(again), withoutOrigins(c), "again %+v first %+v written: %s", again, c, written)
	})
}

func FuzzFormats(f *testing.F) {
	f.Add("a.b:80")
	f.Add("[::1]:0")
	f.Add("http://[::1]:8500/consul")
	f.Add("/a/../b")
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" {
			return
		}
		for _, format := range formats {
			format.OK(s)
		}
		if u, ok := consulURL(s, false); ok {
			again, ok := consulURL(u, false)
			verify.That(t, ok && again == u, "consulURL(%q) = %q, and of that %q, %v", s, u, again, ok)
		}
	})
}
