package route

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"sluice/test/verify"
)

// someValues are the values of variables in tests.
type someValues map[Variable]string

func (s someValues) Variable(v Variable) []byte { return []byte(s[v]) }

func TestTemplate(t *testing.T) {
	values := someValues{VariableHost: "a.example", VariablePath: "/p", VariableScheme: "https"}
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"plain", "plain"},
		{"$scheme://$host$path", "https://a.example/p"},
		{"${host}x$$y$$$host", "a.examplex$y$a.example"},
		{"$query", ""},
	} {
		tpl, err := ParseTemplate(test.text, NoGroups)
		got := string(tpl.Append(nil, values))
		verify.That(t, err == nil && got == test.want, "%q: got %q, %v, want %q", test.text, got, err, test.want)
	}
	for text, want := range map[string]string{
		"a\r\nb":   "contains '\\r'",
		"$nothing": "$nothing is not a variable",
		"$3":       "no such group",
		"${12}":    "no such group",
	} {
		_, err := ParseTemplate(text, 2)
		verify.That(t, err != nil && strings.Contains(err.Error(), want), "%q: %v, want %q", text, err, want)
	}
}

func TestHeaderEditsThatAreNotAllowed(t *testing.T) {
	for _, name := range []string{
		"Connection", "KEEP-ALIVE", "Transfer-Encoding", "Content-Length", "Upgrade", "TE", "Trailer", "Host", "Expect", "Via",
		"Proxy-Connection", "HTTP2-Settings", "Sec-WebSocket-Accept", "X-Sluice-Reason", "Grpc-Status", "Max-Forwards", "", "a b", "a:", "a\r\n",
	} {
		one := map[string]string{name: "x"}
		for list, err := range map[string]error{
			"set":    second(NewHeaderEdits(one, nil, nil)),
			"add":    second(NewHeaderEdits(nil, one, nil)),
			"remove": second(NewHeaderEdits(nil, nil, []string{name})),
		} {
			wrong := new(OptionError)
			verify.That(t, errors.As(err, &wrong) && wrong.Key == list && wrong.Value == name, "%s %q: %v", list, name, err)
		}
	}
	for _, test := range []struct{ set, remove []string }{
		{[]string{"X-A", "x-a"}, nil}, {[]string{"X-A"}, []string{"x-A"}}, {nil, []string{"X-A", "X-A"}},
	} {
		set := make(map[string]string)
		for _, name := range test.set {
			set[name] = ""
		}
		_, err := NewHeaderEdits(set, nil, test.remove)
		verify.That(t, err != nil, "set %q, remove %q: no error", test.set, test.remove)
	}
	for _, value := range []string{"a\nb", "$0", "${0}", "$1"} {
		_, err := NewHeaderEdits(map[string]string{"X-A": value}, nil, nil)
		verify.That(t, err != nil, "the value %q: no error", value)
	}
}

func second[A any](_ A, err error) error { return err }

func TestPathEditsThatAreNotAllowed(t *testing.T) {
	for _, o := range []PathOptions{
		{Strip: "api"}, {Strip: "/a//b"}, {Strip: "/a/../b"}, {Strip: "/a/."}, {Strip: "/a%20"}, {Strip: "/a;b"}, {Strip: "/ä"}, {Strip: "/a b"}, {Strip: "/a?"},
		{Add: "v1"}, {Add: "/.."}, {Add: "/a\r\n"}, {Replacement: "v1"}, {Replacement: "/v1?a=b"},
		{Rewrite: regexp.MustCompile("x")}, {Rewrite: regexp.MustCompile("x"), To: "y"}, {Rewrite: regexp.MustCompile("(x)"), To: "y$1"}, {Rewrite: regexp.MustCompile("x"), To: "/$1"}, {Rewrite: regexp.MustCompile("x"), To: "/$host"},
		{Rewrite: regexp.MustCompile("x"), To: "/a b"}, {Rewrite: regexp.MustCompile("x"), To: "/#"}, {Rewrite: regexp.MustCompile("x"), To: "/\x00"},
	} {
		wrong := new(OptionError)
		_, err := NewPathEdits(o)
		verify.That(t, errors.As(err, &wrong), "%+v: %v", o, err)
	}
}

