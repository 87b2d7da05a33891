package traefik

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/route"
	"sluice/test/verify"
)

// ruleTests are rules with the conditions of their alternatives, of which some have an error
// "COLUMN: TEXT" or are never met, and the error of the whole rule.
var ruleTests = []struct{ rule, alternatives, err string }{
	// Documented rules, one of each kind.
	{"Host(`example.com`)", `{"host":"example.com"}`, ``},
	{"Host(`*.example.com`)", `{"host_regexp":"^[^.]+\\.example\\.com$"}`, ``},
	{"Host(`*`)", `{}`, ``},
	{"HostRegexp(`^.+\\.example\\.com$`)", `{"host_regexp":"^.+\\.example\\.com$"}`, ``},
	{"HostRegexp(`{subdomain:[a-z]+}.traefik.com`)", ``, "1: HostRegexp: placeholders are of version 2: want `^(?:[a-z]+)\\.traefik\\.com$`"},
	{"Path(`/products`)", `{"match":"exact","path":"/products"}`, ``},
	{"Path(`/route/{id}`)", ``, "1: Path: placeholders are of version 2: want PathRegexp(`^/route/[^/]+`)"},
	{"PathPrefix(`/products`)", `{"match":"string_prefix","path":"/products"}`, ``},
	{"PathPrefix(`/`)", `{}`, ``},
	{"PathPrefix(`/foo`, `/bar`)", `{"match":"string_prefix","path":"/foo"} {"match":"string_prefix","path":"/bar"}`, ``},
	{"PathRegexp(`\\.(jpeg|jpg|png)$`)", `{"match":"regexp","path":"\\.(jpeg|jpg|png)$"}`, ``},
	{"Method(`OPTIONS`)", `{"methods":["OPTIONS"]}`, ``},
	{"Header(`Content-Type`, `application/yaml`)", `{"when":{"header":{"content-type":"application/yaml"}}}`, ``},
	{"HeaderRegexp(`Content-Type`, `^application/(json|yaml)$`)", `{"when":{"header":{"content-type":"~^application/(json|yaml)$"}}}`, ``},
	{"Query(`mobile`, `true`)", `{"when":{"query":{"mobile":"true"}}}`, ``},
	{"Query(`mobile`)", `{"when":{"query":{"mobile":"~^$"}}}`, ``},
	{"QueryRegexp(`mobile`, `^(true|yes)$`)", `{"when":{"query":{"mobile":"~^(true|yes)$"}}}`, ``},
	{"QueryRegexp(`mobile`)", `{"when":{"query":{"mobile":"~^$"}}}`, ``},
	{"ClientIP(`10.76.105.11`)", `{"when":{"client":["10.76.105.11"]}}`, ``},
	{"ClientIP(`192.168.1.0/24`)", `{"when":{"client":["192.168.1.0/24"]}}`, ``},
	{"ClientIP(`::1`)", `{"when":{"client":["::1"]}}`, ``},
	{"Host(`traefik.example.com`) && (PathPrefix(`/api`) || PathPrefix(`/dashboard`))", `{"host":"traefik.example.com","match":"string_prefix","path":"/api"} {"host":"traefik.example.com","match":"string_prefix","path":"/dashboard"}`, ``},
	{"Host(`example.com`) && Path(`/users/{userId}/orders/{orderId}`)", ``, "24: Path: placeholders are of version 2: want PathRegexp(`^/users/[^/]+/orders/[^/]+`)"},

	// TestMuxer.
	{``, ``, `1: not a rule: expected operand, found 'EOF'`},
	{`rulewithnotmatcher`, ``, "1: want matchers such as Host(`example.com`), joined by &&, || and !"},
	{`Host(example.com)`, ``, `6: want a text in backticks or double quotes`},
	{"Host(`127.0.0.1`)", `{"host":"127.0.0.1"}`, ``},
	{"Host(`10::10`)", `{"host":"[10::10]"}`, ``},
	{`Host("example.com") || (Host("example.org") && Path("/css"))`, `{"host":"example.com"} {"host":"example.org","match":"exact","path":"/css"}`, ``},
	{`PATHPREFIX("/css")`, `{"match":"string_prefix","path":"/css"}`, ``},
	{`pathprefix("/css")`, `{"match":"string_prefix","path":"/css"}`, ``},
	{`Pathprefix("/css")`, `{"match":"string_prefix","path":"/css"}`, ``},
	{`!Host("example.com")`, `{} if host is not example.com`, ``},
	{`!(Host("example.com") || Host("example.org"))`, `{} if host is not example.com or example.org`, ``},
	{`!(Host("example.com") && Path("/css"))`, `{} if host is not example.com {} if path is not /css`, ``},
	{`!Host("example.com") && Pathprefix("/css")`, `{"match":"string_prefix","path":"/css"} if host is not example.com`, ``},

	// The tests of the matchers.
	{"ClientIP(`1`)", ``, `1: ClientIP: want an address or a network`},
	{`ClientIP()`, ``, `1: ClientIP has 0 arguments: want 1`},
	{"ClientIP(`127.0.0.1`, `192.168.1.0/24`)", `{"when":{"client":["127.0.0.1"]}} {"when":{"client":["192.168.1.0/24"]}}`, ``},
	{"ClientIP(`192.168.1.7/24`)", `{"when":{"client":["192.168.1.0/24"]}}`, ``},
	{`Method()`, ``, `1: Method has 0 arguments: want 1`},
	{"Method(`GET`, `POST`)", `{"methods":["GET"]} {"methods":["POST"]}`, ``},
	{"Method(`get`)", `{"methods":["GET"]}`, ``},
	{`Host()`, ``, `1: Host has 0 arguments: want 1`},
	{"Host(``)", ``, `6: want a text that is not empty`},
	{"Host(`🦭.com`)", ``, `1: Host: want a name in ASCII (for other letters the form xn--…)`},
	{"Host(`example.com.`)", `{"host":"example.com"}`, ``},
	{"Host(`EXAMPLE.COM`)", `{"host":"example.com"}`, ``},
	{`HostRegexp()`, ``, `1: HostRegexp has 0 arguments: want 1`},
	{"HostRegexp(`🦭.com`)", ``, `1: HostRegexp: want a pattern in ASCII`},
	{"HostRegexp(`(example.com`)", ``, "1: HostRegexp: want a regular expression in Go's syntax: error parsing regexp: missing closing ): `(example.com`"},
	{"HostRegexp(`example.com`, `example.org`)", ``, `1: HostRegexp has 2 arguments: want 1`},
	{"HostRegexp(`\\p{Greek}+`)", `{"host_regexp":"\\p{Greek}+"}`, ``},
	{`Path()`, ``, `1: Path has 0 arguments: want 1`},
	{"Path(`css`)", ``, `1: Path: want a path that begins with /`},
	{"Path(`/css`, `/js`)", `{"match":"exact","path":"/css"} {"match":"exact","path":"/js"}`, ``},
	{"PathRegexp(`/(css`)", ``, "1: PathRegexp: want a regular expression in Go's syntax: error parsing regexp: missing closing ): `/(css`"},
	{"PathRegexp(`/css`, `/js`)", ``, `1: PathRegexp has 2 arguments: want 1`},
	{`PathRegexp("/{path:(css|js)}")`, ``, "1: PathRegexp: placeholders are of version 2: want `^/(?:(css|js))$`"},
	{"PathRegexp(`^/x{2,3}$`)", `{"match":"regexp","path":"^/x{2,3}$"}`, ``},
	{"PathPrefix(`css`)", ``, `1: PathPrefix: want a path that begins with /`},
	{`Header()`, ``, `1: Header has 0 arguments: want 2`},
	{"Header(`X-Forwarded-Host`)", ``, `1: Header has 1 arguments: want 2`},
	{"Header(`X-Forwarded-Host`, ``)", ``, `28: want a text that is not empty`},
	{"Header(`X-Forwarded-Host`, `example.com`, `example.org`)", ``, `1: Header has 3 arguments: want 2`},
	{"Header(`X-Text`, `~tilde`)", `{"when":{"header":{"x-text":"~^~tilde$"}}}`, ``},
	{"Header(`X-Text`, `*`)", `{"when":{"header":{"x-text":"~^\\*$"}}}`, ``},
	{"HeaderRegexp(`X-Forwarded-Proto`, `http{secure:s?}`)", ``, "1: HeaderRegexp: placeholders are of version 2: want `^http(?:s?)$`"},
	{"HeaderRegexp(`X-Forwarded-Host`,`(example.com`)", ``, "1: HeaderRegexp: want a regular expression in Go's syntax: error parsing regexp: missing closing ): `(example.com`"},
	{`Query()`, ``, `1: Query has 0 arguments: want 1 or 2`},
	{"Query(`q`, `traefik`, `proxy`)", ``, `1: Query has 3 arguments: want 1 or 2`},
	{"QueryRegexp(`q`, `(a`)", ``, "1: QueryRegexp: want a regular expression in Go's syntax: error parsing regexp: missing closing ): `(a`"},

	// The grammar.
	{`m`, ``, "1: want matchers such as Host(`example.com`), joined by &&, || and !"},
	{`m()`, ``, `1: unknown matcher m`},
	{"Host(`1`) &&", ``, `13: not a rule: expected operand, found 'EOF'`},
	{"Host(`1)", ``, `6: not a rule: raw string literal not terminated`},
	{"Host(`1`))", ``, `10: not a rule: expected 'EOF', found ')'`},
	{"(Host(`1`)", ``, `11: not a rule: expected ')', found newline`},
	{"(Host(`1`))", `{"host":"1"}`, ``},
	{"HOST(`1`)", `{"host":"1"}`, ``},
	{"hOST(`1`)", ``, `1: unknown matcher hOST`},
	{"Headers(`X-A`, `b`)", ``, `1: Headers is of version 2: want Header`},
	{"HostHeader(`h`)", ``, `1: HostHeader is of version 2: want Host`},
	{"Host(`a`) & Host(`b`)", ``, "1: want matchers such as Host(`example.com`), joined by &&, || and !"},
	{"-Host(`a`)", ``, "1: want matchers such as Host(`example.com`), joined by &&, || and !"},
	{"Host(`a`)(`b`)", ``, "1: want a matcher such as Host(`example.com`)"},
	{"x.Host(`a`)", ``, "1: want a matcher such as Host(`example.com`)"},
	{`Host('a')`, ``, `6: want a text in backticks or double quotes`},
	{"Host(`a` + `b`)", ``, `6: want a text in backticks or double quotes`},
	{`Host(a...)`, ``, `6: want a text in backticks or double quotes`},
	{"Host(`a`...)", ``, `1: Host has 1 arguments: want 1`},
	{`func() bool { return true }()`, ``, "1: want a matcher such as Host(`example.com`)"},
	{"Host(`a`) /* comment */ && Path(`/b`)", `{"host":"a","match":"exact","path":"/b"}`, ``},
	{`Host("a\nb")`, ``, `1: Host: want printable text`},
	{`Host("\xff")`, ``, `1: Host: want a name in ASCII (for other letters the form xn--…)`},

	// Combinations.
	{"Host(`a`) && Host(`a`)", `{"host":"a"}`, ``},
	{"Host(`a`) && Host(`b`)", `never`, ``},
	{"Host(`a`) && !Host(`b`)", `{"host":"a"}`, ``},
	{"Host(`a`) && !Host(`a`)", `never`, ``},
	{"Host(`a.b`) && Host(`*.b`)", `{"host":"a.b"}`, ``},
	{"Host(`a.b`) && HostRegexp(`^a`)", `{"host":"a.b"}`, ``},
	{"Host(`a.b`) && !HostRegexp(`^a`)", `never`, ``},
	{"Host(`a.b`) && HostRegexp(`^c`)", `never`, ``},
	{"HostRegexp(`^a`) && HostRegexp(`b$`)", `{"host_regexp":"^a"} if host is ~b$`, ``},
	{"HostRegexp(`^a`) && HostRegexp(`^a`)", `{"host_regexp":"^a"}`, ``},
	{"Host(`*`) && Path(`/a`)", `{"match":"exact","path":"/a"}`, ``},
	{"!Host(`*`) && Path(`/a`)", `never`, ``},
	{"Host(`*.a`) && Host(`b.a`)", `{"host":"b.a"}`, ``},
	{"Host(`*.foo.*`)", ``, `1: Host: want a name, *.NAME or *`},
	{"PathPrefix(`/a`) && PathPrefix(`/a/b`)", `{"match":"string_prefix","path":"/a/b"}`, ``},
	{"PathPrefix(`/a/b`) && PathPrefix(`/a`)", `{"match":"string_prefix","path":"/a/b"}`, ``},
	{"PathPrefix(`/a`) && PathPrefix(`/b`)", `never`, ``},
	{"PathPrefix(`/a`) && !PathPrefix(`/a/b`)", `{"match":"string_prefix","path":"/a"} if path is not /a/b*`, ``},
	{"PathPrefix(`/a`) && !PathPrefix(`/b`)", `{"match":"string_prefix","path":"/a"}`, ``},
	{"PathPrefix(`/a/b`) && !PathPrefix(`/a`)", `never`, ``},
	{"PathPrefix(`/a`) && Path(`/a/b`)", `{"match":"exact","path":"/a/b"}`, ``},
	{"PathPrefix(`/a`) && Path(`/b`)", `never`, ``},
	{"Path(`/a`) && PathRegexp(`a$`)", `{"match":"exact","path":"/a"}`, ``},
	{"Path(`/a`) && !PathRegexp(`a$`)", `never`, ``},
	{"PathPrefix(`/a`) && PathRegexp(`x$`)", `{"match":"string_prefix","path":"/a"} if path is ~x$`, ``},
	{"PathPrefix(`/`) && !Path(`/metrics`)", `{} if path is not /metrics`, ``},
	{"PathPrefix(`/`) && PathRegexp(`x$`)", `{"match":"regexp","path":"x$"}`, ``},
	{"!PathPrefix(`/`)", `never`, ``},
	{"Method(`GET`) && Method(`POST`)", `never`, ``},
	{"Method(`GET`) && !Method(`POST`)", `{"methods":["GET"]}`, ``},
	{"Method(`GET`) && !Method(`GET`)", `never`, ``},
	{"!Method(`GET`)", `{} if method is not GET`, ``},
	{"Header(`A`, `b`) && Header(`A`, `c`)", `{"when":{"any":[{"header":{"a":"c"}}],"header":{"a":"b"}}}`, ``},
	{"Header(`A`, `b`) && Header(`a`, `b`)", `{"when":{"header":{"a":"b"}}}`, ``},
	{"Header(`A`, `b`) && Header(`A`, `c`) && Header(`A`, `d`)", `41: more than two conditions for the same header: want one pattern`, ``},
	{"!Header(`A`, `b`)", `{"when":{"not":{"header":{"a":"b"}}}}`, ``},
	{"!Header(`A`, `b`) && !Header(`A`, `c.d`)", `{"when":{"not":{"header":{"a":"~(?:^b$)|(?:^c\\.d$)"}}}}`, ``},
	{"!HeaderRegexp(`A`, `b`) && !Header(`A`, `c`)", `{"when":{"not":{"header":{"a":"~(?:b)|(?:^c$)"}}}}`, ``},
	{"!Header(`A`, `b`, `c`)", ``, `2: Header has 3 arguments: want 2`},
	{"!Query(`a`)", `{"when":{"not":{"query":{"a":"~^$"}}}}`, ``},
	{"Query(`a`, `b`) && !Query(`c`, `d`)", `{"when":{"not":{"query":{"c":"d"}},"query":{"a":"b"}}}`, ``},
	{"ClientIP(`10.0.0.0/8`) && ClientIP(`10.0.0.0/8`)", `{"when":{"client":["10.0.0.0/8"]}}`, ``},
	{"ClientIP(`10.0.0.0/8`) && ClientIP(`10.1.0.0/16`)", `27: two conditions for the client: want one network`, ``},
	{"ClientIP(`10.0.0.0/8`) && !ClientIP(`10.1.0.0/16`) && !ClientIP(`10.2.0.0/16`)", `{"when":{"client":["10.0.0.0/8"],"not":{"client":["10.1.0.0/16","10.2.0.0/16"]}}}`, ``},
	{"!ClientIP(`10.1.0.0/16`, `10.2.0.0/16`)", `{"when":{"not":{"client":["10.1.0.0/16","10.2.0.0/16"]}}}`, ``},
	{"!Host(`a`, `b`) && Path(`/x`)", `{"match":"exact","path":"/x"} if host is not a or b`, ``},
	{"Host(`a`, `b`) && PathPrefix(`/x`, `/y`)", `{"host":"a","match":"string_prefix","path":"/x"} {"host":"a","match":"string_prefix","path":"/y"} {"host":"b","match":"string_prefix","path":"/x"} {"host":"b","match":"string_prefix","path":"/y"}`, ``},
}

