package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sluice/test/verify"
)

// file returns the configuration file of a test as a source.
func file(text string) Source { return Input{File: "sluice.yaml"}.FileSource(text) }

// keys returns the tree below sluice/ in Consul. pairs alternates keys and values.
func keys(pairs ...string) Source {
	s := Source{Name: "consul_kv:sluice/", Kind: KindConsulKV}
	for i := 0; i < len(pairs); i += 2 {
		s.Documents = append(s.Documents, TreeDocument(KindConsulKV, "sluice/"+pairs[i], pairs[i], pairs[i+1]))
	}
	return s
}

// files returns the files routes.d/*.yaml. pairs alternates names and texts.
func files(pairs ...string) Source {
	s := Source{Name: "routes.d/*.yaml", Kind: KindFile}
	for i := 0; i < len(pairs); i += 2 {
		s.Documents = append(s.Documents, Document{Name: "routes.d/" + pairs[i], Text: pairs[i+1]})
	}
	return s
}

func build(sources ...Source) (*Built, error) { return Input{File: "sluice.yaml"}.Build(sources) }

const dynamicFile = `dynamic: [{ file: "routes.d/*.yaml" }, { consul_kv: { prefix: sluice } }]
`

func TestDocumentsOfAllSourcesMakeOneConfiguration(t *testing.T) {
	b := verify.Result(build(
		file(dynamicFile+"services: { a: { peers: ['127.0.0.1:1'] } }\nroutes: [{ service: b }]"),
		files("b.yaml", "services: { b: { peers: ['127.0.0.1:2'], timeouts: { connect: 2s } } }\nroutes: [{ path: /c, service: c }]"),
		keys("services/c", "127.0.0.1:3\n\n 127.0.0.1:4 weight=2 \n", "x.json", `{"routes": [{"path": "/a", "service": "a"}]}`),
	)).Must(t)
	want := mustParse(t, `services:
  a: { peers: ['127.0.0.1:1'] }
  b: { peers: ['127.0.0.1:2'], timeouts: { connect: 2s } }
  c: { peers: ['127.0.0.1:3', '127.0.0.1:4 weight=2'] }
routes: [{ service: b }, { path: /c, service: c }, { path: /a, service: a }]
`)
	verify.That(t, b.Config.Services["c"].ByDocument && !b.Config.Services["a"].ByDocument && !b.Config.Services["b"].ByDocument, "only c is of a document of a registry")
	verify.That(t, reflect.DeepEqual(asInFile(b.Config.Services), want.Services) && reflect.DeepEqual(routesWithoutOrigins(b.Config.Routes), routesWithoutOrigins(want.Routes)), "got  %+v\nwant %+v", b.Config, want)
	for i, origin := range []string{"sluice.yaml:3", "routes.d/b.yaml:2", "consul_kv:sluice/x.json:1"} {
		verify.Equal(t, b.Config.Routes[i].Origin, origin, "route %d is from", i)
	}
	verify.That(t, !b.whole.incomplete && len(b.Shadowed) == 0, "incomplete: %t, shadowed %v", b.whole.incomplete, b.Shadowed)
}

