package imported

import (
	"reflect"
	"testing"
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
	got, err := leavesOf(File{"f.TOML", inTOML})
	if err != nil {
		t.Fatal(err)
	}
	want, err := leavesOf(File{"f.yml", inYAML})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%v\nand not\n%v", got, want)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i].path, want[i].path) || !reflect.DeepEqual(got[i].values, want[i].values) {
			t.Errorf("%v, not %v", got[i], want[i])
		}
	}
	if line := got[2].at.Line; line != 5 {
		t.Errorf("entryPoints are in line %d, want 5", line)
	}
	if _, err := leavesOf(File{"f.toml", "a = ["}); err == nil {
		t.Error("wrong TOML has no error")
	}
}

func FuzzTOML(f *testing.F) {
	f.Add("[a.b]\nc = [1, {d = 'x'}]\n[[a.e]]\n[[a.e]]\nf.g = true\n")
	f.Fuzz(func(t *testing.T, text string) {
		leaves, err := leavesOf(File{"f.toml", text})
		if err == nil && len(leaves) > len(text)+1 {
			t.Errorf("%d values", len(leaves))
		}
	})
}