func TestRules(t *testing.T) {
	for _, test := range ruleTests {
		terms, err := parseRule(test.rule, requestMatchers)
		verify.Equal(t, textOf(err), test.err, "%s has the error", test.rule)
		var alternatives []string
		for _, term := range terms {
			keys, more, never, err := keysOf(term)
			switch {
			case err != nil:
				alternatives = append(alternatives, textOf(err))
			case never:
				alternatives = append(alternatives, "never")
			default:
				alternatives = append(alternatives, keys.String()+moreText(more))
			}
		}
		verify.Equal(t, strings.Join(alternatives, " "), test.alternatives, "%s means", test.rule)
	}
}

// moreText returns conditions for people.
func moreText(more *route.Conditions) string {
	if more == nil {
		return ""
	}
	r := route.Route{Path: "/", Conditions: *more}
	return " if " + strings.Join(r.Requirements(), " and ")
}

// textOf returns an error of a rule as "COLUMN: TEXT".
func textOf(err error) string {
	var wrong *ruleError
	if !errors.As(err, &wrong) {
		return ""
	}
	return fmt.Sprintf("%d: %s", wrong.column, wrong.want)
}

func TestRuleLimits(t *testing.T) {
	repeat := func(n int, sep string) string {
		return strings.TrimSuffix(strings.Repeat("Host(`a`)"+sep, n), sep)
	}
	pairs := strings.TrimSuffix(strings.Repeat("(Host(`a`)||Host(`b`))&&", 7), "&&")
	for _, test := range []struct{ rule, want string }{
		{repeat(maxMatchers, "||"), ""},
		{repeat(maxMatchers+1, "||"), "at most 64"},
		{repeat(maxMatchers, "&&"), ""},
		{repeat(maxMatchers+1, "&&"), "at most 64 matchers"},
		{pairs, "at most 64 alternatives"}, // 2 to the power of 7
		{strings.TrimSuffix(pairs, "&&(Host(`a`)||Host(`b`))"), ""},
		{"Host(`a`" + strings.Repeat(",`a`", maxTerms) + ")", "at most 64 alternatives"},
		{"Path(`/" + strings.Repeat("x", maxRule) + "`)", "too long"},
		{"PathRegexp(`" + strings.Repeat("x{1000}", 2) + "`)", ""},
		{"PathRegexp(`" + strings.Repeat("x{1000}", 500) + "`)", "has 500000 parts, the limit is 2000"},
		{strings.Repeat("(", 500) + "Host(`a`)" + strings.Repeat(")", 500), ""},
		{strings.Repeat("!", 501) + "Host(`a`)", ""},
	} {
		terms, err := parseRule(test.rule, requestMatchers)
		verify.That(t, (err == nil) == (test.want == "") && (err == nil || strings.Contains(err.Error(), test.want)), "%.40s…: %d alternatives and the error %v, want %q", test.rule, len(terms), err, test.want)
	}
}

