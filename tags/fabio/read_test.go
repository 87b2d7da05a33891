package fabio

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/tags"
	"sluice/test/verify"
)

// tagTests are tags with the route that they make, the settings of the service, and the
// complaints as "COLUMN: TEXT". A closed route begins with "closed".
var tagTests = []struct{ tag, route, service, complaints string }{
	// Documented examples, one of each kind.
	{`urlprefix-/css`, `{"match":"string_prefix","path":"/css"}`, ``, ``},
	{`urlprefix-i.com/static`, `{"host":"i.com","match":"string_prefix","path":"/static"}`, ``, ``},
	{`urlprefix-mysite.com/`, `{"host":"mysite.com","path":"/"}`, ``, ``},
	{`urlprefix-/foo/bar strip=/foo`, `{"match":"string_prefix","path":"/foo/bar","strip_prefix":"/foo"}`, ``, ``},
	{`urlprefix-/bar prepend=/foo`, `{"add_prefix":"/foo","match":"string_prefix","path":"/bar"}`, ``, ``},
	{`urlprefix-/foo/bar proto=https`, `{"match":"string_prefix","path":"/foo/bar"}`, `{"upstream":{"tls":{}}}`, ``},
	{`urlprefix-/foo/bar proto=https tlsskipverify=true`, `{"match":"string_prefix","path":"/foo/bar"}`, `{"upstream":{"tls":{"skip_verify":"true"}}}`, ``},
	{`urlprefix-:3306 proto=tcp`, `tcp 3306 {}`, ``, ``},
	{`urlprefix-:3306 proto=tcp pxyproto=true`, `tcp 3306 {}`, `{"proxy_protocol":"v1"}`, ``},
	{`urlprefix-:3306 proto=tcp allow=ip:10.0.0.0/8`, `tcp 3306 {"allow":["10.0.0.0/8"]}`, ``, ``},
	{`urlprefix-:3306 proto=tcp allow=nobody`, `closed tcp 3306 {"deny":["0.0.0.0/0","::/0"]}`, ``, `33: want ip:ADDRESS or ip:NETWORK, with commas between them; the route denies every request`},
	{`urlprefix-127.0.0.1:1234 proto=tcp`, ``, ``, `11: a tag opens no address: want a listener for TCP in the file, { address: '127.0.0.1:1234', protocol: tcp, service: svc }`},
	{`urlprefix-foo.com/ proto=tcp`, ``, ``, `11: a tag passes no TLS through: want a listener for TCP in the file, with sni: [{ host: foo.com, service: svc }]`},
	{`urlprefix-/my.service/Method proto=grpc`, `{"match":"string_prefix","path":"/my.service/Method"}`, `{"upstream":{"protocol":"h2c"}}`, ``},
	{`urlprefix-/my.service proto=grpcs`, `{"match":"string_prefix","path":"/my.service"}`, `{"upstream":{"protocol":"h2","tls":{}}}`, ``},
	{`urlprefix-/my.service proto=grpcs grpcservername=my.service`, `{"match":"string_prefix","path":"/my.service"}`, `{"upstream":{"protocol":"h2","tls":{"server_name":"my.service"}}}`, ``},
	{`urlprefix-/my.service proto=grpcs tlsskipverify=true`, `{"match":"string_prefix","path":"/my.service"}`, `{"upstream":{"protocol":"h2","tls":{"skip_verify":"true"}}}`, ``},
	{`urlprefix-/path redirect=301,https://www.google.com/`, `{"match":"string_prefix","path":"/path","redirect":{"code":"301","to":"https://www.google.com/"}}`, ``, ``},
	{`urlprefix-/path redirect=303,https://www.foo.com$path`, `{"match":"string_prefix","path":"/path","redirect":{"code":"303","to":"https://www.foo.com$path"}}`, ``, ``},
	{`urlprefix-example.com:80/ redirect=301,https://example.com/`, `{"host":"example.com","path":"/","redirect":{"code":"301","to":"https://example.com/"},"when":{"scheme":"http"}}`, ``, ``},
	{`urlprefix-/ allow=ip:192.168.1.0/24,ip:fe80::/10`, `{"allow":["192.168.1.0/24","fe80::/10"],"path":"/"}`, ``, ``},
	{`urlprefix-/ deny=ip:10.0.0.0/8,ip:fe80::1234`, `{"deny":["10.0.0.0/8","fe80::1234"],"path":"/"}`, ``, ``},
	{`urlprefix-/ deny=ip:fe80::1234,100.123.0.0/16`, `closed {"deny":["0.0.0.0/0","::/0"],"path":"/"}`, ``, `32: want ip:ADDRESS or ip:NETWORK, with commas between them; the route denies every request`},
	{`urlprefix-/ proto=https auth=mybasicauth`, `{"path":"/","use":["mybasicauth"]}`, `{"upstream":{"tls":{}}}`, ``},
	{`urlprefix-/foo host=name`, `{"host_header":"name","match":"string_prefix","path":"/foo"}`, ``, ``},
	{`urlprefix-/foo host=dst`, `{"host_header":"peer","match":"string_prefix","path":"/foo"}`, ``, ``},
	{`urlprefix-/foo register=name`, `{"match":"string_prefix","path":"/foo"}`, ``, `16: sluice registers nothing for a service: ignored`},
	{`urlprefix-/foo/bar weight=0.2`, `{"match":"string_prefix","path":"/foo/bar"} weight 0.2`, ``, ``},

	// TestParseTag.
	{`urlprefix-`, ``, ``, `0: has no route: want HOST/PATH or /PATH after the prefix`},
	{`urlprefix- `, ``, ``, `0: has no route: want HOST/PATH or /PATH after the prefix`},
	{`urlprefix-/`, `{"path":"/"}`, ``, ``},
	{` urlprefix-/`, `{"path":"/"}`, ``, ``},
	{`urlprefix-/ `, `{"path":"/"}`, ``, ``},
	{`urlprefix- / `, `{"path":"/"}`, ``, ``},
	{`urlprefix-1.1.1.1:999`, `{"host":"1.1.1.1","path":"/"}`, ``, `18: the port of a host is ignored: the route counts for each listener that may use it`},
	{`urlprefix-WWW.BAR.COM/Foo/FOO`, `{"host":"www.bar.com","match":"string_prefix","path":"/Foo/FOO"}`, ``, ``},
	{`urlprefix-bar/foo a b c`, `{"host":"bar","match":"string_prefix","path":"/foo"}`, ``, `12: no option of fabio: ignored | 11: no option of fabio: ignored | 23: no option of fabio: ignored`},
	{`urlprefix-$x/$y`, `{"path":"/"}`, ``, `11: only $DC is known: $x is removed | 11: only $DC is known: $y is removed`},
	{`urlprefix-${x}/${y}`, `{"path":"/"}`, ``, `11: only $DC is known: $x is removed | 11: only $DC is known: $y is removed`},
	{`urlprefix-$DC.example.com/$DC`, `{"host":"dc1.example.com","match":"string_prefix","path":"/dc1"}`, ``, ``},
	{`urlprefix-${DC}.example.com/x${DC}y`, `{"host":"dc1.example.com","match":"string_prefix","path":"/xdc1y"}`, ``, ``},
	{`urlprefix-$DC/`, `{"host":"dc1","path":"/"}`, ``, ``},

	// Sources of TestTableParse, TestTableLookup and TestParse.
	{`urlprefix-abc.com/foo/`, `{"host":"abc.com","match":"string_prefix","path":"/foo/"}`, ``, ``},
	{`urlprefix-*.abc.com/`, `{"host":"*.abc.com","path":"/"}`, ``, ``},
	{`urlprefix-*.abc.com/foo/`, `{"host":"*.abc.com","match":"string_prefix","path":"/foo/"}`, ``, ``},
	{`urlprefix-xyz.com:80/`, `{"host":"xyz.com","path":"/","when":{"scheme":"http"}}`, ``, ``},
	{`urlprefix-abc.com:443/`, `{"host":"abc.com","path":"/","when":{"scheme":"https"}}`, ``, ``},
	{`urlprefix-/ strip=/foo`, `{"path":"/","strip_prefix":"/foo"}`, ``, ``},
	{`urlprefix-/ weight=0`, `{"path":"/"}`, ``, ``},
	{`urlprefix-/ weight=-0.5`, `{"path":"/"}`, ``, ``},
	{`urlprefix-/ weight=2`, `{"path":"/"} weight 2`, ``, ``},
	{`urlprefix-/ weight=NaN`, `{"path":"/"}`, ``, `13: not a number: ignored`},
	{`urlprefix-/ weight=1e9`, `{"path":"/"}`, ``, `13: want at most 1000, such as 0.2 for a fifth of the requests: ignored`},
	{`urlprefix-vault.company.com`, `{"host":"vault.company.com","path":"/"}`, ``, ``},

	// TestTarget_BuildRedirectURL.
	{`urlprefix-/ redirect=301,http://bar.com/a/b/c?foo=bar`, `{"path":"/","redirect":{"code":"301","to":"http://bar.com/a/b/c?foo=bar"}}`, ``, ``},
	{`urlprefix-*:80/ redirect=301,https://$host/`, `{"path":"/","redirect":{"code":"301","to":"https://$host/"},"when":{"scheme":"http"}}`, ``, ``},
	{`urlprefix-/ redirect=301,http://bar.com/$path`, `{"path":"/","redirect":{"code":"301","to":"http://bar.com$path"}}`, ``, ``},
	{`urlprefix-/ redirect=301,http://bar.com/bbb/$path`, `{"path":"/","redirect":{"code":"301","to":"http://bar.com/bbb$path"}}`, ``, ``},
	{`urlprefix-/stripme redirect=301,http://bar.com/$path strip=/stripme`, `{"match":"string_prefix","path":"/stripme","redirect":{"code":"301","to":"http://bar.com$path"},"strip_prefix":"/stripme"}`, ``, ``},
	{`urlprefix-/ redirect=301,http://bar.com/$path prepend=/prefix`, `{"add_prefix":"/prefix","path":"/","redirect":{"code":"301","to":"http://bar.com$path"}}`, ``, ``},

	// TestTableLookupIssue448.
	{`urlprefix-ccc.com:443/bar redirect=301,https://ccc.com/baz`, `{"host":"ccc.com","match":"string_prefix","path":"/bar","redirect":{"code":"301","to":"https://ccc.com/baz"},"when":{"scheme":"https"}}`, ``, ``},

	// In use, or asked for.
	{`urlprefix-/x/ strip=/x`, `{"match":"string_prefix","path":"/x/","strip_prefix":"/x"}`, ``, ``},
	{`urlprefix-*host.com/`, `{"host_regexp":"^.*host\\.com$","path":"/"}`, ``, ``},
	{`urlprefix-api-*.example.com/`, `{"host_regexp":"^api-.*\\.example\\.com$","path":"/"}`, ``, ``},
	{`urlprefix-*/path`, `{"match":"string_prefix","path":"/path"}`, ``, ``},
	{`urlprefix-[2001:db8::1]/`, `{"host":"[2001:db8::1]","path":"/"}`, ``, ``},
	{`urlprefix-[2001:db8::1]:80/`, `{"host":"[2001:db8::1]","path":"/","when":{"scheme":"http"}}`, ``, ``},
	{`urlprefix-h/api/*`, ``, ``, `11: the path is a prefix, and '*' stands for itself: want /api/`},
	{`urlprefix-/api*`, ``, ``, `11: the path is a prefix, and '*' stands for itself: want /api`},
	{`urlprefix-{a,b}.example.com/`, ``, ``, `0: the host {a,b}.example.com is a pattern that sluice does not know: want '*' for any characters`},
	{`urlprefix-h?/x`, ``, ``, `0: the host h? is a pattern that sluice does not know: want '*' for any characters`},
	{`urlprefix-/x proto=http`, `{"match":"string_prefix","path":"/x"}`, ``, ``},
	{`urlprefix-/x proto=ftp`, ``, ``, `14: unknown protocol "ftp": want http, https, grpc, grpcs or tcp`},
	{`urlprefix-/x proto=tcp+sni`, ``, ``, `14: unknown protocol "tcp+sni": want http, https, grpc, grpcs or tcp`},
	{`urlprefix-/x tlsskipverify=true`, `{"match":"string_prefix","path":"/x"}`, ``, `14: only with proto=https or proto=grpcs: ignored`},
	{`urlprefix-/x pxyproto=true`, `{"match":"string_prefix","path":"/x"}`, ``, `14: only for TCP: ignored; want proxy_protocol of the service in the file`},
	{`urlprefix-/x strip=x`, ``, ``, `14: want a path that begins with /`},
	{`urlprefix-/x prepend=x`, ``, ``, `14: want a path that begins with /`},
	{`urlprefix-/x strip=`, `{"match":"string_prefix","path":"/x"}`, ``, ``},
	{`urlprefix-/x redirect=301`, ``, ``, `14: want redirect=CODE,URL`},
	{`urlprefix-/x redirect=abc,http://h/`, ``, ``, `14: want redirect=CODE,URL`},
	{`urlprefix-/x redirect=200,http://h/`, ``, ``, `14: want a code from 300 to 399`},
	{`urlprefix-/x redirect=301,http://h/,x`, ``, ``, `14: want redirect=CODE,URL`},
	{`urlprefix-/x weight=abc`, `{"match":"string_prefix","path":"/x"}`, ``, `14: not a number: ignored`},
	{`urlprefix-/x weight=`, `{"match":"string_prefix","path":"/x"}`, ``, `14: not a number: ignored`},
	{`urlprefix-/x allow=10.0.0.0/8`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `20: want ip:ADDRESS or ip:NETWORK, with commas between them; the route denies every request`},
	{`urlprefix-/x allow=`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `0: want ip:ADDRESS or ip:NETWORK, with commas between them; the route denies every request`},
	{`urlprefix-/x allow=ip:`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `20: want ip:ADDRESS or ip:NETWORK, with commas between them; the route denies every request`},
	{`urlprefix-/x allow=ip:10.0.0.0/33`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `20: want ip:ADDRESS or ip:NETWORK, with commas between them; the route denies every request`},
	{`urlprefix-/x allow=ip:10.1.2.3/8,ip:1.2.3.4`, `{"allow":["10.0.0.0/8","1.2.3.4"],"match":"string_prefix","path":"/x"}`, ``, ``},
	{`urlprefix-/x allow=IP:10.0.0.0/8`, `{"allow":["10.0.0.0/8"],"match":"string_prefix","path":"/x"}`, ``, ``},
	{`urlprefix-/x allow=ip:10.0.0.0/8 deny=ip:10.1.0.0/16`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `14: want allow or deny, not both; the route denies every request`},
	{`urlprefix-/x deny=ip:::1`, `{"deny":["::1"],"match":"string_prefix","path":"/x"}`, ``, ``},
	{`urlprefix-/x deny=country:de`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `19: want ip:ADDRESS or ip:NETWORK, with commas between them; the route denies every request`},
	{`urlprefix-/x allow=ip:10.0.0.0/8 redirect=1,x`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `34: want a code from 300 to 399`},
	{`urlprefix-/x auth=`, `{"match":"string_prefix","path":"/x","use":[""]}`, ``, ``}, // refused where it is decoded
	{`urlprefix-/x auth=corp strip=/x host=dst`, `{"host_header":"peer","match":"string_prefix","path":"/x","strip_prefix":"/x","use":["corp"]}`, ``, ``},
	{`urlprefix-/x strip=/a strip=/b`, `{"match":"string_prefix","path":"/x","strip_prefix":"/b"}`, ``, ``},
	{`urlprefix-/x  strip=/x   prepend=/y `, `{"add_prefix":"/y","match":"string_prefix","path":"/x","strip_prefix":"/x"}`, ``, ``},
	{`urlprefix-/x proto=https host=backend.example.com`, `{"host_header":"backend.example.com","match":"string_prefix","path":"/x"}`, `{"upstream":{"tls":{}}}`, ``},
	{`urlprefix-/x unknown=1 strip=/x`, `{"match":"string_prefix","path":"/x","strip_prefix":"/x"}`, ``, `14: no option of fabio: ignored`},
	{`urlprefix-/x alow=ip:10.0.0.0/8`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `14: no option of fabio (did you mean allow?); the route denies every request`},
	{`urlprefix-/x dney=ip:10.0.0.0/8`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `14: no option of fabio (did you mean deny?); the route denies every request`},
	{`urlprefix-/x auht=corp`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `14: no option of fabio (did you mean auth?); the route denies every request`},
	{`urlprefix-/x Allow=ip:10.0.0.0/8`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `14: no option of fabio (did you mean allow?); the route denies every request`},
	{`urlprefix-/x denyy=`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `14: no option of fabio (did you mean deny?); the route denies every request`},
	{`urlprefix-/x oauth=corp`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `14: no option of fabio (did you mean auth?); the route denies every request`},
	{`urlprefix-:3306 proto=tcp alow=ip:10.0.0.0/8`, `closed tcp 3306 {"deny":["0.0.0.0/0","::/0"]}`, ``, `27: no option of fabio (did you mean allow?); the route denies every request`},
	{`urlprefix-/x den=`, `closed {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/x"}`, ``, `14: no option of fabio (did you mean deny?); the route denies every request`},
	{`urlprefix-/x path=/ alwlo=1 all=1`, `{"match":"string_prefix","path":"/x"}`, ``, `14: no option of fabio: ignored | 21: no option of fabio: ignored | 29: no option of fabio: ignored`},
	{`urlprefix-h/x"y`, `{"host":"h","match":"string_prefix","path":"/x\"y"}`, ``, ``},
	{`other-/x`, ``, ``, ``},
	{`urlprefix`, ``, ``, ``},
}

