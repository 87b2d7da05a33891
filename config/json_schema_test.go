package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"sluice/test/verify"
)

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text := verify.Result(json.Marshal(JSONSchema(func(key string) string { return "means " + key }))).Must(t)
	c := jsonschema.NewCompiler()
	verify.Succeeds(t, c.AddResource("sluice.json", verify.Result(jsonschema.UnmarshalJSON(bytes.NewReader(text))).Must(t)))
	return verify.Result(c.Compile("sluice.json")).Must(t)
}

// validate returns the error of a validator about a file.
func validateYAML(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	var value any
	verify.Succeeds(t, yaml.Unmarshal([]byte(text), &value))
	return s.Validate(verify.Result(jsonschema.UnmarshalJSON(bytes.NewReader(verify.Result(json.Marshal(value)).Must(t)))).Must(t))
}

// The schema allows each file that the decoder allows, and names what is wrong in others.
func TestJSONSchema(t *testing.T) {
	s := compiledSchema(t)
	for _, tt := range []struct{ text, wrong string }{
		{`services: { star: { consul: {} } }`, ""},
		{`services: { star: { consul: {}, retry: { attempts: 3, budget: 10% }, limits: { requests: "${MOST}" }, timeouts: { connect: 5s } } }`, ""},
		{`services: { star: { consul: {}, retry: }, a: { peers: ["127.0.0.1:1"] } }`, ""},
		{`routes: [{ service: 1, when: { not: { any: [{ header: { A: b } }] } } }]`, ""},
		{`routes: [{ service: a, redirect: { to: /a, code: 301 } }, { service: a, redirect: { to: /a, code: "${CODE}" } }]`, ""},
		{`listeners: [{ address: ":1", tls: { min_version: 1.2 } }, { address: ":2", tls: { min_version: "1.3" } }]`, ""},
		{`listeners: [{ address: ":1", tls: { min_version: 1.4 } }]`, "min_version"},
		{`log: { level: }`, ""},
		{`servises: {}`, "servises"},
		{`services: { star: { consul: {}, retri: {} } }`, "retri"},
		{`services: { star: { consul: {}, retry: { attempts: 99 } } }`, "attempts"},
		{`services: { star: { consul: {}, retry: { attempts: many } } }`, "attempts"},
		{`services: [star]`, "services"},
		{`log: { level: loud }`, "level"},
		{`listeners: [{ name: web }]`, "address"},
		{`routes: [{ service: a, when: { not: { any: [{ hedder: A }] } } }]`, "hedder"},
	} {
		err := validateYAML(t, s, tt.text)
		if tt.wrong == "" {
			verify.NoError(t, err)
			continue
		}
		verify.That(t, err != nil && strings.Contains(err.Error(), tt.wrong), "%s: %v", tt.text, err)
	}
}

// Whole files of the examples, the benchmarks and the documentation.
func TestJSONSchemaAllowsFilesThatAreUsed(t *testing.T) {
	s, n := compiledSchema(t), 0
	files := verify.Result(filepath.Glob("../docs/*.md")).Must(t)
	for _, pattern := range []string{"../examples/*/sluice.yaml", "../bench/conf/*.yaml", "../bench/*/conf/sluice.yaml", "../packaging/sluice.yaml"} {
		files = append(files, verify.Result(filepath.Glob(pattern)).Must(t)...)
	}
	block := regexp.MustCompile("(?s)\n```yaml\n(.*?)```")
	for _, file := range files {
		text := string(verify.Result(os.ReadFile(file)).Must(t))
		if !strings.HasSuffix(file, ".md") {
			text = "\n```yaml\n" + text + "```"
		}
		for _, found := range block.FindAllStringSubmatch(text, -1) {
			text := found[1]
			if _, err := (Input{File: file}).Build([]Source{Input{File: file}.FileSource(text)}); err == nil {
				verify.NoError(t, validateYAML(t, s, text))
				n++
			}
		}
	}
	verify.That(t, n > 20, "%d files were compared", n)
}