// truth evaluates a rule for one request.
type truth map[string]bool // by matcher

func (v truth) anyOf(terms []term) bool {
	for _, term := range terms {
		all := true
		for _, m := range term {
			all = all && v[m.values[0]] != m.not
		}
		if all {
			return true
		}
	}
	return false
}

// TestNormalForm compares the alternatives of rules with the rules, for all combinations of
// the truth of their matchers.
func TestNormalForm(t *testing.T) {
	for rule, want := range map[string]func(a, b, c bool) bool{
		"Host(`a`) && Host(`b`) || Host(`c`)":       func(a, b, c bool) bool { return a && b || c },
		"Host(`a`) && (Host(`b`) || Host(`c`))":     func(a, b, c bool) bool { return a && (b || c) },
		"!(Host(`a`) && (Host(`b`) || Host(`c`)))":  func(a, b, c bool) bool { return !(a && (b || c)) },
		"!(Host(`a`) || !(Host(`b`) && Host(`c`)))": func(a, b, c bool) bool { return !(a || !(b && c)) },
		"!!Host(`a`) || !Host(`b`) && !!!Host(`c`)": func(a, b, c bool) bool { return a || !b && !c },
		"!(!Host(`a`) && !Host(`b`)) && !Host(`c`)": func(a, b, c bool) bool { return (a || b) && !c },
	} {
		terms := verify.Result(parseRule(rule, requestMatchers)).Must(t)
		for bits := range 8 {
			a, b, c := bits&1 != 0, bits&2 != 0, bits&4 != 0
			verify.Equal(t, (truth{"a": a, "b": b, "c": c}).anyOf(terms), want(a, b, c), "%s with %t, %t, %t", rule, a, b, c)
		}
	}
}

// FuzzRule checks that a rule has bounded alternatives of printable conditions, and that
// errors are within the rule.
func FuzzRule(f *testing.F) {
	for _, test := range ruleTests {
		f.Add(test.rule)
	}
	f.Fuzz(func(t *testing.T, rule string) {
		terms, err := parseRule(rule, requestMatchers)
		var wrong *ruleError
		verify.Require(t, err == nil || errors.As(err, &wrong) && wrong.column >= 0 && wrong.column <= len(rule)+1, "%q: the error is %#v", rule, err)
		verify.Require(t, err == nil || terms == nil, "%q: alternatives beside the error %v", rule, err)
		verify.Require(t, len(terms) <= maxTerms, "%q: %d alternatives", rule, len(terms))
		for _, term := range terms {
			keys, _, _, err := keysOf(term)
			verify.Require(t, err == nil || errors.As(err, &wrong) && wrong.column >= 1 && wrong.column <= len(rule), "%q: the error of an alternative is %#v", rule, err)
			verify.Require(t, err != nil || !strings.ContainsFunc(keys.String(), func(r rune) bool { return r < 0x20 }), "%q: control characters in %s", rule, keys)
		}
	})
}
