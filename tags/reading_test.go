package tags

import (
	"slices"
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestKeys(t *testing.T) {
	k := Keys{"path": "/"}
	k.Set("1", "when", "header", "X-A.B")
	k.Set([]string{"web"}, "listeners")
	k.Set([]Keys{{"scheme": "https"}}, "when", "any")
	const want = `{"listeners":["web"],"path":"/","when":{"any":[{"scheme":"https"}],"header":{"X-A.B":"1"}}}`
	verify.Equal(t, k.String(), want, "the keys are %s", k)
	verify.Equal(t, k.Get("when", "header", "X-A.B"), "1", "Get returns")
	got := k.Get("path", "x")
	verify.That(t, got == nil, "Get returns %v below a text", got)
	copied := k.Clone()
	k.Set("2", "when", "header", "X-A.B")
	k["listeners"].([]string)[0] = "other"
	k.Get("when", "any").([]Keys)[0]["scheme"] = "http"
	verify.Equal(t, copied.String(), want, "the copy has become %s", copied)
}

func TestDeny(t *testing.T) {
	r := Route{Tags: []string{"t"}, Priority: 3, Keys: Keys{
		"host": "h", "path": "/x", "match": "exact", "methods": []string{"GET"}, "when": Keys{"scheme": "https"},
		"listeners": []string{"web"}, "strip_prefix": "/x", "allow": []string{"::/0"}, "redirect": Keys{"to": "/"},
	}}
	denied := r.Deny()
	const want = `{"deny":["0.0.0.0/0","::/0"],"host":"h","listeners":["web"],"match":"exact","methods":["GET"],"path":"/x","when":{"scheme":"https"}}`
	verify.That(t, denied.Keys.String() == want && denied.Closed && denied.Priority == 3 && slices.Equal(denied.Tags, r.Tags), "the closed route is %+v, want %s", denied, want)
	verify.That(t, !r.Closed && r.Keys["strip_prefix"] != nil, "the route itself has become %+v", r)
}

// A route beyond the limit that says who may use it is not lost: a broader one could answer its
// requests.
func TestLimitKeepsRestrictions(t *testing.T) {
	var r Reading
	for range MaxRoutes {
		r.Routes = append(r.Routes, Route{Tags: []string{"open"}, Keys: Keys{"path": "/"}})
	}
	r.Routes = append(r.Routes, Route{Tags: []string{"restricted"}, Keys: Keys{"path": "/x", "allow": []string{"10.0.0.0/8"}}})
	r.Limit()
	verify.That(t, len(r.Routes) == MaxRoutes && slices.ContainsFunc(r.Routes, func(r Route) bool { return r.Tags[0] == "restricted" }), "%d routes, without the restricted one", len(r.Routes))
	verify.Equal(t, r.Complaints[0].Tag, "open", "the complaint is about the tag")
}

func TestReadingSet(t *testing.T) {
	var r Reading
	for _, step := range []struct {
		keys Keys
		ok   bool
	}{
		{nil, true},
		{Keys{"upstream": Keys{}}, true},
		{Keys{"upstream": Keys{}}, true},
		{Keys{"upstream": Keys{"protocol": "h2c"}}, false}, // no merge: the parts belong together
		{Keys{"balance": Keys{"policy": "sticky"}}, true},
	} {
		verify.Equal(t, r.Set(step.keys, "tag"), step.ok, "Set(%s) returns", step.keys)
	}
	verify.Equal(t, r.Service.String(), `{"balance":{"policy":"sticky"},"upstream":{}}`, "the settings")
	verify.That(t, len(r.Complaints) == 1 && strings.Contains(r.Complaints[0].Want, "another upstream"), "the complaints are %v", r.Complaints)
}

func TestCheck(t *testing.T) {
	for tag, column := range map[string]int{
		"plain":                         0,
		"bell\a":                        5,
		"\tindented":                    1,
		"new\nline":                     4,
		"delete\x7f":                    7,
		"umlaut ü, broken \xff":         0,
		strings.Repeat("x", MaxTag):     0,
		strings.Repeat("x", MaxTag+1):   MaxTag + 1,
		strings.Repeat("é", MaxTag/2):   0,
		strings.Repeat("é\n", MaxTag):   3,
		"a complaint \u2028 about this": 0,
	} {
		c := Check(tag)
		verify.Require(t, (c != nil) == (column > 0), "%q: the complaint is %v, want column %d", Shorten(tag), c, column)
		if c != nil {
			verify.Equal(t, c.Column, column, "%q: the column of the complaint", Shorten(tag))
			verify.That(t, !strings.ContainsAny(c.Want, "\n\a\t"), "the complaint has several lines: %v", c)
		}
	}
}

func TestMasked(t *testing.T) {
	for tag, want := range map[string]string{
		"Traefik.http.middlewares.m.basicAuth.Users =ada:$apr1$a==": "Traefik.http.middlewares.m.basicAuth.Users =***",
		"traefik.http.middlewares.m.digestauth.users=ada:x:y":       "traefik.http.middlewares.m.digestauth.users=***",
		"traefik.http.middlewares.m.basicauth.usersfile=/x":         "traefik.http.middlewares.m.basicauth.usersfile=/x",
		"sluice.route=/auth.users":                                  "sluice.route=/auth.users",
		"auth.users":                                                "auth.users",
		"traefik.http.middlewares.m.basicauth.users= ada:x:y":       "traefik.http.middlewares.m.basicauth.users=***",
		"traefik.http.middlewares.m.basicauth.users=\nada:x:y":      "traefik.http.middlewares.m.basicauth.users=***",
		"sluice.route=h/ basic_auth.users=a:$2y$05$x strip=/x":      "sluice.route=h/ basic_auth.users=***",
	} {
		verify.Equal(t, Masked(tag), want, "%s", tag)
	}
}
