package imported

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// stop is an answer before what follows in a server or a location.
type stop struct {
	when   condition
	path   string    // an expression that the path fits; "": any does
	host   string    // of the request; "": any
	unlike bool      // any but host
	keys   tags.Keys // nil: it denies
	at     Place
	always bool
}

// stops returns the answers of return, if and rewrite in a block.
func (n *nginx) stops(d *directive) (all []stop) {
	for _, c := range d.block {
		s, answers := stop{when: met, at: c.at}, false
		if c.word(0) != "if" {
			answers = n.answers(d, c, &s)
			s.always = answers && s.path == ""
		} else {
			s.when, s.host, s.unlike = conditionOf(c.from(1))
			for _, below := range c.block {
				if answers = answers || n.answers(d, below, &s); !answers {
					n.note(below.at, "%s: left out: sluice has no if; see when of a route", below.word(0))
				}
			}
		}
		if answers {
			if all = append(all, s); s.always {
				return all
			}
		}
	}
	return all
}

// answers reports whether a directive answers, and says how.
func (n *nginx) answers(d, c *directive, s *stop) bool {
	switch code, to := redirectOf(c); {
	case c.word(0) == "return":
		s.keys = n.answer(d, c)
	case code != "":
		if s.keys = redirect(c.word(1), to, code); s.keys == nil {
			n.note(c.at, "rewrite %s: left out; see redirect of a route", c.word(1))
			return false
		}
		if !slices.Contains([]string{"^", ".*", "^.*$", "^(.*)$", "^/(.*)$", "^/"}, c.word(1)) {
			s.path, n.ordered = c.word(1), true
		}
	default:
		if c.word(0) == "rewrite" && d.word(0) != "location" {
			n.note(c.at, "rewrite %s: left out; see rewrite of a route", c.word(1))
		}
		return false
	}
	if d.closed() && s.keys["redirect"] == nil {
		s.keys = nil
	}
	return true
}

// stop adds the route of an answer that comes before a location.
func (n *nginx) stop(f face, match tags.Keys, s stop) {
	when, keys, more, listeners := s.when, f.keys.Clone(), s.keys, f.listeners
	if path, _ := match["path"].(string); s.path != "" {
		if path != "" && (match["match"] != "string_prefix" || !strings.HasPrefix(s.path, "^"+path)) {
			when = unknown
		}
		match = tags.Keys{"path": s.path, "match": "regexp"}
	}
	own, _ := keys["host"].(string)
	exact := own != "" && own[0] != '*'
	switch {
	case s.host == "" || exact && (own == s.host) != s.unlike:
	case exact: // never met
		return
	case !s.unlike && f.keys["host_regexp"] == nil && strings.HasSuffix(s.host, strings.TrimPrefix(own, "*")):
		keys["host"], n.ordered = s.host, true
		listeners = slices.DeleteFunc(slices.Clone(listeners), func(name string) bool { return n.ports[name].taken[s.host] })
		if len(listeners) == 0 { // a server has this name
			return
		}
	default:
		when = unknown
	}
	if status, _ := more.Get("direct_response", "status").(string); when.wider && status >= "400" {
		more = nil
	}
	if n.left--; more != nil && f.server.secure {
		more = more.Clone()
		more["client_certificate"] = "required"
	}
	before := condition{any: []tags.Keys{keys}}.and(condition{any: []tags.Keys{match}})
	n.route(listeners, before, decision{when: when, at: s.at}, more)
}

// answer returns the keys for a return in a block; nil: it denies.
func (n *nginx) answer(d, l *directive) tags.Keys {
	status, text := l.word(1), l.word(2)
	if _, err := strconv.Atoi(status); err != nil {
		status, text = "302", status
	}
	headers := d.all("add_header")
	switch {
	case status == "403" || status == "444":
		return nil
	case slices.Contains([]string{"301", "302", "303", "307", "308"}, status):
		keys := redirect(expressionOf(d), text, status)
		if keys == nil {
			n.note(l.at, "return %s: sluice has no such variable: here 403; see redirect of a route", status)
		}
		for _, h := range headers {
			n.note(h.at, "add_header %s: redirects do not have it here", h.word(1))
		}
		return keys
	}
	answer := tags.Keys{"status": status}
	if body, known := variables(text, inHeaders); !known {
		n.note(l.at, "return %s: sluice has no such variable: here without the text; see direct_response of a route", status)
	} else if text != "" {
		answer["body"] = body
	}
	if kind := d.value("default_type"); kind != "" && text != "" {
		answer["content_type"] = kind
	}
	for _, h := range headers {
		if value, known := variables(h.word(2), inHeaders); known {
			answer.Set(value, "headers", h.word(1))
		}
	}
	n.left -= len(headers)
	return tags.Keys{"direct_response": answer}
}

// expressionOf returns the expression of a location, or "".
func expressionOf(d *directive) string {
	words := modifier.FindStringSubmatch(d.word(1))
	return map[string]string{"~": "", "~*": "(?i)"}[words[1]] + map[bool]string{true: words[2] + d.word(2)}[words[1] == "~" || words[1] == "~*"]
}

// redirectOf returns the status and the URL of a rewrite that redirects.
func redirectOf(d *directive) (code, to string) {
	to = d.word(2)
	switch {
	case d.word(0) != "rewrite":
	case d.word(3) == "permanent":
		code = "301"
	case d.word(3) == "redirect", strings.HasPrefix(to, "http"), strings.HasPrefix(to, "$scheme:"):
		code = "302"
	}
	return code, to
}