func TestTags(t *testing.T) {
	for _, test := range tagTests {
		r := Read(tags.Instance{Service: "svc", Port: 80, Tags: []string{test.tag}}, Options{Datacenter: "dc1"})
		verify.Equal(t, routes(r), test.route, "%q makes", test.tag)
		for _, route := range r.Routes {
			verify.That(t, slices.Equal(route.Tags, []string{test.tag}) && route.Priority == 0 && !route.Ranked, "%q makes %+v: want its own tag, and no priority", test.tag, route)
		}
		service := ""
		if upstream, _ := r.Service["upstream"].(tags.Keys); len(upstream) > 0 || r.Service["proxy_protocol"] != nil {
			service = r.Service.String()
		}
		verify.Equal(t, service, test.service, "%q sets", test.tag)
		var complaints []string
		for _, c := range r.Complaints {
			complaints = append(complaints, fmt.Sprintf("%d: %s", c.Column, c.Want))
			verify.That(t, c.Tag == test.tag, "the complaint %v is about another tag than %q", c, test.tag)
			verify.Equal(t, c.Harmless, len(r.Routes) > 0 && !r.Routes[0].Closed, "the complaint %v says harmless", c)
		}
		verify.Equal(t, strings.Join(complaints, " | "), test.complaints, "%q has the complaints", test.tag)
	}
}

