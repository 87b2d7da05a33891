package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sluice/test/verify"
)

// choosing is the state of a process that follows sources.
type choosing struct {
	t    *testing.T
	used []Source
	c    *Config
}

// offer lets the sources say something, and returns the names of those that are refused.
func (p *choosing) offer(latest ...Source) (refused []string) {
	p.t.Helper()
	errs := ChooseDocuments(Wanted(latest, p.used), p.used, p.try)
	return slices.Sorted(maps.Keys(errs))
}

func (p *choosing) try(sources []Source) error {
	b, err := build(sources...)
	if err == nil {
		p.used, p.c = b.Config.Named(sources), b.Config
	}
	return err
}

func (p *choosing) pins() (names []string) {
	for _, s := range p.used {
		if s.Pin != nil {
			names = append(names, s.Name)
		}
	}
	return names
}

func (p *choosing) expect(what, services string, pins ...string) {
	p.t.Helper()
	verify.Equal(p.t, strings.Join(slices.Sorted(maps.Keys(p.c.Services)), " "), services, "%s: services", what)
	verify.Slices(p.t, p.pins(), pins, "%s: pins", what)
}

// service returns a document with a service that has a name.
func service(name string) string { return "services: { " + name + ": { peers: ['127.0.0.1:1'] } }\n" }

const (
	fileName = "sluice.yaml"
	kvName   = "consul_kv:sluice/"
	bad      = "nonsense"
)

// A source that offers something invalid stays as it is, and the others change.
func TestChooseTakesWhatIsValid(t *testing.T) {
	p := &choosing{t: t}
	refused := p.offer(file(dynamicFile+service("a")), files(), keys("x.yaml", service("b")))
	verify.Require(t, refused == nil, "%v", refused)
	p.expect("at first", "a b")

	verify.Slices(t, p.offer(file(dynamicFile+service("a2")), files("x.yaml", service("c")), keys("x.yaml", bad)), []string{kvName}, "refused")
	p.expect("with a bad tree", "a2 b c")

	verify.Slices(t, p.offer(file(bad), files("x.yaml", service("d")), keys("x.yaml", service("e"))), []string{fileName}, "refused")
	p.expect("with a bad file", "a2 d e")

	// Each of them is valid only with the other.
	latest := []Source{file(dynamicFile + "routes: [{ service: g }]"), files(), keys("x.yaml", service("g"), "y.yaml", "routes: [{ path: /a2, service: g }]")}
	refused = p.offer(latest...)
	verify.That(t, refused == nil, "refused %q", refused)
	p.expect("both", "g")
	verify.Slices(t, p.offer(latest[0], latest[1], keys("x.yaml", service("f"))), []string{kvName}, "refused")
	p.expect("a service of a route is gone", "g")

	p.offer(latest[0], latest[1]) // Consul is away
	p.expect("without an answer", "g")
	p.offer(file(service("a")+"routes: [{ service: a }]"), latest[1], latest[2])
	p.expect("the file names no other source", "a")
}

// A rollback holds until the source says something else.
func TestRollBackPinsSources(t *testing.T) {
	f := file(dynamicFile + service("a"))
	first := []Source{f, files(), keys("x.yaml", service("b"))}
	second := []Source{f, files(), keys("x.yaml", service("bad-idea"))}
	p := &choosing{t: t}
	p.offer(first...)
	then := p.used
	p.offer(second...)
	verify.NoError(t, p.try(RollBack(1, then, second, p.used)))
	p.expect("after the rollback", "a b", kvName)
	verify.That(t, p.used[0].Pin == nil, "the file, which is the same in both, is pinned")
	pinned := p.used

	p.offer(second...)
	p.expect("the same again", "a b", kvName)
	p.offer(second[:2]...)
	p.expect("Consul is away", "a b", kvName)
	again := keys("x.yaml", service("bad-idea"))
	again.Revision = "another index"
	p.offer(file(dynamicFile+service("a2")), files(), again)
	p.expect("the same text is written again, and the file changes", "a2 b", kvName)

	verify.Slices(t, p.offer(f, files(), keys("x.yaml", bad)), []string{kvName}, "refused")
	p.expect("the new text is not valid", "a b", kvName)
	before := p.used
	p.offer(f, files(), keys("x.yaml", service("c")))
	p.expect("a new text", "a c")
	verify.Slices(t, Released(before, p.used), []string{kvName}, "released")

	// The pinned text itself ends the pin too.
	p.used = pinned
	p.offer(first...)
	p.expect("the source says the pinned text", "a b")
}

// What is valid only with the documents of a later source is used with them, beside a source that
// is refused.
func TestChooseIsNotByTheOrder(t *testing.T) {
	p := &choosing{t: t}
	p.offer(file(dynamicFile+service("a")), files(), keys("x.yaml", service("b")))
	refused := p.offer(file(bad), files("x.yaml", "routes: [{ path: /c, service: c }]"), keys("x.yaml", service("c")))
	verify.Slices(t, refused, []string{fileName}, "refused")
	p.expect("with a bad file", "a c")
	verify.Equal(t, len(p.c.Routes), 1, "routes")
}

