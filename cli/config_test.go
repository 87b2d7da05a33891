package cli

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/admin"
	"sluice/config"
	"sluice/test/verify"
)

var (
	longFilter = strings.Repeat("Service.Meta.zone != z and ", 10) + "Service.Meta.zone"
	longReason = "rollback to 11: search fails; not known then, so it stays: " + strings.Repeat("consul_kv:teams/search/, ", 10) + "routes.d/*.yaml"
)

// configServer answers as the admin API of a sluice with three revisions, the last with a pin.
type configServer struct {
	asked  []string // method, URL and If-Match of each request
	status int      // of a rollback
	error  string   // then
}

func (s *configServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked = append(s.asked, strings.TrimSpace(r.Method+" "+strings.TrimSuffix(r.URL.String(), "?")+" "+r.Header.Get("If-Match")))
	begin := time.Date(2026, 11, 21, 9, 0, 0, 0, time.Local)
	revisions := []admin.Revision{
		{Number: 12, Time: begin.Add(2 * time.Minute), Hash: "5c2e99d1f0aa", Reason: "rollback to 3: search\x1b[2J fails", Sources: []admin.SourceInUse{
			{Name: "sluice.yaml"}, {Name: "consul_kv:sluice/", Pinned: 3}}},
		{Number: 11, Time: begin.Add(time.Minute), Hash: "8a11d03c7e21", Reason: "changed: consul_kv:sluice/"},
		{Number: 3, Time: begin, Hash: "5c2e99d1f0aa", Reason: "start"},
	}
	var answer any
	switch {
	case r.URL.Path == "/api/config/history":
		answer = revisions
	case r.URL.Path == "/api/config":
		answer = revisions[1]
	case r.URL.Path == "/api/config/values" && r.URL.Query().Get("service") == "star":
		answer = []config.Value{{Key: "services.star.timeouts.idle", Value: "7s", From: "sluice.yaml:3 (defaults)"}, {Key: "routes[0].host", Value: "a\x1b[2J", From: "built in"}}
	case r.URL.Path == "/api/config/diff/3/11":
		answer = []config.Change{{Key: "services.search.timeouts.connect", Before: "1s", After: "2s"}, {Key: "routes[/a]", After: "{path: /a}"}, {Key: "consul.token", Before: "***", After: "***"}}
	case r.URL.Path == "/api/config/diff/11/12":
		answer = []config.Change{{Key: "services.search.consul.filter", Before: longFilter + " == a", After: longFilter + " == b"}}
	case r.URL.Path == "/api/config/rollback" && s.status == http.StatusOK:
		answer = revisions[0]
		if r.URL.Query().Get("number") == "11" {
			answer = admin.Revision{Number: 13, Reason: longReason}
		}
	default:
		w.WriteHeader(s.status)
		answer = map[string]string{"error": s.error}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func TestConfigCommands(t *testing.T) {
	s := &configServer{status: http.StatusOK}
	address := serveHandler(t, s.ServeHTTP)
	do := commandsTo(t, address)
	do(exitOK, `NUMBER  TIME                 HASH          REASON
12      2026-11-21 09:02:00  5c2e99d1f0aa  rollback to 3: search?[2J fails
                                             consul_kv:sluice/ is pinned to revision 3
11      2026-11-21 09:01:00  8a11d03c7e21  changed: consul_kv:sluice/
3       2026-11-21 09:00:00  5c2e99d1f0aa  start
`, "config", "history")
	do(exitOK, "services.search.timeouts.connect: 1s -> 2s\nroutes[/a]: added {path: /a}\nconsul.token: changed (the value is secret)\n", "config", "diff", "3", "11")
	// Values that differ at their ends only.
	do(exitOK, "services.search.consul.filter: "+longFilter+" == a -> "+longFilter+" == b\n", "config", "diff", "11", "12")

	do(exitOK, `KEY                          VALUE  FROM
services.star.timeouts.idle  7s     sluice.yaml:3 (defaults)
routes[0].host               a?[2J  built in
`, "config", "show", "--service", "star")

	s.asked = nil
	do(exitOK, "revision 12 is in use: rollback to 3: search?[2J fails\nconsul_kv:sluice/ is pinned to its documents of revision 3 until it changes\n",
		"config", "rollback", "3", "--why", "search fails")
	got, want := strings.Join(s.asked, "\n"), "GET /api/config\nPOST /api/config/rollback?number=3&why=search+fails \"8a11d03c7e21\""
	verify.That(t, got == want, "asked\n%s\nwant\n%s", got, want)

	do(exitOK, "revision 13 is in use: "+longReason+"\n", "config", "rollback", "11", "--why", "search fails")

	// Another operator was faster, and a revision that is not kept.
	s.status, s.error = http.StatusPreconditionFailed, "the configuration has changed: it has the hash 5c2e99d1f0aa"
	do(exitFailed, "sluice: admin API at "+address+": "+s.error+"\n", "config", "rollback", "3")
	s.status, s.error = http.StatusNotFound, "no revision 7"
	do(exitFailed, "sluice: admin API at "+address+": no revision 7\n", "config", "diff", "7", "11")
}

func TestConfigCommandsNameWhatTheyWant(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"config"}, "want history, diff, rollback, schema, show or try"},
		{[]string{"config", "diff", "1"}, "name two revisions by their numbers"},
		{[]string{"config", "diff", "1", "two"}, `"two": want the number of a revision`},
		{[]string{"config", "rollback"}, "name one revision by its number"},
		{[]string{"config", "rollback", "-1"}, ""},
		{[]string{"config", "rollback", "latest"}, `"latest": want the number of a revision`},
		{[]string{"config", "history", "3"}, ""},
		{[]string{"config", "show", "star"}, ""},
		{[]string{"config", "show", "--config", "sluice.yaml", "--json"}, "--json prints the answer of a running sluice: want no --config"},
	} {
		prints(t, exitUsage, test.want, test.args...)
	}
}

func TestConfigShowReadsAFile(t *testing.T) {
	file := writeFile(t, "sluice.yaml", "defaults: { service: { timeouts: { idle: 7s } } }\n"+
		"services: { star: { consul: {} } }\nroutes: [{ service: star }]\n")
	status, stdout, _ := execute(t, "config", "show", "--config", file, "--service", "star")
	lines := strings.Split(strings.Join(strings.FieldsFunc(stdout, func(r rune) bool { return r == ' ' }), " "), "\n")
	for _, want := range []string{"KEY VALUE FROM", "services.star.timeouts.idle 7s " + file + ":1 (defaults)", "services.star.timeouts.connect 1s built in", "routes[0].service star " + file + ":3"} {
		verify.That(t, status == exitOK && slices.Contains(lines, want), "status %d, no line %q:\n%s", status, want, stdout)
	}
	prints(t, exitFailed, `no service has the name "stra", did you mean "star"?`, "config", "show", "--config", file, "--service", "stra")
	prints(t, exitOK, "\nlog.level ", "config", "show", "--config", file)
}