// routes returns the routes on one line.
func routes(r tags.Reading) string {
	var list []string
	for _, route := range r.Routes {
		text := strings.TrimSpace(route.Protocol+" "+route.Port) + " " + route.Keys.String()
		text = strings.TrimSpace(text)
		if route.Weight > 0 {
			text += fmt.Sprintf(" weight %v", route.Weight)
		}
		if route.Closed {
			text = "closed " + text
		}
		list = append(list, text)
	}
	return strings.Join(list, " ")
}

func TestSeveralTags(t *testing.T) {
	for _, test := range []struct {
		name       string
		options    Options
		tags       []string
		routes     int
		complaints []string // parts of them
	}{
		{"each tag makes a route", Options{}, []string{"v2", "urlprefix-/a", "urlprefix-h/b", "primary"}, 2, nil},
		{"another prefix", Options{Prefix: "int-urlprefix-"}, []string{"urlprefix-/a", "int-urlprefix-/b"}, 1, nil},
		{"an option as a tag", Options{}, []string{"urlprefix-/a", "proto=https"}, 1, []string{"write it behind the route"}},
		{"an option as a tag of others", Options{}, []string{"proto=https"}, 0, nil},
		{"two protocols", Options{}, []string{"urlprefix-/a", "urlprefix-/b proto=https"}, 1, []string{"another upstream"}},
		{"a PROXY header for requests", Options{}, []string{"urlprefix-:1 proto=tcp pxyproto=true", "urlprefix-:2 proto=tcp", "urlprefix-/a"}, 2, []string{"share connections"}},
		{"one protocol twice", Options{}, []string{"urlprefix-/a proto=https", "urlprefix-/b proto=https"}, 2, nil},
		{
			"a tag that takes over another service in fabio", Options{},
			[]string{"urlprefix-/x\thttp://192.0.2.66/\nroute\tdel\tvictim\nroute\tadd\tvictim\tshop/\thttp://192.0.2.66/", "urlprefix-/y"},
			1, []string{"control character"},
		},
		{"a newline at the end", Options{}, []string{"urlprefix-/x\n"}, 0, []string{"control character"}},
		{"a tag that is too long", Options{}, []string{"urlprefix-/" + strings.Repeat("x", tags.MaxTag)}, 0, []string{"too long"}},
		{"a long list of clients", Options{}, []string{"urlprefix-/x allow=" + strings.Repeat("ip:10.0.0.1,", 500) + "ip:10.0.0.2", "urlprefix-/y"}, 2, []string{"too long", "denies every request"}},
		{"a list of clients behind a tabulator", Options{}, []string{"urlprefix-/x\tallow=ip:10.0.0.1", "urlprefix-/y"}, 2, []string{"control character", "denies every request"}},
		{"too many tags", Options{}, many(tags.MaxRoutes + 1), tags.MaxRoutes, []string{"too many routes"}},
		{"a bad tag among others", Options{}, []string{"urlprefix-/x weight=abc", `urlprefix-/y a="b`, "urlprefix-/z"}, 3, []string{"not a number", "no option"}},
	} {
		r := Read(tags.Instance{Service: "svc", Port: 80, Tags: test.tags}, test.options)
		verify.Equal(t, len(r.Routes), test.routes, "%s: routes of %s", test.name, routes(r))
		verify.Require(t, len(r.Complaints) == len(test.complaints), "%s: the complaints are %v", test.name, r.Complaints)
		for i, c := range r.Complaints {
			verify.Contains(t, c.Want, test.complaints[i], "%s: the complaint is %v", test.name, c)
		}
	}
}

