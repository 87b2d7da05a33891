package config

import (
	"flag"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/config/decoding"
	"sluice/config/reference"
	"sluice/test/verify"
)

var update = flag.Bool("update", false, "write defaults and allowed values into docs/configuration.md, and rows of new keys")

// referencePage has a row for each key.
const referencePage = "../docs/configuration.md"

// keyFacts are the columns of a key in the reference, but for what it means.
type keyFacts struct {
	key, fallback, allowed string
}

// maxCell is how many characters of a kind of value are in the table. What is longer is a list
// below it.
const maxCell = 200

// gone stands for a row of a key that is not there any more.
const gone = "\x00"

// words are what the reference writes for what errors say is allowed; $1 is the limits. Its table
// of kinds of values has them too, but for limits alone.
var words = []struct{ word, want string }{
	{"$1", `a duration with a unit (ms, s, m, h), from $1`},
	{"share $1", `a number from $1, or a percentage`},
	{"$1", `a number of bytes or a size such as 64KiB or 10MiB, from $1`},
	{"$1", `a whole number from $1`},
	{"boolean", `true or false`},
	{"text", `a text on one line`},
	{"file", `the path of a file`},
	{"URL", `http://HOST:PORT/PATH or https://HOST:PORT/PATH`},
	{"name", `a name of up to 128 letters, digits, '.', '_' or '-' that starts with a letter or digit`},
	{"DNS label", `a name of up to 63 letters, digits or '-', as in DNS`},
	{"pattern", `a name, or a pattern with * for any letters, ? for one, and [a-z] for one of several`},
	{"prefix of keys", `a prefix of keys such as certs/web, of up to 128 letters, digits, '.', '_', '-' or '/', without a slash at its start and end`},
	{"statuses", `numbers from 200 to 599, ranges such as "200-299" or classes such as "2xx", with commas between them`},
	{"expression", `a regular expression in Go's syntax (RE2)`},
	{"DNS server", `HOST:PORT, or HOST for port 53, an IPv6 address in brackets`},
	{"network", `a network such as 10.0.0.0/8 or fd00::/8, or a single IP address`},
	{"media type", `a media type such as text/html; charset=utf-8`},
	{"token", `a name without spaces, such as X-Canary`},
	{"cipher suite", strings.Join([]string{
		"one of TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
		"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
		"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
	}, ", ")},
}

// brief returns the word for what is allowed, or what errors say.
func brief(want string) string {
	if each, ok := strings.CutPrefix(want, "a list; each: "); ok {
		return "list: " + brief(each)
	}
	for _, w := range words {
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(w.want), `\$1`, `(\S+ to \S+?)`) + "$"
		if found := regexp.MustCompile(pattern).FindStringSubmatch(want); found != nil {
			return strings.ReplaceAll(w.word, "$1", found[len(found)-1])
		}
	}
	return want
}

// keysOf returns the facts of all keys of t, in the order of the file.
func keysOf(t reflect.Type, key string, r decoding.Rules) []keyFacts {
	switch decoding.Kind(t) {
	case reflect.Pointer:
		return keysOf(t.Elem(), key, r)
	case reflect.Slice:
		if decoding.Kind(t.Elem()) == reflect.Struct {
			return keysOf(t.Elem(), key+"[]", r)
		}
		facts := keysOf(t.Elem(), key, r)
		facts[0].allowed = "list: " + facts[0].allowed
		return facts
	case reflect.Map:
		return keysOf(t.Elem(), decoding.Join(key, "NAME"), decoding.Rules{})
	case reflect.Struct:
		var all []keyFacts
		for _, f := range decoding.Fields(t) {
			if t == reflect.TypeFor[NamedActions]() && len(f.Index) > 1 {
				continue // as of routes
			}
			switch at := decoding.Join(key, f.Tag.Get("key")); f.Type {
			case reflect.TypeFor[ServiceSettings]():
				all = append(all, keyFacts{at, "", "the keys of `services.NAME` from `balance` to `health`"})
				continue
			case reflect.TypeFor[RouteDefaults]():
				all = append(all, keyFacts{at, "", "the keys of `routes[]` from `use` to `compress`"})
				continue
			case reflect.PointerTo(t):
				all = append(all, keyFacts{decoding.Join(key, f.Tag.Get("key")), "", "the keys of `" + key + "`"})
				continue
			case reflect.SliceOf(t):
				all = append(all, keyFacts{decoding.Join(key, f.Tag.Get("key")), "", "list: the keys of `" + key + "`"})
				continue
			}
			all = append(all, keysOf(f.Type, decoding.Join(key, f.Tag.Get("key")), schema.Rules(f.Tag))...)
		}
		return all
	}
	allowed := brief(r.Want(t))
	if RestartReason(key) != "" {
		allowed += "; restart"
	}
	return []keyFacts{{key, r.Default, allowed}}
}

