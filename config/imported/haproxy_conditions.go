package imported

import (
	"regexp"
	"slices"
	"strings"

	"sluice/tags"
)

// condition returns the condition of "if …" or "unless …"; without words it is always met.
func (p *proxy) condition(l line) condition {
	all, unless := met, l.word(0) == "unless"
	not := unless
	for i := 1; i < len(l.words); i++ {
		word := l.words[i]
		for strings.HasPrefix(word, "!") {
			not, word = !not, word[1:]
		}
		if word == "" {
			continue
		}
		tests := p.acls[word]
		if end := slices.Index(l.words[i:], "}"); word == "{" && end > 0 {
			tests, i = [][]string{l.words[i+1 : i+end]}, i+end
		}
		if word == "||" || word == "or" || unless && i < len(l.words)-1 {
			return unknown // several alternatives
		}
		all, not = all.and(tested(tests, not)), unless
	}
	return all
}

// keysOfTests are the keys for a value of a test, or for all of them.
var keysOfTests = map[string]func(value string, all []string) tags.Keys{
	"path":     func(v string, _ []string) tags.Keys { return tags.Keys{"path": v, "match": "exact"} },
	"path_beg": func(v string, _ []string) tags.Keys { return tags.Keys{"path": v, "match": "string_prefix"} },
	"path_end": func(v string, _ []string) tags.Keys {
		return tags.Keys{"path": regexp.QuoteMeta(v) + "$", "match": "regexp"}
	},
	"path_reg":  func(v string, _ []string) tags.Keys { return tags.Keys{"path": v, "match": "regexp"} },
	"hdr(host)": func(v string, _ []string) tags.Keys { return tags.Keys{"host": v} },
	"hdr_end(host)": func(v string, _ []string) tags.Keys {
		return tags.Keys{"host_regexp": regexp.QuoteMeta(strings.ToLower(v)) + "$"}
	},
	"method": func(_ string, all []string) tags.Keys { return tags.Keys{"methods": all} },
	"src":    func(_ string, all []string) tags.Keys { return tags.Keys{"when": tags.Keys{"client": all}} },
	"ssl_fc": func(string, []string) tags.Keys { return tags.Keys{"when": tags.Keys{"scheme": "https"}} },
}

// tested returns the condition of the tests of an acl, of which one must hold, or with not none.
func tested(tests [][]string, not bool) (found condition) {
	if found = met; !not {
		found.any = nil
	}
	for _, words := range tests {
		test := line{words: words}
		name, values := strings.TrimPrefix(strings.ToLower(test.word(0)), "req."), test.from(1).words
		if strings.HasSuffix(name, "(host)") && test.word(1) == "-i" {
			values = values[1:]
		}
		keysOf := keysOfTests[name]
		if keysOf == nil || (len(values) == 0) != (name == "ssl_fc") || slices.ContainsFunc(values, func(v string) bool { return v == "" || v[0] == '-' }) {
			return unknown
		}
		all := keysOf("", values)
		switch when := all["when"]; {
		case not && when == nil:
			return unknown
		case not:
			found = found.and(condition{any: []tags.Keys{{"when": tags.Keys{"not": when}}}})
		case when != nil || name == "method":
			found.any = append(found.any, all)
		default:
			for _, value := range values {
				found.any = append(found.any, keysOf(value, nil))
			}
		}
	}
	if len(tests) == 0 || len(found.any) > maxAlternatives {
		return unknown
	}
	return found
}