// Each error names its document and line.
func TestErrorsInDocuments(t *testing.T) {
	const good = "services: { a: { peers: ['127.0.0.1:1'] } }\nroutes: [{ service: a }]\n"
	for what, test := range map[string]struct {
		sources []Source
		want    []string // beginnings of the errors
	}{
		"unknown key":               {[]Source{keys("a.yaml", "\nservices: { b: { peer: x } }")}, []string{`consul_kv:sluice/a.yaml:2: services.b.peer: unknown key, did you mean "peers"?`}},
		"key of the file":           {[]Source{keys("a.yaml", "routes: []\nlisteners: []")}, []string{"consul_kv:sluice/a.yaml:2: listeners: only in the configuration file (allowed here: services, routes)"}},
		"a file":                    {[]Source{keys("a.yaml", "services:\n  b: { file: /etc/passwd }")}, []string{`consul_kv:sluice/a.yaml:2: services.b.file: value "/etc/passwd": a document cannot set this: want it in the file (allowed here: consul, dns, peers,`}},
		"a password":                {[]Source{keys("a.yaml", "services:\n  b: { etcd: { endpoints: ['http://127.0.0.1:1'], prefix: /x/, user: root, password_file: /etc/passwd } }")}, []string{"consul_kv:sluice/a.yaml:2: services.b.etcd: a document cannot set this: want it in the file"}},
		"a key of sluice":           {[]Source{keys("a.yaml", "services: { b: { peers: ['127.0.0.1:1'], upstream: { tls: { cert: /c, key: /k } } } }")}, []string{`consul_kv:sluice/a.yaml:1: services.b.upstream.tls.cert: value "/c": a document cannot set this: want it in the file (allowed here: server_name, skip_verify)`, `consul_kv:sluice/a.yaml:1: services.b.upstream.tls.key: value "/k": a document cannot set this`}},
		"users":                     {[]Source{keys("a.yaml", "routes: [{ path: /x, service: a, basic_auth: { users_file: /etc/passwd } }]")}, []string{"consul_kv:sluice/a.yaml:1: routes[0].basic_auth: a document cannot set this"}},
		"memory":                    {[]Source{keys("a.yaml", "routes: [{ path: /x, service: a, retry: { body: 16MiB } }]")}, []string{`consul_kv:sluice/a.yaml:1: routes[0].retry.body: value "16MiB": a document cannot set this: want it in the file (allowed here: attempts, per_try_timeout)`}},
		"who the client is":         {[]Source{keys("a.yaml", "routes: [{ path: /x, service: a, request_headers: { set: { X-User: a, X_Forwarded.Client-Cert: b } } }]")}, []string{`consul_kv:sluice/a.yaml:1: routes[0].request_headers.set.X_Forwarded.Client-Cert: value "***": a document cannot set this: want another field`}},
		"a socket":                  {[]Source{keys("services/b", "127.0.0.1:9\nunix:/run/docker.sock")}, []string{`consul_kv:sluice/services/b:2: services.b.peers[1]: value "unix:/run/docker.sock": a document cannot set this: want "HOST:PORT"`}},
		"not YAML":                  {[]Source{keys("a.yaml", "a: [\n")}, []string{"consul_kv:sluice/a.yaml:"}},
		"not a mapping":             {[]Source{keys("a.json", "[]")}, []string{"consul_kv:sluice/a.json:1: want a mapping"}},
		"no such service":           {[]Source{files("b.yaml", "routes:\n - { path: /x, service: aa }"), keys()}, []string{`routes.d/b.yaml:2: routes[0].service: value "aa": no such service, did you mean "a"?`}},
		"twice in files":            {[]Source{files("b.yaml", "\nservices: { a: { peers: ['127.0.0.1:9'] } }")}, []string{"routes.d/b.yaml:2: services.a: the same as services.a at sluice.yaml:2"}},
		"twice in a tree":           {[]Source{keys("b.yaml", "services: { b: { peers: ['127.0.0.1:9'] } }", "services/b", "127.0.0.1:9")}, []string{"consul_kv:sluice/services/b:1: services.b: the same as services.b at consul_kv:sluice/b.yaml:1"}},
		"route twice":               {[]Source{keys("b.yaml", "routes: [{ path: /x, service: a }]", "c.yaml", "routes:\n- { path: /x/, service: a }")}, []string{"consul_kv:sluice/c.yaml:2: routes[0]: the same as routes[0] at consul_kv:sluice/b.yaml:1"}},
		"route twice in a document": {[]Source{keys("b.yaml", "routes: [{ path: /x, service: a }, { path: /x, service: a }]")}, []string{`consul_kv:sluice/b.yaml:1: routes[1]: value "/x": the same as routes[0]`}},
		"unknown short form":        {[]Source{keys("service/b", "127.0.0.1:9")}, []string{"consul_kv:sluice/service/b:1: want a key that ends in .yaml, .yml or .json, or services/NAME"}},
		"empty short form":          {[]Source{keys("services/b", " \n")}, []string{"consul_kv:sluice/services/b:1: empty: want the addresses of peers"}},
		"wrong peer":                {[]Source{keys("services/b", "127.0.0.1:9\nx")}, []string{`consul_kv:sluice/services/b:2: services.b.peers[1]: value "x"`}},
		"name of a short form":      {[]Source{keys("services/b b", "127.0.0.1:9")}, []string{`consul_kv:sluice/services/b b:1: services.b b: value "b b": want a name`}},
		"two sources":               {[]Source{keys("a.yaml", "x: 1"), files("a.yaml", "y: 1")}, []string{"routes.d/a.yaml:1: y: unknown key", "consul_kv:sluice/a.yaml:1: x: unknown key"}},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := build(append([]Source{file(dynamicFile + good)}, test.sources...)...)
			verify.Require(t, err != nil, "no error")
			got := strings.Split(err.Error(), "\n")
			verify.Require(t, len(got) == len(test.want), "got %d errors:\n%v\nwant %q", len(got), err, test.want)
			for i, want := range test.want {
				verify.That(t, strings.HasPrefix(got[i], want), "got  %s\nwant %s", got[i], want)
			}
		})
	}
}

