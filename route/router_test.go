package route

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/test/verify"
)

// lowerASCII returns s with ASCII letters in lower case.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}

// naiveBranch returns the index of the first branch that a request takes, in the plainest words;
// -1: none.
func naiveBranch(branches []Branch, target string, r Request) int {
	if target == "" || target == "*" {
		target = "/"
	}
	p := naivePath(target)
	return slices.IndexFunc(branches, func(b Branch) bool {
		pattern, compared := Path{b.Route.PathMatch, b.Route.Path}, p
		if b.IgnoreCase {
			pattern.Text, compared = lowerASCII(pattern.Text), lowerASCII(p)
		}
		return naivePathConditionFits(pattern, compared) && !slices.Contains(naiveConditions(&b.Route.Conditions, "", p, r), false)
	})
}

// branches returns the branches of a chain.
func (s source) branches() []Branch {
	list := make([]Branch, 1+s.IntN(6))
	for i := range list {
		p := s.pathPattern()
		b := &list[i]
		b.Route = Route{Path: p.Text, PathMatch: p.Match}
		if b.IgnoreCase = s.chance(3) && p.Match != PathRegexp; b.IgnoreCase && !strings.Contains(p.Text, "%") {
			b.Route.Path = upperSome(s, p.Text)
		}
		if s.chance(2) {
			b.Route.Conditions = s.conditions(0)
		}
	}
	return list
}

// upperSome returns text with some ASCII letters in upper case.
func upperSome(s source, text string) string {
	b := []byte(text)
	for i, c := range b {
		if c >= 'a' && c <= 'z' && s.chance(2) {
			b[i] -= 'a' - 'A'
		}
	}
	return string(b)
}

// A random request takes the branch that a plain search finds, in any spelling of its path.
func TestRouterChoosesTheFirstBranchThatFits(t *testing.T) {
	taken := 0
	for seed := range uint64(200) {
		s := source{rand.New(rand.NewPCG(seed, 2))}
		branches := s.branches()
		chain := verify.Result(NewChain(branches)).Must(t)
		router := &Router{Chain: chain, Ways: make([]Route, len(branches))}
		for range 60 {
			path, r := s.path(), s.request()
			if s.chance(4) {
				path = upperSome(s, path)
			}
			got, want := router.Choose([]byte(path), r), naiveBranch(branches, path, r)
			verify.Require(t, got == want, "seed %d, path %q, %+v, branches %+v:\ngot %d, want %d", seed, path, r, branches, got, want)
			if want >= 0 {
				taken++
			}
			if chain.usual < len(branches) {
				verify.Require(t, want >= 0 && want <= chain.usual, "seed %d: branch %d is for all requests, and one takes %d", seed, chain.usual, want)
			}
		}
	}
	verify.That(t, taken >= 2_000, "only %d of 12,000 requests take a branch", taken)
}

func TestChainsThatAreNotAllowed(t *testing.T) {
	_, err := NewChain([]Branch{{Route: Route{Path: "/"}}, {Route: Route{Path: "x"}}, {Route: Route{Path: "/", Conditions: Conditions{Scheme: "ftp"}}}})
	verify.That(t, err != nil && strings.Contains(err.Error(), "path") && strings.Contains(err.Error(), "when.scheme"), "error %v", err)
}

// Edits after other edits do what both do, one after the other, and their fields are what a
// condition sees.
func TestEditsAfterEdits(t *testing.T) {
	names := []string{"x-a", "x-b", "x-c"}
	for seed := range uint64(300) {
		s := source{rand.New(rand.NewPCG(seed, 3))}
		edits := func() HeaderEdits {
			set, add, remove := make(map[string]string), make(map[string]string), []string(nil)
			for _, name := range names {
				switch s.IntN(5) {
				case 0:
					set[upperSome(s, name)] = strconv.Itoa(s.IntN(9))
				case 1:
					add[upperSome(s, name)] = strconv.Itoa(s.IntN(9))
				case 2:
					remove = append(remove, name)
				}
			}
			return verify.Result(NewHeaderEdits(set, add, remove)).Must(t)
		}
		lines := func() (list []string) {
			for range s.IntN(5) {
				list = append(list, s.one(names...)+": "+strconv.Itoa(s.IntN(9)))
			}
			return list
		}()
		first, second := edits(), edits()
		want := naiveEdits(naiveEdits(lines, first), second)
		both := first.Then(second)
		verify.DeepEqual(t, naiveEdits(lines, both), want, "seed %d: lines", seed)
		for _, name := range names {
			var got []string
			for value, next := both.Field(&testRequest{fields: lines}, nil, name, 0); next >= 0; value, next = both.Field(&testRequest{fields: lines}, nil, name, next) {
				got = append(got, string(value))
			}
			verify.DeepEqual(t, got, naiveFields(&testRequest{fields: want}, name), "seed %d: %s", seed, name)
		}
	}
}

