package route

import (
	"regexp"
	"strings"
	"testing"

	"sluice/test/verify"
)

// slow is an expression that takes all of its parts for each octet of a text of a and b.
const slow = "[ab]*[ab]{1,900}z"

var longText = strings.Repeat("ab", 2000)

// One service asks for the slowest expressions that there may be. Its requests cost no more
// than the bound, and the requests of another service cost none.
func TestAServiceWithSlowExpressionsPaysForThemItself(t *testing.T) {
	var routes []Route
	for _, ending := range []string{"1", "2", "3", "4", "5"} {
		routes = append(routes,
			Route{Host: "evil.example.com", Path: "^/" + slow + ending, PathMatch: PathRegexp, Bounded: true, Service: &Service{Name: "evil"}},
			Route{Host: "evil.example.com", Path: "/h", Bounded: true, Service: &Service{Name: "evil"}, Conditions: Conditions{
				Headers: []Value{{Name: "x-" + ending, Kind: ValueMatches, Text: slow}},
			}},
			Route{Host: "evil.example.com", Path: "/c", Bounded: true, Service: &Service{Name: "evil"}, Conditions: Conditions{
				Not: &Conditions{Cookies: []Value{{Name: "c", Kind: ValueMatches, Text: slow + ending}}},
			}})
	}
	routes = append(routes, Route{Host: "victim.example.com", Path: "/", Service: &Service{Name: "victim"}})
	table := newTable(t, routes)
	for _, path := range []string{"/" + longText, "/h", "/c"} {
		r := &testRequest{fields: []string{"x-1: " + longText, "x-2: " + longText, "cookie: c=" + longText}}
		matched := table.Match([]byte("evil.example.com"), []byte(path), r)
		verify.That(t, matched != nil && matched.Service.Name == "evil" && r.steps.Exceeded(), "%.9s: %v is not denied", path, matched)
		verify.That(t, r.steps.taken <= maxSteps, "%.9s: %d steps, the limit is %d", path, r.steps.taken, maxSteps)
	}
	r := new(testRequest)
	verify.Equal(t, table.Match([]byte("victim.example.com"), []byte("/"+longText), r).Service.Name, "victim", "the other service")
	verify.Equal(t, r.steps, Steps{}, "the steps of its requests")
}

// Every place of a route where an expression may stand takes steps, if it is bounded.
func TestEveryBoundedExpressionTakesSteps(t *testing.T) {
	value := func(name string) []Value { return []Value{{Name: name, Kind: ValueMatches, Text: slow}} }
	service := &Service{Name: "a"}
	edits := func(bounded bool) *PathEdits {
		e := verify.Result(NewPathEdits(PathOptions{Rewrite: regexp.MustCompile(slow), To: "/", Bounded: bounded})).Must(t)
		return &e
	}
	match := func(r Route) func(bounded bool, sent *testRequest) bool {
		return func(bounded bool, sent *testRequest) bool {
			r := r
			r.Service, r.Bounded = service, bounded
			matched := newTable(t, []Route{r}).Match([]byte(longText[:200]), []byte("/"+longText+"?q="+longText), sent)
			return matched != nil
		}
	}
	// Each reports whether what the expression decides about was taken for matching.
	for name, ask := range map[string]func(bounded bool, sent *testRequest) bool{
		"path":   match(Route{Path: slow, PathMatch: PathRegexp}),
		"header": match(Route{Path: "/", Conditions: Conditions{Headers: value("x")}}),
		"cookie": match(Route{Path: "/", Conditions: Conditions{Cookies: value("c")}}),
		"query":  match(Route{Path: "/", Conditions: Conditions{Queries: value("q")}}),
		"any":    match(Route{Path: "/", Conditions: Conditions{Any: []Conditions{{Headers: value("x")}, {Methods: []string{"PUT"}}}}}),
		"paths":  match(Route{Path: "/", Conditions: Conditions{Paths: []Path{{PathRegexp, slow}}}}),
		"branch": func(_ bool, sent *testRequest) bool {
			chain := verify.Result(NewChain([]Branch{{Route: Route{Path: slow, PathMatch: PathRegexp}}})).Must(t)
			return (&Router{Chain: chain, Ways: make([]Route, 1)}).Choose([]byte("/"+longText), sent) == 0
		},
		"rewrite": func(bounded bool, sent *testRequest) bool {
			_, _, err := edits(bounded).Append(nil, []byte("/"+longText), nil, sent.Steps())
			return err == ErrSteps
		},
		"redirect": func(bounded bool, sent *testRequest) bool {
			r := verify.Result(NewRegexpRedirect(regexp.MustCompile(slow), "/", RedirectCodes{Code: 302}, bounded)).Must(t)
			r.Append(nil, longPath{}, sent.Steps())
			return sent.steps.exceeded
		},
	} {
		for _, bounded := range []bool{true, name == "branch"} {
			sent := &testRequest{query: "q=" + longText, fields: []string{"x: " + longText, "cookie: c=" + longText}}
			taken := ask(bounded, sent)
			verify.That(t, taken == bounded && sent.steps.Exceeded() == bounded, "%s, bounded %t: exceeded %t, taken %t", name, bounded, sent.steps.Exceeded(), taken)
		}
	}
	// Many of a host, of which each alone is short enough.
	var routes []Route
	for i := range 60 {
		routes = append(routes, Route{HostRegexp: strings.Repeat("(?:a|b)?", 9+i) + "z", Path: "/", Bounded: true, Service: service})
	}
	var steps Steps
	newTable(t, routes).MatchName([]byte(longText[:250]), &steps)
	verify.That(t, steps.Exceeded() && steps.taken <= maxSteps, "host: %+v", steps)
}

// A route that may match denies: a less specific one, which may be open to all, does not
// answer in its place. A more specific one does, and so does one whose other conditions fail.
func TestNoOtherRouteAnswersForOneThatMayMatch(t *testing.T) {
	bounded := Route{Host: "a", Path: slow, PathMatch: PathRegexp, Bounded: true, Service: &Service{Name: "bounded"}, Conditions: Conditions{Methods: []string{"GET"}}}
	table := newTable(t, []Route{
		bounded,
		{Host: "a", Path: "/" + longText[:100] + "/more", Service: &Service{Name: "prefix"}},
		{Path: "/", Service: &Service{Name: "rest"}},
	})
	long := "/" + longText[:100] + "/" + longText
	for _, test := range []struct {
		method, path, want string
		denied             bool
	}{
		{"GET", long, "bounded", true},
		{"PUT", long, "rest", false},
		{"GET", "/" + longText[:100] + "/more/" + longText, "prefix", false},
		{"GET", "/aabz", "bounded", false},
		{"GET", "/ab", "rest", false},
	} {
		sent := &testRequest{method: test.method}
		got := table.Match([]byte("a"), []byte(test.path), sent)
		verify.That(t, got.Service.Name == test.want && sent.steps.Exceeded() == test.denied, "%s %.120s: %s, denied %t", test.method, test.path, got.Service.Name, sent.steps.Exceeded())
	}
}

// Whether a host has a restricted route is not left open.
func TestTooFewStepsMakeAHostRestricted(t *testing.T) {
	table := newTable(t, []Route{{HostRegexp: slow, Path: "/", Bounded: true, Service: &Service{}, Actions: &Actions{ClientCertificate: true}}})
	sent := &testRequest{steps: Steps{taken: maxSteps}}
	verify.That(t, table.Evades([]byte("ab"), []byte("/../x"), sent, nil, false), "the path is let through")
}