// What a document may not set, files of dynamic may.
func TestFilesOfDynamicAreTheOperators(t *testing.T) {
	_, err := build(file(dynamicFile), files("a.yaml", "services: { a: { peers: ['unix:/run/a.sock'], upstream: { tls: { cert: /c, key: /k } } } }\nroutes: [{ service: a, retry: { body: 1MiB } }]"))
	verify.Succeeds(t, err)
}

// asInFile returns services as if the file defined all of them.
func asInFile(services map[string]Service) map[string]Service {
	all := maps.Clone(services)
	for name, s := range all {
		s.ByDocument = false
		all[name] = s
	}
	return all
}

func TestErrorsOfDynamicSources(t *testing.T) {
	for text, want := range map[string]string{
		"listeners: [{ name: w, address: ':443', tls: { acme: { names: [a.example], consul_kv: sluice/acme } } }]\ndynamic: [{ consul_kv: { prefix: sluice/ } }]": `dynamic[0].consul_kv.prefix: value "sluice/": has keys in common with listeners[0].tls.acme.consul_kv, sluice/acme`,
		"dynamic: [{}]": "dynamic[0]: want exactly one of file, consul_kv and etcd",
		"dynamic: [{ file: a, consul_kv: { key: b } }]":                          "dynamic[0]: want exactly one of file, consul_kv and etcd",
		"dynamic: [{ consul_kv: {} }]":                                           "dynamic[0].consul_kv: want exactly one of key and prefix",
		"dynamic: [{ consul_kv: { prefix: a } }]\nconsul: { shares: a/b }":       `dynamic[0].consul_kv.prefix: value "a/": has keys in common with consul.shares`,
		"dynamic: [{ consul_kv: { prefix: a/b/c } }]\nconsul: { shares: a/b }":   `dynamic[0].consul_kv.prefix: value "a/b/c/": has keys in common with consul.shares`,
		"dynamic: [{ consul_kv: { key: a, prefix: b } }]":                        "dynamic[0].consul_kv: want exactly one of key and prefix",
		"dynamic: [{ file: 'a*/b' }]":                                            `dynamic[0].file: value "a*/b": want the path of a file`,
		"dynamic: [{ file: '[' }]":                                               `dynamic[0].file: value "[": want the path of a file`,
		"dynamic: [{ file: sluice.yaml }]":                                       "this is the configuration file",
		"dynamic: [{ file: a.yaml }, { file: a.yaml }]":                          "the same as dynamic[0]",
		"dynamic: [{ consul_kv: { prefix: /a } }]":                               `dynamic[0].consul_kv.prefix: value "/a"`,
		"dynamic: [{ consul_kv: { prefix: a } }, { consul_kv: { prefix: a/ } }]": "the same as dynamic[0]",
	} {
		_, err := build(file(text))
		verify.That(t, err != nil && strings.Contains(err.Error(), want), "%s: got %v, want %s", text, err, want)
	}
}

