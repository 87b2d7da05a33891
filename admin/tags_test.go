package admin

import (
	"reflect"
	"testing"

	"sluice/catalog/claim"
)

func TestTagProblems(t *testing.T) {
	h := handlerOf(Options{Tags: func() []claim.Problem {
		return []claim.Problem{{Service: "star", Instances: []string{"star-1"}, Dialect: "fabio", Tag: "urlprefix-", Column: 3, Reason: "has no route"}, {Harmless: true}}
	}})
	want := []TagProblem{
		{Service: "star", Instances: []string{"star-1"}, Dialect: "fabio", Tag: "urlprefix-", Column: 3, Reason: "has no route"},
		{Instances: []string{}, Harmless: true},
	}
	if got := getJSON[[]TagProblem](t, h, "/api/tags"); !reflect.DeepEqual(got, want) {
		t.Errorf("the problems are %+v, want %+v", got, want)
	}
}
