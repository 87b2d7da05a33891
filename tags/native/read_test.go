package native

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
	{`sluice.route=star.example.com/api strip=/api timeout=5s`, `{"host":"star.example.com","path":"/api","strip_prefix":"/api","timeouts":{"response_header":"5s"}}`, ``, ``},
	{`sluice.route=*.apps.example.com/ listener=internal priority=10 when.header.X-Canary=1`, `10 {"host":"*.apps.example.com","listeners":["internal"],"path":"/","when":{"header":{"X-Canary":"1"}}}`, ``, ``},
	{`sluice.route=star.example.com`, `{"host":"star.example.com","path":"/"}`, ``, ``},
	{`sluice.route=/api`, `{"path":"/api"}`, ``, ``},
	{`sluice.route=Star/Api`, `{"host":"Star","path":"/Api"}`, ``, ``},
	{`sluice.route=`, ``, ``, `14: has no route: want HOST/PATH, HOST or /PATH`},
	{`sluice.route`, ``, ``, `13: has no route: want HOST/PATH, HOST or /PATH`},
	{`sluice.route=  h/  match=exact  `, `{"host":"h","match":"exact","path":"/"}`, ``, ``},
	{`sluice.route=allow=10.0.0.0/8`, ``, ``, `14: want HOST/PATH, HOST or /PATH before the first KEY=VALUE`},
	{`sluice.route=h/a=b`, `{"host":"h","path":"/a=b"}`, ``, ``},
	{`sluice.route=h/x/[0-9]+$ match=regexp`, `{"host":"h","match":"regexp","path":"^/x/[0-9]+$"}`, ``, ``},
	{`sluice.route=h methods=GET,HEAD method=POST`, `{"host":"h","methods":["GET","HEAD","POST"],"path":"/"}`, ``, ``},
	{`sluice.route=h when.query.v=2 when.cookie.beta=* when.scheme=https when.client=10.0.0.0/8,fd00::/8`, `{"host":"h","path":"/","when":{"client":["10.0.0.0/8","fd00::/8"],"cookie":{"beta":"*"},"query":{"v":"2"},"scheme":"https"}}`, ``, ``},
	{`sluice.route=h when.not.header.X-A.B=~^c when.not.client=::1`, `{"host":"h","path":"/","when":{"not":{"client":["::1"],"header":{"X-A.B":"~^c"}}}}`, ``, ``},
	{`sluice.route=h "when.header.User-Agent=~^curl 8"`, `{"host":"h","path":"/","when":{"header":{"User-Agent":"~^curl 8"}}}`, ``, ``},
	{`sluice.route=h response_headers.set.Cache-Control="max-age=1, public"`, `{"host":"h","path":"/","response_headers":{"set":{"Cache-Control":"max-age=1, public"}}}`, ``, ``},
	{`sluice.route=h request_headers.remove=X-A,X-B`, `{"host":"h","path":"/","request_headers":{"remove":["X-A","X-B"]}}`, ``, ``},
	{`sluice.route=h redirect=https://$host$path code=308`, `{"host":"h","path":"/","redirect":{"code":"308","to":"https://$host$path"}}`, ``, ``},
	{`sluice.route=h add=/v1 host_header=peer retry.attempts=3 body_limit=1MiB`, `{"add_prefix":"/v1","body_limit":"1MiB","host":"h","host_header":"peer","path":"/","retry":{"attempts":"3"}}`, ``, ``},
	{`sluice.route=h allow=10.0.0.0/8 rate_limit.rate=10`, `{"allow":["10.0.0.0/8"],"host":"h","path":"/","rate_limit":{"rate":"10"}}`, ``, ``},
	{`sluice.route=h direct_response.status=410 direct_response.body="gone for good" direct_response.headers.X-A.B=1`, `{"direct_response":{"body":"gone for good","headers":{"X-A.B":"1"},"status":"410"},"host":"h","path":"/"}`, ``, ``},
	{`sluice.route=h use=secure,office`, `{"host":"h","path":"/","use":["secure","office"]}`, ``, ``},
	{`sluice.route=h use=secure strip`, `closed {"deny":["0.0.0.0/0","::/0"],"host":"h","path":"/"}`, ``, `27: want KEY=VALUE`},
	{`sluice.use=secure`, ``, ``, ``},
	{`sluice.route=h direct_response.file=/etc/passwd`, `{"direct_response":{"file":"/etc/passwd"},"host":"h","path":"/"}`, ``, ``}, // refused where it is decoded
	{`sluice.route=h cors.allow_origins=https://a.example,https://b.example cors.allow_credentials=true cors.max_age=1h`, `{"cors":{"allow_credentials":"true","allow_origins":["https://a.example","https://b.example"],"max_age":"1h"},"host":"h","path":"/"}`, ``, ``},
	{`sluice.route=h strip`, ``, ``, `16: want KEY=VALUE`},
	{`sluice.route=h =x`, ``, ``, `16: want KEY=VALUE`},
	{`sluice.route=h priority=high`, ``, ``, `16: want a whole number`},
	{`sluice.route=h service=other`, `{"host":"h","path":"/","service":"other"}`, ``, ``}, // refused where it is decoded
	{`sluice.route=h host=other path=/x`, ``, ``, `16: want the host and the path before the first KEY=VALUE, as HOST/PATH | 27: want the host and the path before the first KEY=VALUE, as HOST/PATH`},
	{`sluice.route=h allow=10.0.0.0/8 path=/x`, `closed {"deny":["0.0.0.0/0","::/0"],"host":"h","path":"/"}`, ``, `33: want the host and the path before the first KEY=VALUE, as HOST/PATH`},
	{`sluice.route=h allow`, `closed {"deny":["0.0.0.0/0","::/0"],"host":"h","path":"/"}`, ``, `16: want KEY=VALUE`},
	{`sluice.route=h "strip=/x`, ``, ``, `25: a quote is not closed`},
	{`sluice.upstream=protocol=h2c`, ``, `{"upstream":{"protocol":"h2c"}}`, ``},
	{`sluice.upstream=protocol=h2 tls=true`, ``, `{"upstream":{"protocol":"h2","tls":{}}}`, ``},
	{`sluice.upstream=tls=true tls.server_name=star.internal`, ``, `{"upstream":{"tls":{"server_name":"star.internal"}}}`, ``},
	{`sluice.upstream=tls.server_name=star.internal tls=true`, ``, `{"upstream":{"tls":{"server_name":"star.internal"}}}`, ``},
	{`sluice.upstream=tls.skip_verify=true`, ``, `{"upstream":{"tls":{"skip_verify":"true"}}}`, ``},
	{`sluice.upstream=tls.ca=/etc/ca.pem`, ``, ``, `17: unknown key: want protocol, tls=true, tls=false, tls.server_name or tls.skip_verify`},
	{`sluice.upstream=tls=false`, ``, ``, ``},
	{`sluice.upstream=tls=false protocol=h2c`, ``, `{"upstream":{"protocol":"h2c"}}`, ``},
	{`sluice.upstream=tls=false tls.skip_verify=true`, ``, ``, `17: tls=false contradicts another key: want it without tls=true, tls.server_name and tls.skip_verify`},
	{`sluice.upstream=h2c`, ``, ``, `17: want KEY=VALUE`},
	{` sluice.route=h/admin allow=10.0.0.0/8`, `{"allow":["10.0.0.0/8"],"host":"h","path":"/admin"}`, ``, ``}, // what a list with ", " is divided into
	{` Sluice.Route=h strip`, ``, ``, `17: want KEY=VALUE`},
	{` sluice.upstream=protocol=h2c`, ``, `{"upstream":{"protocol":"h2c"}}`, ``},
	{`sluice.routes=h/`, ``, ``, `15: unknown tag: want sluice.route=HOST/PATH, sluice.upstream=KEY=VALUE or sluice.use=NAME`},
	{"sluice.route=h/\n", ``, ``, `16: has a control character: want printable text`},
	{"sluice.route=h/admin\tallow=10.0.0.0/8", `closed {"deny":["0.0.0.0/0","::/0"],"host":"h","path":"/admin"}`, ``, `21: has a control character: want printable text | 0: ` + tags.DeniesUnread},
	{"sluice.route=h/admin when.scheme=https deny=" + strings.Repeat("10.0.0.0/8,", 400), `closed {"deny":["0.0.0.0/0","::/0"],"host":"h","path":"/admin","when":{"scheme":"https"}}`, ``, `4097: is too long: want at most 4096 bytes | 0: ` + tags.DeniesUnread},
	{"sluice.route=h/admin\tstrp=/x allow", `closed {"deny":["0.0.0.0/0","::/0"],"host":"h","path":"/admin"}`, ``, `21: has a control character: want printable text | 0: ` + tags.DeniesUnread},
	{"sluice.route=h/admin\tstrip=/x", ``, ``, `21: has a control character: want printable text`},
	{`sluice`, ``, ``, ``},
	{`my.sluice.route=h/`, ``, ``, ``},
}