// The file has precedence over Consul. What is hidden is told, with both places.
func TestHigherLevelsShadowLowerOnes(t *testing.T) {
	b := verify.Result(build(
		file(dynamicFile+"services: { a: { peers: ['127.0.0.1:1'] } }\nroutes: [{ service: a }]"),
		keys("a.yaml", "services:\n  a: { peers: ['127.0.0.1:9'] }\n  b: { peers: ['127.0.0.1:2'] }\nroutes:\n  - { service: b }\n  - { path: /b, service: b }"),
	)).Must(t)
	got := b.Config.Services["a"].Peers
	verify.That(t, got[0].Text == "127.0.0.1:1" && len(b.Config.Routes) == 2 && b.Config.Routes[0].Service == "a", "a has the peers %q, routes %+v", got, b.Config.Routes)
	want := []string{
		"consul_kv:sluice/a.yaml:2: services.a: not used: services.a at sluice.yaml:2 has precedence",
		"consul_kv:sluice/a.yaml:5: routes[0]: not used: routes[0] at sluice.yaml:3 has precedence",
	}
	verify.DeepEqual(t, strings.Split(b.Shadowed.Error(), "\n"), want, "result")
}

// While a source is not known, the services that it may define have no peers.
func TestServicesOfAnUnknownSourceAreAwaited(t *testing.T) {
	text := dynamicFile + "listeners: [{ address: ':1' }, { address: ':2', protocol: tcp, service: s }]\nroutes: [{ service: a }]"
	b := verify.Result(build(file(text), files())).Must(t)
	verify.That(t, b.whole.incomplete && len(b.Config.Routes) == 1, "incomplete: %t, routes %+v", b.whole.incomplete, b.Config.Routes)
	for _, name := range []string{"a", "s"} {
		s, ok := b.Config.Services[name]
		verify.That(t, ok && s.Consul == nil && s.Peers == nil && s.Retry.Attempts == 3, "service %s: %v %+v", name, ok, s)
	}
	_, err := build(file(text), files(), keys())
	verify.That(t, err != nil && strings.Contains(err.Error(), `sluice.yaml:3: routes[0].service: value "a": no such service`), "with all sources: %v", err)
}

// The settings for TCP of a service are checked and completed where it is defined.
func TestStreamServiceInADocument(t *testing.T) {
	const listeners = dynamicFile + "listeners: [{ address: ':2', protocol: tcp, service: s }]\n"
	b, err := build(file(listeners), files(), keys("services/s", "127.0.0.1:1"))
	verify.Require(t, err == nil && b.Config.Services["s"].Balance.Policy == defaultStreamPolicy, "%v, policy %+v", err, b)
	b, err = build(file(listeners), files(), keys("s.yaml", "services: { s: { peers: ['127.0.0.1:1'], balance: { policy: random } } }"))
	verify.Require(t, err == nil && b.Config.Services["s"].Balance.Policy == "random", "%v, policy %+v", err, b)
	_, err = build(file(listeners), files(), keys("s.yaml", "services:\n  s:\n    peers: ['127.0.0.1:1']\n    keepalive: { max: 1 }"))
	verify.That(t, err != nil && strings.HasPrefix(err.Error(), "consul_kv:sluice/s.yaml:4: services.s.keepalive: without effect"), "got %v", err)
}