// referenceRows returns the rows of the page, by key.
func referenceRows(t *testing.T, page string) map[string]reference.Row {
	rows := make(map[string]reference.Row)
	for _, r := range reference.Rows(page) {
		_, twice := rows[r.Key]
		verify.That(t, !twice, "%s has two rows", r.Key)
		rows[r.Key] = r
	}
	return rows
}

// setBy returns who may set a key besides the file, as the reference has it: D, T and M stand for
// a document, a tag and the meta, and a dagger says that not all values are allowed.
func setBy(key string) string {
	for _, r := range rights {
		if !slices.Contains(strings.Fields(r.keys), strings.TrimPrefix(strings.TrimSuffix(key, ".NAME"), r.section+".")) {
			continue
		}
		var by string
		for _, s := range []struct {
			setter Setter
			letter string
		}{{ByDocument, "D"}, {ByTag, "T"}, {ByRegistration, "M"}} {
			if r.setters&s.setter != 0 {
				by += s.letter
			}
		}
		if r.only != nil {
			by += "†"
		}
		return by
	}
	return ""
}

// The reference has a row for each key, with its default, what is allowed, and who may set it.
// With -update they are written, a new key gets a row behind the one before it, and one that is
// gone loses its row; what a key means is left to write.
func TestReferenceNamesEveryKeyAndDefault(t *testing.T) {
	text := string(verify.Result(os.ReadFile(referencePage)).Must(t))
	lines := strings.Split(text, "\n")
	rows := referenceRows(t, text)
	var last reference.Row
	for _, want := range keysOf(reflect.TypeFor[Config](), "", decoding.Rules{}) {
		row, ok := rows[want.key]
		delete(rows, want.key)
		if want.fallback != "" {
			want.fallback = "`" + want.fallback + "`"
		} else if want.fallback = "none"; ok && !strings.HasPrefix(row.Default, "`") {
			want.fallback = row.Default // a description in words
		}
		if ok {
			last = row
		} else {
			row.Meaning = "…"
		}
		cells := []string{"`" + strings.TrimPrefix(want.key, last.Prefix) + "`", want.fallback, want.allowed}
		by := setBy(want.key)
		if strings.HasPrefix(want.key, "services.") || strings.HasPrefix(want.key, "routes[]") {
			cells = append(cells, by)
		} else {
			verify.That(t, by == "", "%s: its table does not say who may set it", want.key)
		}
		wanted := "| " + strings.Join(append(cells, row.Meaning), " | ") + " |"
		verify.That(t, ok && lines[row.Line] == wanted && row.Meaning != "…", "want the row (go test ./config -update writes it, but for its meaning)\n%s", wanted)
		if ok {
			lines[row.Line] = wanted
		} else {
			lines[last.Line] += "\n" + wanted
		}
	}
	for key, row := range rows {
		t.Errorf("row for %s, which is not a key", key)
		lines[row.Line] = gone
	}
	if *update {
		lines = slices.DeleteFunc(lines, func(line string) bool { return line == gone })
		verify.NoError(t, os.WriteFile(referencePage, []byte(strings.Join(lines, "\n")), 0o644))
	}
	before, _, _ := strings.Cut(text, "\n## `log`")
	for _, w := range words {
		if len(w.want) > maxCell {
			verify.Contains(t, before, "\n- "+w.word+": "+w.want+"\n", "below the table of kinds of values: ")
			continue
		}
		if w.word == "$1" {
			continue // text below the table
		}
		row := "| " + strings.ReplaceAll(w.word, "$1", "A to B") + " | " + strings.ReplaceAll(strings.ReplaceAll(w.want, "$1", "A to B"), "|", `\|`) + " |"
		verify.Contains(t, before, row, "the table of kinds of values: ")
	}
}