func TestPathEdits(t *testing.T) {
	for _, test := range []struct {
		o          PathOptions
		path, want string // want: the target with the query "?q", or the error
		stripped   bool
	}{
		{PathOptions{Strip: "/api"}, "/api", "/?q", true},
		{PathOptions{Strip: "/api"}, "/api/", "/?q", true},
		{PathOptions{Strip: "/api"}, "/api//x", "//x?q", true},
		{PathOptions{Strip: "/api"}, "/apix", "/apix?q", false},
		{PathOptions{Strip: "/api"}, "", "/?q", false},
		{PathOptions{Strip: "/api"}, "/x/api", "/x/api?q", false},
		{PathOptions{Strip: "/api"}, "/api%2fx", ErrEncodedPrefix.Error(), false},
		{PathOptions{Strip: "/api"}, "/api;v=1/x", ErrEncodedPrefix.Error(), false},
		{PathOptions{Strip: "/api"}, `/api\x`, ErrEncodedPrefix.Error(), false},
		{PathOptions{Strip: "/api"}, "//api/x", ErrEncodedPrefix.Error(), false},
		{PathOptions{Strip: "/api"}, "/./api/x", ErrEncodedPrefix.Error(), false},
		{PathOptions{Strip: "/api"}, "/%61pi", ErrEncodedPrefix.Error(), false},
		{PathOptions{Strip: "/api"}, "/%2561pi", "/%2561pi?q", false},
		{PathOptions{Strip: "/api"}, "/api/%2561/", "/%2561/?q", true},
		{PathOptions{Strip: "/a/b"}, "/a%2fb/c", ErrEncodedPrefix.Error(), false},
		{PathOptions{Strip: "/api", StripString: true}, "/apix", "/x?q", true},
		{PathOptions{Strip: "/api", StripString: true}, "/api%78", ErrEncodedPrefix.Error(), false},
		{PathOptions{Strip: "/api", Replacement: "/v1"}, "/api", "/v1?q", true},
		{PathOptions{Strip: "/api", Replacement: "/v1/"}, "/api", "/v1/?q", true},
		{PathOptions{Strip: "/api", Replacement: "/v1"}, "/api/x", "/v1/x?q", true},
		{PathOptions{Strip: "/api", Replacement: "/v1/"}, "/api/x", "/v1/x?q", true},
		{PathOptions{Strip: "/api/", Replacement: "/v1"}, "/api/x", "/v1/x?q", true},
		{PathOptions{Strip: "/api", Replacement: "/"}, "/api", "/?q", true},
		{PathOptions{Strip: "/api", Replacement: "/"}, "/api/x", "/x?q", true},
		{PathOptions{Strip: "/", Replacement: "/v1"}, "/x", "/v1/x?q", false},
		{PathOptions{Strip: "/", Replacement: "/v1/"}, "/", "/v1/?q", false},
		{PathOptions{Strip: "/api", Replacement: "/v1"}, "/apix", "/apix?q", false},
		{PathOptions{Strip: "/api", Replacement: "/v1"}, "/%61pi/x", ErrEncodedPrefix.Error(), false},
		{PathOptions{Strip: "/api", Replacement: "/v1"}, "/api/../x", ErrDotSegment.Error(), false},
		{PathOptions{Strip: "/api", Replacement: "/v1", StripString: true}, "/apix", "/v1x?q", true},
		{PathOptions{Strip: "/api", Replacement: "/v1/", StripString: true}, "/apix", "/v1/x?q", true},
		{PathOptions{Strip: "/api", Replacement: "/v1", StripString: true}, "/api/x", "/v1/x?q", true},
		{PathOptions{Strip: "/api", Replacement: "/v1", IgnoreCase: true}, "/ApI/X", "/v1/X?q", true},
		{PathOptions{Strip: "/Api", Replacement: "/v1", IgnoreCase: true}, "/%61PI/x", ErrEncodedPrefix.Error(), false},
		{PathOptions{Strip: "/Api", Replacement: "/v1"}, "/api/x", "/api/x?q", false},
		{PathOptions{Add: "/v1"}, "/x", "/v1/x?q", false},
		{PathOptions{Add: "/v1"}, "", "/v1/?q", false},
		{PathOptions{Add: "/v1"}, "/../x", ErrDotSegment.Error(), false},
		{PathOptions{Add: "/v1"}, "/x/%2E%2e/y", ErrDotSegment.Error(), false},
		{PathOptions{Add: "/v1"}, "/x/..;a/y", ErrDotSegment.Error(), false},
		{PathOptions{Add: "/v1"}, `/x\..\y`, ErrDotSegment.Error(), false},
		{PathOptions{Add: "/v1"}, "/x..", "/v1/x..?q", false},
		{PathOptions{Add: "/v1"}, "/.x/...", "/v1/.x/...?q", false},
		{PathOptions{Rewrite: regexp.MustCompile("^/a(/x)?/(.*)$"), To: "/b$1/$2"}, "/a/c%2fd", "/b/c%2fd?q", false},
		{PathOptions{Rewrite: regexp.MustCompile("a+"), To: "/$0"}, "/xaax", "/aa?q", false},
		{PathOptions{Rewrite: regexp.MustCompile("a"), To: "/b?c=d"}, "/xax", "/b?c=d&q", false},
		{PathOptions{Rewrite: regexp.MustCompile("^(.*?)a(.*)$"), To: "${1}b${2}"}, "/xax", "/xbx?q", false},
		{PathOptions{Rewrite: regexp.MustCompile("^.(.*)$"), To: "$1"}, "/xx", "/xx?q", false},
		{PathOptions{Rewrite: regexp.MustCompile("^/(.*)$"), To: "/.$1"}, "/.", ErrDotSegment.Error(), false},
		{PathOptions{Strip: "/a", Add: "/b", Rewrite: regexp.MustCompile("^/b/(.*)$"), To: "/c/$1"}, "/a/x", "/c/x?q", true},
	} {
		e := verify.Result(NewPathEdits(test.o)).Must(t)
		target, stripped, err := e.Append([]byte("GET "), []byte(test.path), []byte("?q"), nil)
		got := strings.TrimPrefix(string(target), "GET ")
		if err != nil {
			got = err.Error()
		}
		verify.That(t, got == test.want && stripped == test.stripped, "%+v, %q: got %q, %v, want %q, %v", test.o, test.path, got, stripped, test.want, test.stripped)
	}
}

