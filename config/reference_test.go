package config

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// keyFacts is what the reference must say about a key.
type keyFacts struct {
	key, fallback, allowed, change string
}

// keysOf returns the facts of every key below t, in the order of the file.
func keysOf(t reflect.Type, key string, r rules, restart bool) []keyFacts {
	switch t.Kind() {
	case reflect.Pointer:
		return keysOf(t.Elem(), key, r, restart)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return keysOf(t.Elem(), key+"[]", r, restart)
		}
		facts := keysOf(t.Elem(), key, r, restart)
		facts[0].allowed = "a list; each: " + facts[0].allowed
		return facts
	case reflect.Map:
		return keysOf(t.Elem(), join(key, "NAME"), r, restart)
	case reflect.Struct:
		var all []keyFacts
		for i := range t.NumField() {
			f := t.Field(i)
			all = append(all, keysOf(f.Type, join(key, f.Tag.Get("key")), rulesOf(f.Tag), restart || f.Tag.Get("restart") == "yes")...)
		}
		return all
	}
	change := "live"
	if restart {
		change = "restart"
	}
	return []keyFacts{{key, r.fallback, r.want(t), change}}
}

// The rows of the tables: | `key` | default | allowed | on change | meaning |
var referenceRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.+) \\| (.+) \\| (live|restart) \\| (.+) \\|$")

func TestReferenceNamesEveryKeyAndDefault(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]keyFacts)
	for _, m := range referenceRow.FindAllStringSubmatch(string(text), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("%s has two rows", m[1])
		}
		rows[m[1]] = keyFacts{m[1], m[2], m[3], m[4]}
	}
	for _, want := range keysOf(reflect.TypeFor[Config](), "", rules{}, false) {
		row, ok := rows[want.key]
		delete(rows, want.key)
		if !ok {
			t.Errorf("no row: | `%s` | `%s` | %s | %s | … |", want.key, want.fallback, want.allowed, want.change)
			continue
		}
		if want.fallback == "" {
			want.fallback = row.fallback // in words, or none
			if strings.HasPrefix(row.fallback, "`") {
				t.Errorf("%s: default %s, but it has none", row.key, row.fallback)
			}
		} else {
			want.fallback = "`" + want.fallback + "`"
		}
		if row != want {
			t.Errorf("row of %s:\n got  %+v\n want %+v", want.key, row, want)
		}
	}
	for key := range rows {
		t.Errorf("row for %s, which is no key", key)
	}
}

// Every YAML block of these documents, each of which is a whole configuration,
// loads.
func TestReferenceExamplesLoad(t *testing.T) {
	for _, document := range []string{"configuration.md", "health.md", "consul.md"} {
		text, err := os.ReadFile("../docs/" + document)
		if err != nil {
			t.Fatal(err)
		}
		blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
		if len(blocks) == 0 {
			t.Fatalf("%s: no example", document)
		}
		for i, block := range blocks {
			if _, err := Parse(fmt.Sprintf("%s, example %d", document, i+1), []byte(block[1])); err != nil {
				t.Errorf("%v\n%s", err, block[1])
			}
		}
	}
}