func TestTags(t *testing.T) {
	for _, test := range tagTests {
		check(t, test.tag, tags.Instance{Service: "svc", Tags: []string{test.tag}}, test.route, test.service, test.complaints)
	}
}

func check(t *testing.T, tag string, i tags.Instance, route, service, complaints string) {
	t.Helper()
	r := Read(i)
	var list []string
	for _, r := range r.Routes {
		text := r.Keys.String()
		if r.Priority != 0 {
			text = fmt.Sprintf("%d %s", r.Priority, text)
		}
		if r.Closed {
			text = "closed " + text
		}
		list = append(list, text)
		verify.That(t, slices.Equal(r.Tags, []string{tag}) && !r.Ranked, "%q makes %+v: want its own tag, and not Traefik's order", tag, r)
	}
	verify.Equal(t, strings.Join(list, " "), route, "%q makes", tag)
	got := ""
	if r.Service != nil {
		got = r.Service.String()
	}
	verify.Equal(t, got, service, "%q sets", tag)
	list = nil
	for _, c := range r.Complaints {
		list = append(list, fmt.Sprintf("%d: %s", c.Column, c.Want))
		verify.That(t, c.Tag == tag, "the complaint %v is about another tag than %q", c, tag)
	}
	verify.Equal(t, strings.Join(list, " | "), complaints, "%q has the complaints", tag)
}

