package imported

import (
	"testing"

	"sluice/test/verify"
)

// TOML has the same values as YAML.
func TestTOML(t *testing.T) {
	const inTOML = `[entryPoints.web]
address = ":80" # the port
[http.routers."a.b"]
rule = 'Host(` + "`a`" + `)'
entryPoints = [ "web",
  "x" ]
tls = {}
[http.middlewares.c.compress]
[http.services.s.loadBalancer]
passHostHeader = false
[[http.services.s.loadBalancer.servers]]
url = "http://10.0.0.1"
weight = 2
[[http.services.s.loadBalancer.servers]]
url = "http://10.0.0.2"
[[tls.certificates]]
certFile = "a"
[tls.certificates.more]
x = 1
[last]
`
	const inYAML = `entryPoints:
  web: { address: ":80" }
http:
  routers:
    a.b:
      rule: "Host(` + "`a`" + `)"
      entryPoints: [web, x]
      tls: {}
  middlewares: { c: { compress: {} } }
  services: { s: { loadBalancer: { passHostHeader: false, servers: [{ url: "http://10.0.0.1", weight: 2 }, { url: "http://10.0.0.2" }] } } }
tls: { certificates: [{ certFile: a, more: { x: 1 } }] }
last: {}
`
	got := verify.Result(leavesOf(File{"f.TOML", inTOML})).Must(t)
	want := verify.Result(leavesOf(File{"f.yml", inYAML})).Must(t)
	verify.Require(t, len(got) == len(want), "%v\nand not\n%v", got, want)
	for i := range want {
		verify.DeepEqual(t, got[i].path, want[i].path, "path %d", i)
		verify.DeepEqual(t, got[i].values, want[i].values, "values %d", i)
	}
	verify.Equal(t, got[2].at.Line, 5, "line of entryPoints")
	_, err := leavesOf(File{"f.toml", "a = ["})
	verify.That(t, err != nil, "wrong TOML has no error")
}

func FuzzTOML(f *testing.F) {
	f.Add("[a.b]\nc = [1, {d = 'x'}]\n[[a.e]]\n[[a.e]]\nf.g = true\n")
	f.Fuzz(func(t *testing.T, text string) {
		leaves, err := leavesOf(File{"f.toml", text})
		verify.That(t, err != nil || len(leaves) <= len(text)+1, "%d values", len(leaves))
	})
}