// group is a group of an expression, in a text.
var group = regexp.MustCompile(`\$(\{[1-9]\}|[1-9])`)

// redirect returns the keys of a redirect to a URL, which may have groups of an expression; nil:
// they have no counterpart.
func redirect(expression, to, code string) tags.Keys {
	to = strings.NewReplacer("$is_args$args", "", "?$args", "", "?$query_string", "").Replace(to)
	if path, whole := map[string]string{"^(.*)$": "$1", "^/(.*)$": "/$1"}[expression]; whole && strings.HasSuffix(to, path) {
		to = strings.TrimSuffix(to, path) + "$uri"
	}
	text, known := variables(to, inRedirects)
	if !known || text == "" {
		return nil
	}
	if !group.MatchString(to) {
		return tags.Keys{"redirect": tags.Keys{"to": text, "code": code}}
	}
	// The expression is for the URL, which has a query.
	flags, rest := "", strings.NewReplacer("(.*)", "([^?]*)", "(.+)", "([^?]+)").Replace(expression)
	if rest, known = strings.CutPrefix(rest, "(?i)"); known {
		flags = "(?i)"
	}
	before, after := "[^?]*", "[^?]*"
	if rest, known = strings.CutPrefix(rest, "^"); known {
		before = ""
	}
	if rest, known = strings.CutSuffix(rest, "$"); known {
		after = ""
	}
	url := flags + "^https?://[^/?]+" + before + rest + after + `(\?.*)?$`
	compiled, err := regexp.Compile(url)
	if err != nil || expression == "" {
		return nil
	}
	if !strings.Contains(to, "?") {
		text += fmt.Sprintf("${%d}", compiled.NumSubexp())
	}
	// What the expression does not fit has the answer below, which nothing gets.
	return tags.Keys{"redirect": tags.Keys{"regexp": url, "to": text, "code": code}, "direct_response": tags.Keys{"status": "404"}}
}

// Variables that sluice has too, in headers and in URLs of redirects, whose query it adds.
var (
	inHeaders = map[string]string{
		"host": "host", "http_host": "authority", "scheme": "scheme", "remote_addr": "client_address", "remote_user": "user",
		"request_method": "method", "request_id": "request_id", "args": "query", "query_string": "query",
	}
	inRedirects = map[string]string{
		"host": "host", "http_host": "authority", "scheme": "scheme", "request_uri": "path", "uri": "path", "args": "query", "query_string": "query",
		"1": "1", "2": "2", "3": "3", "4": "4", "5": "5", "6": "6", "7": "7", "8": "8", "9": "9",
	}
	variableOf = regexp.MustCompile(`\$(\w+|\{\w+\})`)
)

// variables returns a text with sluice's variables, and whether it has all of them.
func variables(text string, names map[string]string) (result string, known bool) {
	known = true
	result = variableOf.ReplaceAllStringFunc(text, func(v string) string {
		name, has := names[strings.Trim(v, "${}")]
		if known = known && has; v[1] == '{' || group.MatchString("$"+name) {
			name = "{" + name + "}"
		}
		return "$" + name
	})
	return result, known
}

// methodsOf are the methods of an expression.
var methodsOf = regexp.MustCompile(`^\^?\(?([A-Z|]+)\)?\$?$`)

// conditionOf returns the condition of an if, or the host that a request has, or does not have.
func conditionOf(l line) (when condition, host string, unlike bool) {
	var words []string
	for i, word := range l.words {
		if i == 0 {
			word = strings.TrimPrefix(word, "(")
		}
		if i == len(l.words)-1 {
			word = strings.TrimSuffix(word, ")")
		}
		if word != "" || word == l.words[i] {
			words = append(words, word)
		}
	}
	if len(words) == 1 { // true unless it is empty or 0
		words = append(words, "~", ".")
	}
	if len(words) != 3 {
		return unknown, "", false
	}
	name, value := words[0], words[2]
	operator, not := strings.CutPrefix(words[1], "!")
	methods := methodsOf.FindStringSubmatch(value)
	kind, of, _ := strings.Cut(strings.TrimPrefix(name, "$"), "_")
	kind = map[string]string{"http": "header", "cookie": "cookie", "arg": "query"}[kind]
	text := map[string]string{"=": value, "~": "~" + value, "~*": "~(?i)" + value}[operator]
	test := make(tags.Keys)
	switch {
	case (name == "$host" || name == "$http_host") && operator == "=":
		return met, strings.ToLower(value), not
	case name == "$request_method" && !not && operator != "~*" && methods != nil && (operator == "=") == (value == methods[1]):
		return condition{any: []tags.Keys{{"methods": strings.Split(methods[1], "|")}}}, "", false
	case name == "$scheme" && operator == "=":
		test["scheme"] = value
	case kind == "" || of == "" || text == "" && operator != "=":
		return unknown, "", false
	case kind == "header":
		of = strings.ReplaceAll(of, "_", "-")
		fallthrough
	default:
		switch {
		case value == "": // none, or an empty one
			text, not = "~.", !not
		case operator == "=" && (value == "*" || value[0] == '~'):
			text = "~^" + regexp.QuoteMeta(value) + "$"
		}
		test.Set(text, kind, of)
	}
	if not {
		test = tags.Keys{"not": test}
	}
	return condition{any: []tags.Keys{{"when": test}}}, "", false
}
