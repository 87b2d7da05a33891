package config

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"sluice/test/verify"
)

// Whatever was built before, a build with kept documents gives the same configuration or the
// same errors as one without.
func TestDecodedDocumentsAreTheSame(t *testing.T) {
	random := rand.New(rand.NewPCG(12, 12))
	texts := []string{
		"services: { a: { peers: ['127.0.0.1:1'] } }\nroutes: [{ path: /a, service: a }]",
		"services: { a: { consul: { service: x } } }\nroutes:\n- { path: /a, service: a, rate_limit: { rate: 5 } }\n- { path: /b, service: a }",
		"services: { b: { peers: ['127.0.0.1:2'], groups: { g: { tags: [x] } } } }\nroutes: [{ path: /b, service: b, split: { g: 5% } }]",
		"routes: [{ path: /a, service: b, group: g }, { path: /c, listeners: [web], service: a }]",
		"routes: [{ path: '^/(', match: regexp, service: a }, { path: /d, service: missing }]",
		"services: { c: { peers: [wrong], color: red } }", "nonsense", "",
	}
	decoded := new(Decoded)
	valid := 0
	for round := range 500 {
		f := file(fmt.Sprintf("consul: { probation: %dm, datacenter: dc%d }\ndynamic: [{ consul_kv: { prefix: sluice } }, { file: a.yaml }]\nservices: { z: { peers: ['127.0.0.1:9'] } }",
			1+random.IntN(2), random.IntN(2)))
		sources := []Source{f, keys("1.yaml", texts[random.IntN(len(texts))], "2.yaml", texts[random.IntN(len(texts))])}
		if random.IntN(2) == 0 {
			sources = append(sources, Source{Name: "a.yaml", Kind: KindFile, Documents: []Document{{Name: "a.yaml", Text: texts[random.IntN(len(texts))]}}})
		}
		fresh, freshErr := Input{File: "sluice.yaml"}.Build(sources)
		kept, keptErr := Input{File: "sluice.yaml", Decoded: decoded}.Build(sources)
		verify.Require(t, fmt.Sprint(freshErr) == fmt.Sprint(keptErr), "round %d: errors\n%v\nwithout kept documents\n%v", round, keptErr, freshErr)
		if freshErr != nil {
			continue
		}
		valid++
		verify.Require(t, Identical(fresh.Config, kept.Config) && fresh.Hash() == kept.Hash() && fmt.Sprint(fresh.Shadowed) == fmt.Sprint(kept.Shadowed), "round %d: %+v\nwithout kept documents %+v", round, kept.Config, fresh.Config)
	}
	verify.That(t, valid >= 50 && valid != 500, "%d of 500 are valid", valid)
}

// A document that has not changed is not decoded again.
func TestUnchangedDocumentIsKept(t *testing.T) {
	in := Input{File: "sluice.yaml", Decoded: new(Decoded)}
	f := file("dynamic: [{ consul_kv: { prefix: sluice } }]")
	a := "services: { a: { peers: ['127.0.0.1:1'] } }\nroutes: [{ path: /a, service: a }]"
	var before *Config
	for round := range 3 {
		built := verify.Result(in.Build([]Source{f, keys("a.yaml", a, "b.yaml", fmt.Sprintf("routes: [{ path: /b%d, service: a }]", round))})).Must(t)
		c := built.Config
		verify.That(t, before == nil || c.Routes[0].checked == before.Routes[0].checked && c.Routes[1].checked != before.Routes[1].checked, "round %d: the changed document must be decoded again, and no other", round)
		before = built.Config
	}
}

// A document with an error is decoded again, as a file that it names may be there now.
func TestDocumentWithAnErrorIsNotKept(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	in := Input{File: "sluice.yaml", Decoded: new(Decoded)}
	text := fmt.Sprintf("services: { a: { etcd: { endpoints: ['http://127.0.0.1:1'], prefix: /a/, user: u, password_file: %q } } }", password)
	sources := []Source{
		file("dynamic: [{ file: a.yaml }]\nroutes: [{ service: a }]"),
		{Name: "a.yaml", Kind: KindFile, Documents: []Document{{Name: "a.yaml", Text: text}}},
	}
	_, err := in.Build(sources)
	verify.That(t, err != nil, "the missing file is no error")
	verify.NoError(t, os.WriteFile(password, []byte("secret"), 0o600))
	_, err = in.Build(sources)
	verify.NoError(t, err)
}
