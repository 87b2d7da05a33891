package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"sluice/test/verify"
)

// keyFacts are the columns of a key in the reference.
type keyFacts struct {
	key, fallback, allowed, change string
}

// keysOf returns the facts of all keys of t, in the order of the file.
func keysOf(t reflect.Type, key string, r rules) []keyFacts {
	switch kindIn(t) {
	case reflect.Pointer:
		return keysOf(t.Elem(), key, r)
	case reflect.Slice:
		if kindIn(t.Elem()) == reflect.Struct {
			return keysOf(t.Elem(), key+"[]", r)
		}
		facts := keysOf(t.Elem(), key, r)
		facts[0].allowed = "a list; each: " + facts[0].allowed
		return facts
	case reflect.Map:
		return keysOf(t.Elem(), join(key, "NAME"), rules{})
	case reflect.Struct:
		var all []keyFacts
		for _, f := range keyFields(t) {
			switch f.Type {
			case reflect.PointerTo(t):
				all = append(all, keyFacts{join(key, f.Tag.Get("key")), "", "the keys of `" + key + "`", "live"})
				continue
			case reflect.SliceOf(t):
				all = append(all, keyFacts{join(key, f.Tag.Get("key")), "", "a list; each: the keys of `" + key + "`", "live"})
				continue
			}
			all = append(all, keysOf(f.Type, join(key, f.Tag.Get("key")), rulesOf(f.Tag))...)
		}
		return all
	}
	change := "live"
	if RestartReason(key) != "" {
		change = "restart"
	}
	return []keyFacts{{key, r.fallback, r.want(t), change}}
}

// The rows of the tables: | `key` | default | allowed | on change | meaning |
var referenceRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.+) \\| (.+) \\| (live|restart) \\| (.+) \\|$")

func TestReferenceNamesEveryKeyAndDefault(t *testing.T) {
	text := verify.Result(os.ReadFile("../docs/configuration.md")).Must(t)
	rows := make(map[string]keyFacts)
	for _, m := range referenceRow.FindAllStringSubmatch(string(text), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("%s has two rows", m[1])
		}
		rows[m[1]] = keyFacts{m[1], m[2], m[3], m[4]}
	}
	for _, want := range keysOf(reflect.TypeFor[Config](), "", rules{}) {
		row, ok := rows[want.key]
		delete(rows, want.key)
		if !ok {
			t.Errorf("no row: | `%s` | `%s` | %s | %s | … |", want.key, want.fallback, want.allowed, want.change)
			continue
		}
		if want.fallback == "" {
			want.fallback = row.fallback // a description in words, or empty
			verify.That(t, !strings.HasPrefix(row.fallback, "`"), "%s: the reference has the default %s, the code none", row.key, row.fallback)
		} else {
			want.fallback = "`" + want.fallback + "`"
		}
		verify.Equal(t, row, want, "row of %s:  got", want.key)
	}
	for key := range rows {
		t.Errorf("row for %s, which is not a key", key)
	}
}