// The tags sluice.use are for all routes of the instance, below what these use themselves.
func TestUse(t *testing.T) {
	for _, test := range []struct{ use, want string }{
		{"sluice.use=secure,office", `{"host":"h","path":"/a","use":["secure","office"]} {"host":"h","path":"/b","use":["secure","office","limited"]}`},
		{"Sluice.Use= secure , office ", `{"host":"h","path":"/a","use":["secure","office"]} {"host":"h","path":"/b","use":["secure","office","limited"]}`},
		{"sluice.use=", `{"host":"h","path":"/a","use":[""]} {"host":"h","path":"/b","use":["","limited"]}`}, // refused where it is decoded
		{"sluice.use", `{"host":"h","path":"/a","use":[""]} {"host":"h","path":"/b","use":["","limited"]}`},
		{"sluice.use=a\tb", `{"deny":["0.0.0.0/0","::/0"],"host":"h","path":"/a"} {"deny":["0.0.0.0/0","::/0"],"host":"h","path":"/b"}`},
	} {
		r := Read(tags.Instance{Service: "svc", Tags: []string{"sluice.route=h/a", test.use, "sluice.route=h/b use=limited"}})
		var list []string
		for _, route := range r.Routes {
			list = append(list, route.Keys.String())
			verify.That(t, slices.Contains(route.Tags, test.use), "%q makes a route by %q", test.use, route.Tags)
			verify.That(t, route.Restricts(), "%q makes an open route: %+v", test.use, route)
		}
		verify.Equal(t, strings.Join(list, " "), test.want, "%q makes", test.use)
	}
}

func TestMeta(t *testing.T) {
	for _, test := range []struct{ key, value, route, complaints string }{
		{"sluice_route", "h/x strip=/x", `{"host":"h","path":"/x","strip_prefix":"/x"}`, ``},
		{"sluice_route_2", "h/y", `{"host":"h","path":"/y"}`, ``},
		{"sluice_route", "h/x strip", ``, `18: want KEY=VALUE`},
		{"sluice_router", "h/x", ``, ``},
		{"route", "h/x", ``, ``},
	} {
		i := tags.Instance{Service: "svc", Meta: map[string]string{test.key: test.value}}
		check(t, test.key+"="+test.value, i, test.route, "", test.complaints)
	}
}

// FuzzRead checks that a tag makes printable routes, harms no
// other tag, and that a restriction never vanishes.
func FuzzRead(f *testing.F) {
	for _, test := range tagTests {
		f.Add(test.tag)
	}
	f.Fuzz(func(t *testing.T, tag string) {
		if strings.HasPrefix(strings.ToLower(strings.TrimSpace(tag)), Use) {
			return // it is for all routes
		}
		r := Read(tags.Instance{Service: "svc", Tags: []string{tag, "sluice.route=other/"}})
		n := len(r.Routes)
		verify.Require(t, n != 0 && n <= 2 && r.Routes[n-1].Keys.String() == `{"host":"other","path":"/"}`, "%q makes %v", tag, r.Routes)
		if len(r.Routes) == 1 {
			return
		}
		keys := r.Routes[0].Keys
		verify.Require(t, !strings.ContainsFunc(keys.String(), func(r rune) bool { return r < 0x20 }), "control characters in %s", keys)
		for _, key := range []string{"host_regexp", "priority"} {
			verify.Require(t, keys[key] == nil, "%q sets %s", tag, key)
		}
		verify.Require(t, !strings.Contains(tag, " allow=") || strings.Contains(tag, `"`) || keys["allow"] != nil || keys["deny"] != nil, "%q makes a route that is open: %s", tag, keys)
	})
}
