package cli

import (
	"encoding/json"
	"net/http"
	"testing"

	"sluice/admin"
	"sluice/test/verify"
)

func TestTagsCommand(t *testing.T) {
	ask := func(service, tag string) *admin.TagAsk { return &admin.TagAsk{Service: service, Tag: tag} }
	because := func(reasons ...string) (all []admin.TagProblem) {
		for _, reason := range reasons {
			all = append(all, admin.TagProblem{Reason: reason})
		}
		return all
	}
	routes := []admin.Route{
		{Service: "file"},
		{Service: "sun", AskedBy: ask("sun", "a"), SharedWith: []admin.TagAsk{*ask("moon", "a")}},
		{Service: "sun", AskedBy: ask("sun", "b"), Problems: because("without timeout")},
		{Service: "moon", AskedBy: ask("moon", "c"), Unused: true, Problems: because("want\nan entry")},
		{Service: "moon", AskedBy: ask("moon", "c"), Unused: true, Problems: because("want\nan entry", "other")},
		{Service: "star", AskedBy: ask("star", "d")},
		{Service: "star", AskedBy: ask("star", "d"), Unused: true, Problems: because("bad; the route denies every request")},
	}
	address := serveHandler(t, func(w http.ResponseWriter, r *http.Request) {
		verify.Equal(t, r.URL.Path, "/api/routes", "the path")
		_ = json.NewEncoder(w).Encode(routes)
	})
	show := func(want string, args ...string) {
		t.Helper()
		status, stdout, stderr := execute(t, append([]string{"tags", "--admin", address}, args...)...)
		verify.That(t, status == exitOK && stdout == want && stderr == "", "status %d\n%s%s want\n%s", status, stdout, stderr, want)
	}
	show(`SERVICE  TAG  USED    WHY
moon     a    yes     
moon     c    no      want?an entry; other
star     d    partly  bad; the route denies every request
sun      a    yes     
sun      b    partly  without timeout
`)
	show("SERVICE  TAG  USED    WHY\nstar     d    partly  bad; the route denies every request\n", "star")
	show("no tag asks for a route\n", "nosuch")
}
