package config

import (
	"fmt"
	"regexp"
	"slices"
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

// fuzzedTree returns a tree in Consul: text has documents and short forms, each after a line
// "== KEY".
func fuzzedTree(text string) Source {
	s := Source{Name: "consul_kv:sluice/", Kind: KindConsulKV}
	for part := range strings.SplitSeq("\n"+text, "\n== ") {
		key, value, _ := strings.Cut(part, "\n")
		if key == "" || slices.ContainsFunc(s.Documents, func(d Document) bool { return d.Name == "consul_kv:sluice/"+key }) {
			continue
		}
		s.Documents = append(s.Documents, TreeDocument(KindConsulKV, "sluice/"+key, key, value))
	}
	return s
}

// FuzzDocuments: no tree makes a build panic, each line of an error names a document, its line
// and, but for errors of the YAML parser, a key. A refused tree leaves what is used as it is. An
// accepted one is the same when it is built again from kept documents, and when it is written
// as one document.
func FuzzDocuments(f *testing.F) {
	f.Add("== a.yaml\nservices: { a: { peers: ['127.0.0.1:1'] } }\nroutes: [{ path: /a, service: a }]\n== services/b\n10.0.0.1:80 weight=3\n10.0.0.2:80\n")
	f.Add("== a.json\n{\"services\": {\"a\": {\"peers\": [\"127.0.0.1:1\"]}},\n \"routes\": [{\"path\": \"/a\", \"service\": \"star\", \"when\": {\"any\": [{\"header\": {\"X\": \"~a\"}}]}}]}")
	f.Add("== a.yaml\nroutes: [{ path: /, service: star }]\n== b.yaml\nroutes: [{ path: /b, service: b }, { path: /b, service: b }]")
	f.Add("== a.yaml\nservices: { star: { peers: ['127.0.0.1:2'] }, c: { consul: {}, groups: { g: { tags: [x] } } } }\nroutes: [{ path: /c, service: c, split: { g: 5%, key: client_address } }]")
	f.Add("== a.yaml\nlisteners: []\nservices: { a: &a { <<: *a }, b: { peers: [x] } }")
	f.Add("== a.yaml\nservices: &s\n  a: &p { peers: ['127.0.0.1:1'] }\n  a.b: *p\nroutes:\n- &r { path: /a, service: a, rate_limit: { rate: 1 } }\n- { <<: *r, path: /b }")
	f.Add("== a.yaml\n? [a]\n: b\n--- \n...\n== services/\n== services/x/y\nz\n== other\n")
	f.Add("== a.yaml\nroutes:\n- { path: '^/(', match: regexp, service: star }\n- { host: '*', path: /x, service: gone }\n-\n- null\n- { path: /x, methods: [get], listeners: [nope], service: star }")
	f.Add("== a.yaml\n\"\\0\": 1\nservices: { \"a\\nb\": 1, 'a[0].b': 2 }\nroutes: 7")
	f.Add("== a.json\n{\"\": 0}")

	main := file("dynamic: [{ consul_kv: { prefix: sluice } }]\nservices: { star: { peers: ['127.0.0.1:9'] } }\nroutes: [{ path: /star, service: star }]\n")
	good := keys("good.yaml", "services: { good: { peers: ['127.0.0.1:8'] } }\nroutes: [{ path: /good, service: good }]")
	f.Fuzz(func(t *testing.T, text string) {
		in := Input{File: "sluice.yaml", Decoded: new(Decoded)}
		before := verify.Result(in.Build([]Source{main, good})).Must(t)
		tree := fuzzedTree(text)
		built, err := in.Build([]Source{main, tree})
		_, later := in.Build([]Source{main, tree})
		verify.Require(t, fmt.Sprint(later) == fmt.Sprint(err), "first %v\nthen %v", err, later)
		if err != nil {
			for _, e := range err.(Errors) {
				i := slices.IndexFunc(tree.Documents, func(d Document) bool { return strings.HasPrefix(e.Origin, d.Name) })
				whole := strings.HasPrefix(e.Want, "not valid YAML") || strings.HasPrefix(e.Want, "want a key that ends in") ||
					strings.HasPrefix(e.Want, "empty: want") || strings.HasPrefix(e.Want, "a second document") || strings.HasPrefix(e.Want, "want a mapping of keys") ||
					strings.HasPrefix(e.Want, "want a name before") || strings.HasPrefix(e.Want, "tag ") || strings.HasPrefix(e.Want, "an alias within") || strings.HasPrefix(e.Want, "aliases add")
				verify.That(t, i >= 0 && !strings.Contains(e.Error(), "\n") && (e.Key != "" || whole), "error %q does not name its place: document %d, key %q", e, i, e.Key)
				verify.That(t, endsWithLine(e.Origin) || whole, "error %q has no line", e)
			}
			after, err := in.Build([]Source{main, good})
			verify.That(t, err == nil && Identical(after.Config, before.Config), "after a refused tree %+v, %v", after, err)
			return
		}
		c := built.Config
		if again, err := in.Build([]Source{main, tree}); err != nil || !Identical(again.Config, c) {
			t.Errorf("again %+v, %v", again, err)
		}
		written := verify.Result(yaml.Marshal(schema.Encode(parts{c.Services, c.Routes}, false))).Must(t)
		one := file("dynamic: [{ consul_kv: { prefix: sluice } }]\n" + string(written))
		again, err := in.Build([]Source{one})
		verify.Require(t, err == nil, "%v\nwritten:\n%s", err, written)
		c.Services = asInFile(c.Services)
		verify.That(t, Equal(again.Config, c) && again.Hash() == built.Hash(), "again %+v\nfirst %+v\nwritten:\n%s", again.Config, c, written)
	})
}

var endsWithLine = regexp.MustCompile(`:[1-9][0-9]*$`).MatchString