// naiveEdits returns lines after edits, with names in lower case.
func naiveEdits(lines []string, e HeaderEdits) (edited []string) {
	for _, line := range lines {
		if name, _, _ := strings.Cut(line, ": "); !slices.Contains(e.Dropped, name) {
			edited = append(edited, line)
		}
	}
	for _, line := range e.Added {
		edited = append(edited, strings.ToLower(line.Name)+": "+string(line.Value.Append(nil, nil)))
	}
	return edited
}

// The actions of a route keep all that restricts, whatever a branch adds.
func TestActionsWithThoseOfABranch(t *testing.T) {
	edits := func(name string) HeaderEdits {
		return verify.Result(NewHeaderEdits(map[string]string{name: "1"}, nil, nil)).Must(t)
	}
	own := &Actions{Access: NewAccess(nil, nil), BodyLimit: 5, RequestHeaders: edits("X-Own"), ResponseHeaders: edits("X-Own")}
	verify.That(t, own.With(nil) == own && own.With(&Actions{BodyLimit: 1}) == own, "a branch without edits makes other actions")
	both := own.With(&Actions{BodyLimit: 1, RequestHeaders: edits("X-In"), ResponseHeaders: edits("X-In")})
	verify.That(t, both.Access == own.Access && both.BodyLimit == 5 && both.Restricts(), "actions %+v", both)
	verify.DeepEqual(t, both.RequestHeaders.Dropped, []string{"x-own", "x-in"}, "of requests")
	verify.DeepEqual(t, both.ResponseHeaders.Dropped, []string{"x-in", "x-own"}, "of responses")
	verify.DeepEqual(t, own.RequestHeaders.Dropped, []string{"x-own"}, "the actions of the route itself have changed")
	verify.That(t, (*Actions)(nil).With(both) != nil && (*Actions)(nil).With(nil) == nil, "without actions")
}

// A target with a discovery chain has the peers of the branch for all requests: of a splitter,
// those of all its parts.
func TestUsablePeersOfAChain(t *testing.T) {
	a, b, own := target(t, "a", 2, .5), target(t, "b", 3, .5), target(t, "own", 0, .5)
	chain := verify.Result(NewChain([]Branch{{Route: Route{Path: "/x"}}, {Route: Route{Path: "/"}}, {Route: Route{Path: "/"}}})).Must(t)
	own.Route.Router = &Router{Chain: chain, Ways: []Route{*a.Route, {Weighted: &Weighted{Targets: []Target{a, b}}}, *a.Route}}
	verify.Equal(t, own.UsablePeers(), 5, "peers of a splitter")
	w := &Weighted{Targets: []Target{own, target(t, "c", 1, .5)}}
	verify.DeepEqual(t, w.Shares(), []float64{.5, .5}, "shares")
	own.Route.Router = &Router{Chain: verify.Result(NewChain([]Branch{{Route: Route{Path: "/x"}}})).Must(t), Ways: []Route{*a.Route}}
	verify.Equal(t, own.UsablePeers(), 0, "peers without a branch for all requests")
}

// A client stays on its side when the shares of a splitter change, but for those that the change is
// for, and each side has its share of the clients.
func TestClientsStayOnTheirSideOfASplitter(t *testing.T) {
	const n = 20000
	a, b := target(t, "web@v1", 1, 0), target(t, "web@v2", 1, 0)
	before := make([]bool, n) // whether a client is at b
	for _, share := range []float64{0, .05, .2, .5, 1} {
		a.Share, b.Share = 1-share, share
		w := &Weighted{Targets: []Target{a, b}, Seed: "splitter web"}
		count := 0.
		for i, key := range clients(n) {
			at := w.Choose(key) == &w.Targets[1]
			verify.Require(t, at || !before[i], "client %d has left the side that grew to %v", i, share)
			if before[i] = at; at {
				count++
			}
		}
		verify.That(t, math.Abs(count-n*share) <= 6*math.Sqrt(n*share*(1-share)), "%v of %d clients, want %v", count, n, n*share)
	}
}
