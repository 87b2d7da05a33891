package admin

import (
	"encoding/json"
	"testing"

	"sluice/config"
	"sluice/route"
	"sluice/tags/claim"
	"sluice/test/verify"
)

var (
	starAsks = claim.Ask{Service: "star", Instances: []claim.Named{{ID: "star-1", Node: "a"}, {ID: "star-1", Node: "b"}, {ID: "star-2", Node: "a"}}, Dialect: "fabio", Tag: "urlprefix-h/ weight=x"}
	evilAsks = claim.Ask{Service: "evil", Instances: []claim.Named{{ID: "evil-1"}}, Dialect: "fabio", Tag: "urlprefix-h/"}

	starAsked = TagAsk{"star", []string{"star-1", "star-2"}, "fabio", "urlprefix-h/ weight=x"}
	evilAsked = TagAsk{"evil", []string{"evil-1"}, "fabio", "urlprefix-h/"}
)

func TestTagProblems(t *testing.T) {
	result := claim.Result{Problems: []claim.Problem{
		{Ask: starAsks, Kind: claim.KindBad, Column: 3, Reason: "has no route"},
		{Ask: evilAsks, Kind: claim.KindConflict, Harmless: true, Winner: &starAsks},
	}}
	h := handlerOf(Options{Routes: Routes{Tags: func() claim.Result { return result }}})
	want := []TagProblem{
		{TagAsk: starAsked, Kind: "bad", Column: 3, Reason: "has no route"},
		{TagAsk: evilAsked, Kind: "conflict", Harmless: true, LostTo: &starAsked},
	}
	verify.DeepEqual(t, getJSON[[]TagProblem](t, h, "/api/tags"), want, "the problems")
}

// TestRoutesOfTags has a route of a tag with everything, one of the file, and tags that get
// nothing.
func TestRoutesOfTags(t *testing.T) {
	wanted := config.Route{Host: "h", Path: "/", Match: "prefix", Dialect: "fabio"}
	used := wanted
	used.Service, used.Actions = "star", config.Actions{StripPrefix: "/x", Redirect: &config.Redirect{To: "/y", Code: 302}}
	file := config.Route{Path: "/", Match: "prefix", Service: "rest"}
	targets := []route.Route{used.Target(), file.Target()}
	targets[0].Service, targets[1].Service = &route.Service{Name: "star"}, &route.Service{Name: "rest"}
	table := verify.Result(route.NewTable(targets)).Must(t)
	key := keyOf(used.Target())
	result := claim.Result{
		Routes: []claim.Route{{Route: used, Key: key, By: starAsks, Tags: []string{"other", starAsks.Tag}, Over: []claim.Ask{evilAsks}}},
		Problems: []claim.Problem{
			{Ask: starAsks, Kind: claim.KindBad, Reason: "not a number", Harmless: true},
			{Ask: evilAsks, Kind: claim.KindConflict, Reason: "star has it", Wanted: &wanted, Winner: &starAsks},
			{Ask: claim.Ask{Service: "evil", Dialect: "fabio", Tag: "urlprefix-"}, Kind: claim.KindBad, Reason: "no route", Harmless: true},
		},
	}
	h := handlerOf(Options{Routes: Routes{
		Table:     func() *route.Table { return table },
		Effective: func() *config.Config { return &config.Config{Routes: []config.Route{file, used}} },
		Tags:      func() claim.Result { return result },
	}})
	want := []Route{
		{Host: "h", Path: "/", Match: "prefix", Class: "tag", Service: "star", Actions: json.RawMessage(`{"strip_prefix":"/x","redirect":{"to":"/y","code":302}}`),
			AskedBy: &starAsked, WonAgainst: []TagAsk{evilAsked},
			Problems: []TagProblem{{TagAsk: starAsked, Kind: "bad", Reason: "not a number", Harmless: true}}},
		{Path: "/", Match: "prefix", Class: "document", Service: "rest"},
		{Host: "h", Path: "/", Match: "prefix", Class: "tag", Service: "evil", AskedBy: &evilAsked, Unused: true,
			Problems: []TagProblem{{TagAsk: evilAsked, Kind: "conflict", Reason: "star has it", LostTo: &starAsked}}},
		{Service: "evil", AskedBy: &TagAsk{"evil", []string{}, "fabio", "urlprefix-"}, Unused: true,
			Problems: []TagProblem{{TagAsk: TagAsk{"evil", []string{}, "fabio", "urlprefix-"}, Kind: "bad", Reason: "no route", Harmless: true}}},
	}
	got := getJSON[[]Route](t, h, "/api/routes")
	verify.Require(t, len(got) == len(want), "%d routes, want %d", len(got), len(want))
	verify.DeepEqual(t, decode[any](t, string(got[0].Actions)), decode[any](t, string(want[0].Actions)), "actions")
	got[0].Actions, want[0].Actions = nil, nil
	for i := range got {
		verify.DeepEqual(t, got[i], want[i], "route %d", i)
	}
}
