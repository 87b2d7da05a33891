package config

import (
	"testing"

	"sluice/route"
	"sluice/test/verify"
)

// withGroups is a service with these keys and a route with those, in flow style.
func withGroups(service, route string) string {
	return "services: { star: { consul: {}, " + service + " } }\nroutes: [{ service: star, " + route + " }]"
}

const twoGroups = "groups: { canary: { tags: [v2] }, beta: { tags: [b], meta: { zone: eu } } }"

func TestGroupsAndSplits(t *testing.T) {
	c := mustParse(t, withGroups(twoGroups+", split: { canary: 5%, beta: 0.25 }", "split: { canary: 100%, key: header X-User, fallback: rest }"))
	s, r := c.Services["star"], c.Routes[0]
	verify.DeepEqual(t, s.Groups, map[string]Group{"canary": {Tags: []string{"v2"}}, "beta": {Tags: []string{"b"}, Meta: map[string]string{"zone": "eu"}}}, "groups")
	verify.Slices(t, s.Split.Shares(), []Share{{"beta", .25}, {"canary", .05}}, "shares")
	verify.That(t, s.Split.Key() == route.SplitKey{} && s.Split.Fallback() == "", "key %v, fallback %q", s.Split.Key(), s.Split.Fallback())
	verify.Slices(t, r.Split.Shares(), []Share{{"canary", 1}}, "shares of the route")
	verify.Equal(t, r.Split.Key(), route.SplitKey{Source: route.SplitHeader, Header: "x-user"}, "key of the route")
	verify.Equal(t, r.Split.Fallback(), "rest", "fallback of the route")
	verify.Equal(t, mustParse(t, withGroups(twoGroups, "group: rest")).Routes[0].Group, "rest", "group")
}

func TestWrongGroupsAndSplits(t *testing.T) {
	for _, test := range []struct{ service, route, want string }{
		{"judge: {}", "", "services.star.judge: needs a split of the service"},
		{twoGroups + ", split: { canary: 5%, beta: 5% }, judge: {}", "", "services.star.judge: needs a split of the service with the share of one group"},
		{twoGroups + ", split: { canary: 5% }, judge: { steps: [5%, 25%, 25%] }", "", `services.star.judge.steps[2]: value "25%": want more than the step before`},
		{twoGroups + ", split: { canary: 5% }, judge: { steps: [0], step: 1s }", "", "services.star.judge.steps[0]"},
		{"groups: { rest: { tags: [a] } }", "", `services.star.groups.rest: value "rest": this name has a meaning`},
		{"groups: { fallback: { tags: [a] } }", "", `services.star.groups.fallback: value "fallback": this name has a meaning`},
		{"groups: { a: {} }", "", "services.star.groups.a: without a condition"},
		{"groups: { a: { tags: [v] }, b: { tags: [v] } }", "", "services.star.groups.b: the same as services.star.groups.a"},
		{"groups: { ä: { tags: [v] } }", "", "a name of up to 128"},
		{twoGroups + ", split: { canery: 5% }", "", `services.star.split.canery: value "canery": no such group (known: beta, canary)`},
		{twoGroups + ", split: { canary: 5 }", "", `services.star.split.canary: value "5": want a number from 0 to 1, or a percentage`},
		{twoGroups + ", split: { canary: 60%, beta: 50% }", "", "services.star.split: the shares add up to 110%, want at most 100%"},
		{twoGroups + ", split: { canary: 5%, rest: 95% }", "", "services.star.split.rest: value \"95%\": not a share"},
		{twoGroups + ", split: { key: cookie }", "", "services.star.split: without a share"},
		{twoGroups + ", split: { canary: 5%, key: path }", "", `services.star.split.key: value "path": want cookie`},
		{twoGroups + ", split: { canary: 5%, fallback: all }", "", `services.star.split.fallback: value "all": no such group (known: beta, canary, rest)`},
		{"split: { canary: 5% }", "", `services.star.split.canary: value "canary": the service has no groups`},
		{"retry: {}", "group: rest", `routes[0].group: value "rest": the service has no groups`},
		{twoGroups, "group: gamma", `routes[0].group: value "gamma": no such group`},
		{twoGroups, "group: canary, split: { canary: 5% }", `routes[0].group: value "canary": not with split`},
		{twoGroups, "split: { gamma: 5% }", `routes[0].split.gamma: value "gamma": no such group`},
	} {
		refuses(t, withGroups(test.service, test.route), test.want)
	}
}