func many(n int) []string {
	tags := make([]string, n)
	for i := range tags {
		tags[i] = fmt.Sprintf("urlprefix-/%d", i)
	}
	return tags
}

// FuzzRead checks that a tag makes routes of printable texts only, that it harms no other tag,
// and that a restriction never vanishes.
func FuzzRead(f *testing.F) {
	for _, test := range tagTests {
		f.Add(test.tag)
	}
	f.Fuzz(func(t *testing.T, tag string) {
		r := Read(tags.Instance{Service: "svc", Port: 80, Tags: []string{tag, "urlprefix-other/"}}, Options{})
		other := `{"host":"other","path":"/"}`
		n := len(r.Routes)
		verify.Require(t, n != 0 && n <= 2, "%d routes", n)
		last := r.Routes[len(r.Routes)-1]
		if last.Keys.String() != other && r.Service != nil && len(r.Routes) == 1 {
			return // the tag asks for another protocol, and is first
		}
		if len(r.Routes) == 1 {
			verify.Require(t, last.Keys.String() == other || r.Routes[0].Tags[0] == tag, "the other tag makes %s", last.Keys)
			return
		}
		verify.Require(t, last.Keys.String() == other, "the other tag makes %s", last.Keys)
		mine := r.Routes[0]
		verify.Require(t, !strings.ContainsFunc(mine.Keys.String(), func(r rune) bool { return r < 0x20 }) && (mine.Closed || tags.Control(tag) < 0), "%q makes %s", tag, mine.Keys)
		_, options, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(tag), Prefix)), " ")
		for _, option := range strings.Fields(options) {
			key, _, _ := strings.Cut(option, "=")
			restricts := key == "allow" || key == "deny" || key == "auth"
			verify.Require(t, !restricts || mine.Keys["allow"] != nil || mine.Keys["deny"] != nil || key == "auth" && mine.Keys["use"] != nil, "%q makes a route that is open: %s", tag, mine.Keys)
		}
	})
}
