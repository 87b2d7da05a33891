package traefik

import (
	"regexp"
	"strings"
	"testing"

	"sluice/route"
	"sluice/tags"
	"sluice/test/verify"
)

// requestOf has the parts of a URL.
type requestOf string

func (u requestOf) Variable(v route.Variable) []byte {
	scheme, rest, _ := strings.Cut(string(u), "://")
	at := strings.IndexByte(rest, '/')
	switch v {
	case route.VariableScheme:
		return []byte(scheme)
	case route.VariableAuthority:
		return []byte(rest[:at])
	case route.VariableTarget:
		return []byte(rest[at:])
	}
	return nil
}

// TestRedirectRegexp compares redirects with what Traefik does: it replaces the matches in the
// URL with regexp.ReplaceAllString.
func TestRedirectRegexp(t *testing.T) {
	for _, test := range [][2]string{ // some from Traefik's documentation and issues
		{`^http://localhost/(.*)`, `http://mydomain/${1}`},
		{`^https?://(?:www\.)?(.+)`, `https://$1`},
		{`^https?://www\.(.*)`, `https://${1}`},
		{`^(https?://[^/]+/[a-z0-9_]+)$`, `${1}/`},
		{`^https://(.*)/.well-known/(?:card|cal)dav`, `https://${1}/remote.php/dav`},
		{`(?i)HTTP://A\.example(:\d+)?`, `https://b.example$1`},
		{`^http://(?P<host>[^/]+)/(?P<path>.*)$`, `https://${host}/x/$path`},
		{`example/old|example/older`, `example/new`},
		{`/old/?`, `/new/$0`},
		{`\?.*$`, ``},
		{`^(.*)$`, `$1$$2$x$`},
		{`[0-9]+`, `$0$0`},
	} {
		list := []string{
			"traefik.enable=true", "traefik.http.routers.r.rule=Host(`a`)", "traefik.http.routers.r.middlewares=m",
			"traefik.http.middlewares.m.redirectregex.regex=" + test[0], "traefik.http.middlewares.m.redirectregex.replacement=" + test[1],
		}
		r := Read(tags.Instance{Service: "s", Port: 80, Tags: list}, Options{})
		verify.Require(t, len(r.Routes) == 1, "%q makes no route: %v", test, r.Complaints)
		keys := r.Routes[0].Keys["redirect"].(tags.Keys)
		redirect, err := route.NewRegexpRedirect(regexp.MustCompile(keys["regexp"].(string)), keys["to"].(string), route.RedirectCodes{Code: 307}, false)
		verify.Require(t, err == nil, "%q: %v", test, err)
		re := regexp.MustCompile(test[0])
		for _, url := range []string{
			"http://localhost/", "http://localhost/a/b?c=d", "https://www.a.example/x", "http://a.example:81/dash", "http://www.example/old/x", "https://example/older",
			"https://cloud.example/.well-known/caldav", "http://A.example/?x", "https://a.example/y/old/", "http://example/7",
		} {
			want := ""
			if re.MatchString(url) {
				want = re.ReplaceAllString(url, test[1])
			}
			verify.Equal(t, string(redirect.Append(nil, requestOf(url), nil)), want, "%q: what %s becomes in Traefik", test, url)
		}
	}
}

// TestPathRegexps compares the paths that middlewares with a pattern make with Traefik's.
func TestPathRegexps(t *testing.T) {
	for _, test := range []struct {
		middleware []string
		paths      [][2]string // as sent, and as Traefik forwards it
	}{
		{[]string{"replacepathregex.regex=^/foo/(.*)", "replacepathregex.replacement=/bar/$1"}, [][2]string{
			{"/foo/a/b", "/bar/a/b"}, {"/foo", "/foo"}, {"/x/foo/a", "/x/foo/a"},
		}},
		{[]string{"replacepathregex.regex=/foo", "replacepathregex.replacement=/bar"}, [][2]string{
			{"/a/foo/b", "/a/bar/b"}, {"/foo", "/bar"},
		}},
		{[]string{"replacepathregex.regex=^/foo/(?P<id>[0-9]+)", "replacepathregex.replacement=/${id}x"}, [][2]string{
			{"/foo/12/b", "/12x/b"},
		}},
		{[]string{"replacepathregex.regex=/foo"}, [][2]string{{"/foo/x", "/foo/x"}}},
		{[]string{"stripprefixregex.regex=/foo/[a-z0-9]+/[0-9]+/"}, [][2]string{
			{"/foo/abc/12/x", "/x"}, {"/foo/abc/12/", "/"}, {"/x/foo/abc/12/x", "/x/foo/abc/12/x"},
		}},
		{[]string{"stripprefixregex.regex=^/(v[0-9]),/api"}, [][2]string{
			{"/v1/x/y", "/x/y"}, {"/api", "/"}, {"/apix", "/x"},
		}},
	} {
		list := []string{"traefik.enable=true", "traefik.http.routers.r.rule=Host(`a`)", "traefik.http.routers.r.middlewares=m"}
		for _, tag := range test.middleware {
			list = append(list, "traefik.http.middlewares.m."+tag)
		}
		r := Read(tags.Instance{Service: "s", Port: 80, Tags: list}, Options{})
		verify.Require(t, len(r.Routes) == 1, "%q makes no route: %v", test.middleware, r.Complaints)
		var edits route.PathEdits
		if keys, ok := r.Routes[0].Keys["rewrite"].(tags.Keys); ok {
			o := route.PathOptions{Rewrite: regexp.MustCompile(keys["regexp"].(string)), To: keys["to"].(string)}
			edits = verify.Result(route.NewPathEdits(o)).Must(t)
		}
		for _, path := range test.paths {
			got, _, err := edits.Append(nil, []byte(path[0]), nil, nil)
			verify.NoError(t, err)
			verify.Equal(t, string(got), path[1], "%q: what %s becomes in Traefik", test.middleware, path[0])
		}
	}
}