func TestRedirects(t *testing.T) {
	values := someValues{VariableHost: "a.example", VariablePath: "//evil.example", VariableQuery: "q=1", VariableScheme: "http"}
	for to, want := range map[string]string{
		"https://$host$path":  "https://a.example//evil.example?q=1",
		"/x$path":             "/x//evil.example?q=1",
		"/$path":              "/evil.example?q=1",
		"/?$query&a":          "/?q=1&a",
		"https://b.example/?": "https://b.example/?",
		"/#top":               "/#top",
	} {
		r := verify.Result(NewRedirect(to, RedirectCodes{Code: 301})).Must(t)
		verify.Equal(t, string(r.Append(nil, values, nil)), want, "%q", to)
	}
	for _, to := range []string{"", "x", "$path", "//$host", "ftp://a", "/$0", "https://a b", "/\r\n"} {
		_, err := NewRedirect(to, RedirectCodes{Code: 301})
		verify.That(t, err != nil, "%q: no error", to)
	}
	for _, test := range []struct{ expression, to, path, want string }{
		{"^http://(.*)$", "https://$1", "/x", "https://a.example:81/x?q=1"},
		{"^http://(.*)$", "https://$host$path", "/x", "https://a.example/edited"},
		{"^https://(.*)$", "https://$1", "/x", ""},
		{"/old/(x)?([^?]*)", "/new/${2}-$1", "/old/y", "/new/y-"},
		{"^([^?]*)/$", "$1", "/x/", ""}, // the URL has a query
		{`^([^?]*)/(\?.*)?$`, "$1$2", "/x/", "http://a.example:81/x?q=1"},
		{`q=(.*)$`, "$1", "/x", ""},            // no URL
		{`q=(.*)$`, "javascript:$1", "/x", ""}, // neither
		{`81(.*)`, "$1", "//evil.example", "/evil.example?q=1"},
		{`81(.*)`, "$1", `/\evil.example`, "/evil.example?q=1"},
		{"(.*)", strings.Repeat("$1", 100), "/" + strings.Repeat("x", 1<<10), ""}, // too long
	} {
		values[VariableAuthority], values[VariablePath], values[VariableTarget] = "a.example:81", "/edited", test.path+"?q=1"
		r := verify.Result(NewRegexpRedirect(regexp.MustCompile(test.expression), test.to, RedirectCodes{Code: 302}, false)).Must(t)
		verify.Equal(t, string(r.Append(nil, values, nil)), test.want, "%s, %s: %s becomes", test.expression, test.to, test.path)
	}
	for _, test := range [][2]string{{"a", "/$1"}, {"a", "/ b"}, {strings.Repeat("a", 5000), "/"}} {
		if _, err := NewRegexpRedirect(regexp.MustCompile(test[0]), test[1], RedirectCodes{Code: 302}, false); err == nil {
			t.Errorf("%.10q, %q: no error", test[0], test[1])
		}
	}
	_, err := NewRegexpRedirect(regexp.MustCompile("a"), "/", RedirectCodes{Code: 200}, false)
	verify.That(t, err != nil, "200: no error")
	_, err = NewRedirect("/", RedirectCodes{Code: 304})
	verify.That(t, err != nil, "304: no error")
}
