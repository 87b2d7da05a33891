package config

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"sluice/config/decoding"
	"sluice/test/verify"
)

var update = flag.Bool("update", false, "write defaults and allowed values into docs/configuration.md, and rows of new keys")

// reference is the page with a row for each key.
const reference = "../docs/configuration.md"

// keyFacts are the columns of a key in the reference, but for what it means.
type keyFacts struct {
	key, fallback, allowed string
}

// maxCell is how many characters of a kind of value are in the table. What is longer is a list
// below it.
const maxCell = 200

// words are what the reference writes for what errors say is allowed; $1 is the limits. Its table
// of kinds of values has them too.
var words = []struct{ word, want string }{
	{"duration $1", `a duration with a unit (ms, s, m, h), from $1`},
	{"share $1", `a number from $1, or a percentage`},
	{"size $1", `a number of bytes or a size such as 64KiB or 10MiB, from $1`},
	{"number $1", `a whole number from $1`},
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
			switch f.Type {
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

// The rows of the tables: | `key` | default | allowed | meaning |
var referenceRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.+) \\| (.+) \\| (.+) \\|$")

// The reference has a row for each key, with its default and what is allowed. With -update they
// are written, a new key gets a row behind the one before it, and one that is gone loses its row;
// what a key means is left to write.
func TestReferenceNamesEveryKeyAndDefault(t *testing.T) {
	text := string(verify.Result(os.ReadFile(reference)).Must(t))
	before, table, _ := strings.Cut(text, "\n## `log`")
	rows := make(map[string]keyFacts)
	meanings := make(map[string]string)
	for _, m := range referenceRow.FindAllStringSubmatch(table, -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("%s has two rows", m[1])
		}
		rows[m[1]], meanings[m[1]] = keyFacts{m[1], m[2], m[3]}, m[4]
	}
	last := ""
	for _, want := range keysOf(reflect.TypeFor[Config](), "", decoding.Rules{}) {
		row, ok := rows[want.key]
		delete(rows, want.key)
		if want.fallback != "" {
			want.fallback = "`" + want.fallback + "`"
		} else if want.fallback = "none"; ok && !strings.HasPrefix(row.fallback, "`") {
			want.fallback = row.fallback // a description in words
		}
		wanted := fmt.Sprintf("| `%s` | %s | %s | %s |", want.key, want.fallback, want.allowed, cmp.Or(meanings[want.key], "…"))
		verify.That(t, row == want && !strings.HasSuffix(wanted, "| … |"), "want the row (go test ./config -update writes it, but for its meaning)\n%s", wanted)
		switch {
		case ok:
			table = strings.Replace(table, fmt.Sprintf("| `%s` | %s | %s | %s |", row.key, row.fallback, row.allowed, meanings[row.key]), wanted, 1)
		case last != "":
			table = strings.Replace(table, last, last+"\n"+wanted, 1)
		}
		last = wanted
	}
	for key, row := range rows {
		t.Errorf("row for %s, which is not a key", key)
		table = strings.Replace(table, fmt.Sprintf("| `%s` | %s | %s | %s |\n", key, row.fallback, row.allowed, meanings[key]), "", 1)
	}
	if *update {
		verify.NoError(t, os.WriteFile(reference, []byte(before+"\n## `log`"+table), 0o644))
	}
	for _, w := range words {
		if len(w.want) > maxCell {
			verify.Contains(t, before, "\n- "+w.word+": "+w.want+"\n", "below the table of kinds of values: ")
			continue
		}
		row := "| " + strings.ReplaceAll(w.word, "$1", "A to B") + " | " + strings.ReplaceAll(strings.ReplaceAll(w.want, "$1", "A to B"), "|", `\|`) + " |"
		verify.Contains(t, before, row, "the table of kinds of values: ")
	}
}