// The present text of a source that cannot be read is found out later.
func TestRollBackWithoutTheSource(t *testing.T) {
	f := file(dynamicFile + service("a"))
	then := []Source{f, files(), keys("x.yaml", service("b"))}
	p := &choosing{t: t}
	verify.NoError(t, p.try(RollBack(1, then, []Source{f, files()}, p.used)))
	p.expect("after the rollback", "a b", kvName)
	p.offer(f, files(), keys("x.yaml", service("c")))
	p.expect("the first answer", "a b", kvName)
	p.offer(f, files(), keys("x.yaml", service("d")))
	p.expect("a change", "a d")

	p.try(RollBack(1, then, []Source{f, files()}, p.used))
	p.offer(then...)
	p.expect("the first answer is the same", "a b")
}

func TestStart(t *testing.T) {
	f := file(dynamicFile + service("a"))
	used := []Source{f, files("x.yaml", service("f")), keys("x.yaml", service("b"))}
	in := Input{File: fileName}
	for what, test := range map[string]struct {
		latest, used []Source
		services     string
		refused      []string
		fails        bool
	}{
		"at the first start":                    {[]Source{f, files()}, nil, "a", nil, false},
		"Consul is away":                        {[]Source{f, files()}, used, "a b", nil, false},
		"a bad file":                            {[]Source{file(bad)}, used, "", nil, true},
		"another bad file":                      {[]Source{f, files("x.yaml", bad)}, used, "a b f", []string{"routes.d/*.yaml"}, false},
		"another configuration file":            {[]Source{{Name: "other.yaml", Kind: KindFile, Documents: []Document{{"other.yaml", "", service("o") + "routes: [{ service: o }]"}}}}, used, "o", nil, false},
		"the old documents do not fit any more": {[]Source{file(dynamicFile + service("a") + "routes: [{ service: gone }]"), files()}, nil, "a gone", nil, false},
	} {
		t.Run(what, func(t *testing.T) {
			b, chosen, refused, err := in.Start(test.latest, test.used)
			verify.Require(t, (err != nil) == test.fails, "%v", err)
			if err != nil {
				return
			}
			p := &choosing{t, chosen, b.Config}
			p.expect(what, test.services)
			verify.Slices(t, slices.Sorted(maps.Keys(refused)), test.refused, "refused")
		})
	}
	pinned := slices.Clone(used)
	pinned[2].Pin = &Pin{Number: 1, Against: "x"}
	_, chosen, _, err := in.Start([]Source{f, files()}, pinned)
	verify.That(t, err == nil && reflect.DeepEqual(chosen[2], pinned[2]), "a pin does not survive: %+v, %v", chosen, err)
}

func TestPutDocument(t *testing.T) {
	for _, test := range []struct{ name, in, short string }{
		{"consul_kv:sluice/a.yaml", "consul_kv:sluice/", ""},   // there
		{"consul_kv:sluice/new.yaml", "consul_kv:sluice/", ""}, // below the tree
		{"consul_kv:sluice/services/x", "consul_kv:sluice/", "services/x"},
		{"consul_kv:one", "consul_kv:one", ""}, // the key is not there
		{"routes.d/b.yaml", "routes.d/*.yaml", ""},
		{"consul_kv:sluice/other", "", ""}, // no document
		{"consul_kv:other/a.yaml", "", ""},
		{"routes.d/b.json", "", ""},
		{"etcd:sluice/a.yaml", "", ""},
	} {
		before := []Source{
			{Name: "consul_kv:sluice/", Kind: KindConsulKV, Documents: []Document{{Name: "consul_kv:sluice/a.yaml", Text: "old"}, {Name: "consul_kv:sluice/b.yaml", Text: "old"}}},
			{Name: "consul_kv:one", Kind: KindConsulKV},
			{Name: "routes.d/*.yaml", Kind: KindFile, Documents: []Document{{Name: "routes.d/a.yaml", Text: "old"}}},
		}
		sources := append([]Source(nil), before...)
		verify.Equal(t, PutDocument(sources, test.name, "new"), test.in != "", "%s: there is a source", test.name)
		in := ""
		for i, s := range sources {
			for _, d := range s.Documents {
				if d.Text == "new" {
					in = s.Name
					verify.That(t, d.Name == test.name && d.Short == test.short, "%s: the document is %+v", test.name, d)
				}
			}
			for _, d := range before[i].Documents {
				verify.Equal(t, d.Text, "old", "%s: the text before", d.Name)
			}
		}
		verify.Equal(t, in, test.in, "%s: the source with the new text", test.name)
	}
}
