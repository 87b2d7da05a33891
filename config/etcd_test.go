package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/certificates"
	"sluice/config/units"
	"sluice/test/verify"
)

func TestEtcdService(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	verify.NoError(t, os.WriteFile(password, []byte("secret\n"), 0o600))
	c := mustParse(t, `
services:
  star: { etcd: { endpoints: ["http://127.0.0.1:2379"], prefix: /nodes/ } }
  moon:
    etcd:
      endpoints: ["https://a.example:2379", "https://b.example:2379"]
      key: /moon/ip_port
      user: sluice
      password_file: `+password+`
      tls: { ca: ca.pem, cert: c.pem, key: k.pem, server_name: etcd, skip_verify: true }
      probation: 0s
routes: [{ service: star }]`)
	want := &EtcdService{EtcdCluster: EtcdCluster{Endpoints: []Location{units.NewLocation("http://127.0.0.1:2379")}}, Prefix: "/nodes/", Probation: 10 * time.Minute}
	verify.DeepEqual(t, c.Services["star"].Etcd, want, "star")
	want = &EtcdService{Key: "/moon/ip_port", EtcdCluster: EtcdCluster{
		Endpoints: []Location{units.NewLocation("https://a.example:2379"), units.NewLocation("https://b.example:2379")},
		User:      "sluice", PasswordFile: password, TLS: &certificates.ClientTLS{CA: "ca.pem", Cert: "c.pem", Key: "k.pem", ServerName: "etcd", SkipVerify: true},
	}}
	verify.DeepEqual(t, c.Services["moon"].Etcd, want, "moon")
}

func TestEtcdRefusals(t *testing.T) {
	for etcd, want := range map[string]string{
		`{ prefix: / }`: "etcd.endpoints: required",
		`{ endpoints: ["127.0.0.1:2379"], prefix: / }`:                              "want http://HOST:PORT or https://HOST:PORT",
		`{ endpoints: ["http://h"], prefix: / }`:                                    "want http://HOST:PORT",
		`{ endpoints: ["http://h:1/x"], prefix: / }`:                                "want http://HOST:PORT",
		`{ endpoints: ["http://h:1"] }`:                                             `services.star.etcd: want either prefix, such as "/nodes/", or key`,
		`{ endpoints: ["http://h:1"], prefix: /a/, key: /b }`:                       `services.star.etcd: want either prefix`,
		`{ endpoints: ["http://h:1"], key: /b/ }`:                                   "does not end with a slash",
		`{ endpoints: ["http://h:1", "https://h:2"], prefix: / }`:                   "want http or https for all endpoints",
		`{ endpoints: ["http://h:1"], prefix: /, user: u }`:                         "give both user and password_file, or neither",
		`{ endpoints: ["http://h:1"], prefix: /, user: u, password_file: /none/x }`: "password_file: value \"/none/x\": cannot be read",
		`{ endpoints: ["http://h:1"], prefix: /, tls: {} }`:                         "only with endpoints that begin with https://",
		`{ endpoints: ["https://h:1"], prefix: /, tls: { cert: c.pem } }`:           "give both cert and key, or neither",
	} {
		_, err := Parse("sluice.yaml", []byte("services:\n  star:\n    etcd: "+etcd+"\nroutes: [{ service: star }]"))
		verify.That(t, err != nil && strings.Contains(err.Error(), want) && strings.HasPrefix(err.Error(), "sluice.yaml:3: "), "%s: %v, want sluice.yaml:3: … %s", etcd, err, want)
	}
}

func TestDynamicEtcd(t *testing.T) {
	in := Input{File: "sluice.yaml"}
	text := `dynamic:
- etcd: { endpoints: ["http://127.0.0.1:2379"], prefix: /test/ }
- etcd: { endpoints: ["http://127.0.0.1:2379"], prefix: / }
- etcd: { endpoints: ["http://127.0.0.1:2379"], prefix: teams/a, service: shop }
`
	built := verify.Result(in.Build([]Source{in.FileSource(text)})).Must(t)
	var names []string
	for _, y := range built.Config.Dynamic {
		names = append(names, y.Name()+" "+y.Etcd.Service)
	}
	verify.DeepEqual(t, names, []string{"etcd:/test/ test", "etcd:/ etcd", "etcd:teams/a shop"}, "names")
	doc := built.Config.Dynamic[0].Etcd.Instances()
	built = verify.Result(in.Build([]Source{in.FileSource(text), {Name: "etcd:/test/", Kind: KindEtcd, Documents: []Document{doc}}})).Must(t)
	s := built.Config.Services["test"].Etcd
	verify.That(t, s != nil && s.Prefix == "/test/" && s.Probation == 10*time.Minute && len(built.Config.Routes) == 1, "%+v, routes %+v", s, built.Config.Routes)
	for settings, want := range map[string]string{
		`dynamic: [{ etcd: { endpoints: ["http://h:1"] } }]`:                                "dynamic[0].etcd: want either prefix, of instances, or documents",
		`dynamic: [{ etcd: { endpoints: ["http://h:1"], prefix: /a/, documents: /b/ } }]`:   "dynamic[0].etcd: want either prefix, of instances, or documents",
		`dynamic: [{ etcd: { endpoints: ["http://h:1"], documents: /b/, service: shop } }]`: "dynamic[0].etcd.service: value \"shop\": only with prefix",
	} {
		refuses(t, settings, want)
	}
}

// No key is of a document and of an instance, since who may write instances may not write
// documents.
func TestEtcdDocumentsHaveAPrefixOfTheirOwn(t *testing.T) {
	const documents = "dynamic: [{ etcd: { endpoints: [\"http://h:1\"], documents: %s } }, { etcd: { endpoints: [\"http://h:1\"], prefix: /apps/ } }]\n" +
		"services: { shop: { etcd: { endpoints: [\"http://h:1\"], prefix: /shop/ } }, one: { etcd: { endpoints: [\"http://h:1\"], key: /one/node } } }\n"
	for prefix, other := range map[string]string{
		"/": "dynamic[1].etcd, /apps/", "/apps/": "dynamic[1].etcd, /apps/", "/apps/config/": "dynamic[1].etcd, /apps/", "/ap": "dynamic[1].etcd, /apps/",
		"/shop/config/": "services.shop.etcd, /shop/", "/sh": "services.shop.etcd, /shop/", "/one/": "services.one.etcd, /one/node",
	} {
		refuses(t, fmt.Sprintf(documents, prefix), "dynamic[0].etcd.documents: value \""+prefix+"\": has keys in common with "+other)
	}
	c := mustParse(t, fmt.Sprintf(documents, "/config/")+"routes: [{ service: shop }]")
	verify.Equal(t, c.Dynamic[0].Name(), "etcd:/config/", "name")
}