// The hash says whether two replicas have the same configuration.
func TestCanonicalHash(t *testing.T) {
	hash := func(sources ...Source) string {
		t.Helper()
		b := verify.Result(build(sources...)).Must(t)
		return b.Hash()
	}
	const services = "services: { a: { peers: ['127.0.0.1:1'] }, b: { peers: ['127.0.0.1:2'] } }\n"
	want := hash(file(services + "routes: [{ service: a }]"))
	for _, same := range []string{
		"# A comment.\nroutes: [{ path: /, service: a }]\n" + services,
		services + "admin: { address: '127.0.0.1:7' }\nconsul: { addresses: ['http://127.0.0.1:7'], token: x }\nroutes: [{ service: a }]",
		"services: { b: { peers: ['127.0.0.1:2'] }, a: { peers: ['127.0.0.1:1'], timeouts: { connect: 1s } } }\nroutes: [{ service: a }]",
	} {
		verify.Equal(t, hash(file(same)), want, "%s", same)
	}
	for _, other := range []string{
		services + "routes: [{ service: b }]",
		services + "routes: [{ service: a, path: /a }]",
		services + "routes: [{ service: a }]\nconsul: { datacenter: x }",
		strings.Replace(services, "127.0.0.1:2", "127.0.0.1:3", 1) + "routes: [{ service: a }]",
	} {
		verify.That(t, hash(file(other)) != want, "%s: the same hash", other)
	}
	// Replicas on one machine differ in their addresses only.
	replica := func(port int, more string) string {
		return hash(file(fmt.Sprintf("listeners: [{ name: web, address: ':%d' }, { address: '127.0.0.1:%d'%s }]\n", port, port+1, more) +
			fmt.Sprintf("consul: { register: { port: %d } }\n", port) + services + "routes: [{ service: a }]"))
	}
	verify.Equal(t, replica(1000, ""), replica(2000, ""), "replicas on one machine have different hashes")
	verify.That(t, replica(1000, "") != replica(2000, ", http2: false"), "the hash of other settings of a listener is the same")
	one := hash(file(dynamicFile+services), files(), keys("a.yaml", "routes: [{ service: a }, { path: /b, service: b }]"))
	two := hash(file(dynamicFile+services), files(), keys("a.yaml", "routes: [{ service: a }]", "b.yaml", "routes: [{ path: /b, service: b }]"))
	verify.That(t, one == two, "in two documents %s, in one %s", two, one)
}

func TestLoadReadsDynamicFiles(t *testing.T) {
	dir := t.TempDir()
	verify.NoError(t, os.Mkdir(filepath.Join(dir, "routes.d"), 0o700))
	write(t, filepath.Join(dir, "sluice.yaml"), "dynamic: [{ file: '"+dir+"/routes.d/*.yaml' }]\nroutes: [{ service: a }]")
	write(t, filepath.Join(dir, "routes.d", ".a.yaml"), "not valid")
	write(t, filepath.Join(dir, "routes.d", "a.yaml"), "services: { a: { peers: ['127.0.0.1:1'] } }")
	in := Input{File: filepath.Join(dir, "sluice.yaml")}
	b, err := in.Load()
	verify.That(t, err == nil && len(b.Config.Services) == 1, "%+v, %v", b, err)

	// The errors of the file do not hide those of the documents.
	write(t, filepath.Join(dir, "wrong.yaml"), "dynamic: [{ file: '"+dir+"/routes.d/*.yaml' }]\nshutdwn: {}")
	write(t, filepath.Join(dir, "routes.d", "a.yaml"), "services: { a: { peers: ['127.0.0.1:1'], healt: {} } }")
	var errs Errors
	_, err = Input{File: filepath.Join(dir, "wrong.yaml")}.Load()
	verify.That(t, errors.As(err, &errs) && len(errs) == 2 && errs[0].Key == "shutdwn" && errs[1].Key == "services.a.healt", "got %v", err)

	verify.NoError(t, os.RemoveAll(filepath.Join(dir, "routes.d")))
	_, err = in.Load()
	verify.That(t, err != nil && strings.Contains(err.Error(), "no such file or directory"), "without the directory: %v", err)
}
