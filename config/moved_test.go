package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

func TestMovedKeysWork(t *testing.T) {
	want := mustParse(t, "discovery: { debounce: { quiet: 7ms }, snapshot: a }"+someService)
	for _, text := range []string{
		"consul: { debounce: { quiet: 7ms }, snapshot: a }",
		"consul: { snapshot: a }\ndiscovery: { debounce: { quiet: 7ms } }",
		"consul: { debounce: &d { quiet: 7ms }, <<: { snapshot: a } }\ndiscovery:",
	} {
		in := Input{File: "sluice.yaml"}
		built, err := in.Build([]Source{in.FileSource(text + someService)})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		c, warnings := built.Config, built.Warnings
		verify.That(t, reflect.DeepEqual(c.Discovery, want.Discovery) && c.Discovery.Debounce.Quiet == 7*time.Millisecond, "%s: %+v", text, c.Discovery)
		if !slices.ContainsFunc(warnings, func(w string) bool {
			return strings.HasSuffix(w, ":1: consul.snapshot: deprecated: use discovery.snapshot")
		}) {
			t.Errorf("%s: warnings %q", text, warnings)
		}
	}
	for text, want := range map[string]string{
		"consul: { snapshot: a }\ndiscovery: { snapshot: b }": "sluice.yaml:1: consul.snapshot: given twice: use only discovery.snapshot",
		"consul:\n  debounce: { quiet: 2s }":                  "sluice.yaml:2: discovery.debounce.quiet: value \"2s\"",
		"consul: { snapshot: a }\ndiscovery: 7":               "sluice.yaml:2: discovery: want a mapping",
		"catalog: { debounce: {} }":                           "unknown key",
	} {
		refuses(t, text+someService, want)
	}
}
