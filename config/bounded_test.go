package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"sluice/config/decoding"
	"sluice/route"
	"sluice/tags"
	"sluice/test/long"
	"sluice/test/verify"
)

// longRequest is a request whose header x is long.
type longRequest struct {
	route.Request // nil: no condition asks for more
	steps         route.Steps
}

var longText = strings.Repeat("ab", 2000)

func (r *longRequest) Steps() *route.Steps { return &r.steps }
func (r *longRequest) Field(_ string, from int) ([]byte, int) {
	if from > 0 {
		return nil, -1
	}
	return []byte(longText), 1
}

// Who wrote an expression decides whether it is bounded: the file's are not, in any place.
func TestExpressionsOfOthersThanTheFileAreBounded(t *testing.T) {
	long.Sequential(t)
	const routes = `routes: [{ path: /%, service: a, when: { header: { x: '~[ab]*[ab]{1,900}z' } }, rewrite: { regexp: '[ab]*[ab]{1,900}z', to: / } },
		{ path: /%/r, service: a, redirect: { regexp: '[ab]*[ab]{1,900}z', to: / } }]`
	of := func(name string) string { return strings.ReplaceAll(routes, "%", name) }
	built := verify.Result(build(file(dynamicFile+"services: { a: { peers: ['127.0.0.1:1'] } }\n"+of("file")),
		files("b.yaml", of("files")), keys("x.yaml", of("kv")))).Must(t)
	all := built.Config.Routes
	for _, keys := range []tags.Keys{
		{"path": "/tag", "when": tags.Keys{"header": tags.Keys{"x": "~[ab]*[ab]{1,900}z"}}, "rewrite": tags.Keys{"regexp": "[ab]*[ab]{1,900}z", "to": "/"}},
		{"path": "/tag/r", "redirect": tags.Keys{"regexp": "[ab]*[ab]{1,900}z", "to": "/"}},
	} {
		r := verify.Result(DecodeRoute(keys, ByTag, nil)).Must(t)
		r.Dialect = "sluice"
		all = append(all, r)
	}
	verify.Equal(t, len(all), 8, "the routes")
	for _, r := range all {
		bounded := strings.HasPrefix(r.Path, "/kv") || strings.HasPrefix(r.Path, "/tag")
		var sent longRequest
		target := r.Target()
		target.Service = &route.Service{Name: "a"}
		table := verify.Result(route.NewTable([]route.Route{target})).Must(t)
		matched := table.Match(nil, []byte(r.Path), &sent)
		if r.When != nil {
			verify.Equal(t, matched != nil && sent.steps.Exceeded(), bounded, "%s: its condition denies", r.Path)
		}
		if sent = (longRequest{}); r.Redirect != nil {
			r.Built().Redirect.Append(nil, longValues{}, &sent.steps)
			verify.Equal(t, sent.steps.Exceeded(), bounded, "%s: its redirect denies", r.Path)
			continue
		}
		_, _, err := r.Built().Path.Append(nil, []byte("/"+longText), nil, &sent.steps)
		verify.Equal(t, err == route.ErrSteps, bounded, "%s: its rewrite denies", r.Path)
	}
}

type longValues struct{}

func (longValues) Variable(route.Variable) []byte { return []byte(longText) }

// Whoever may write a document cannot fill the memory with services: a few octets each. The file
// may have any number.
func TestADocumentOfARegistryHasAFewServices(t *testing.T) {
	text := func(n int) string {
		var b strings.Builder
		b.WriteString("services:\n")
		for i := range n {
			fmt.Fprintf(&b, "  s%d: { peers: ['127.0.0.1:1'] }\n", i)
		}
		return b.String() + "routes: [{ service: s0 }]\n"
	}
	for _, test := range []struct {
		by      Setter
		n       int
		refused bool
	}{{ByDocument, maxServices, false}, {ByDocument, maxServices + 1, true}, {ByFile, maxServices + 1, false}} {
		f := decodeDocument(writtenDocument{Document{Name: "a.yaml", Text: text(test.n)}, test.by}, new(Config), nil)
		verify.That(t, len(f.Errs) > 0 == test.refused && len(f.Errs) <= 1, "%d services by %v: %v", test.n, test.by, f.Errs)
		if test.refused {
			verify.That(t, strings.Contains(f.Errs[0].Error(), "want at most 1000") && len(f.parts.Services) == 0, "%v", f.Errs)
		}
	}
}

// Whoever may write a document cannot fill the memory with answers of checks.
func TestADocumentsChecksKeepLittleOfAnAnswer(t *testing.T) {
	text := func(within string) string {
		return "services: { x: { peers: ['127.0.0.1:1'], health: { active: { expect: { text: ok, within: " + within + " } } } } }\n"
	}
	for _, test := range []struct {
		source func(...string) Source
		within string
		wrong  bool
	}{{keys, "64KiB", false}, {keys, "65KiB", true}, {files, "16MiB", false}} {
		_, err := build(file(dynamicFile), test.source("x.yaml", text(test.within)))
		wrong := err != nil && strings.Contains(err.Error(), `services.x.health.active.expect.within: value "`+test.within+`": want at most 64KiB`)
		verify.That(t, wrong == test.wrong, "%s: %v", test.within, err)
	}
}

// boundedBy are the keys that have a regular expression, and what bounds it where others than the
// file have written it.
var boundedBy = map[string]string{
	"routes[].rewrite.regexp":                   "TestExpressionsOfOthersThanTheFileAreBounded",
	"routes[].redirect.regexp":                  "TestExpressionsOfOthersThanTheFileAreBounded",
	"services.NAME.health.active.expect.regexp": "TestExpressionsOfForeignChecksAreBounded of gateway",
}

// A new key with a regular expression needs a bound.
func TestEveryKeyWithAnExpressionIsBounded(t *testing.T) {
	long.Sequential(t)
	expression, found := formats["regexp"].Want, 0
	for _, k := range keysOf(reflect.TypeFor[Config](), "", decoding.Rules{}) {
		if strings.Contains(k.allowed, brief(expression)) {
			found++
			verify.That(t, boundedBy[k.key] != "", "%s has no bound", k.key)
		}
	}
	verify.Equal(t, found, len(boundedBy), "keys with an expression")
}
