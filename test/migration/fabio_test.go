package migration

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/pinned"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

var fabio = pinned.Program{Name: "fabio", Title: "fabio", Module: "github.com/fabiolb/fabio", Dir: "bench/rivals/fabio"}

// fabioArgs returns the arguments of a fabio that listens on an address.
func fabioArgs(address string, consul *consultest.Agent) []string {
	return []string{
		"-insecure", // as root
		"-proxy.addr", address, "-ui.addr", "127.0.0.1:0", "-log.level", "WARN",
		"-registry.consul.addr", consul.HTTPAddress(), "-registry.consul.register.enabled=false",
	}
}

// Two services with the same tag share its traffic, by their weights.
func TestFabioSharesARoute(t *testing.T) {
	peer, sluice := comparison{peer: startFabio, sluice: "fabio", apps: []app{
		{"blue", []string{"urlprefix-share.com/ weight=0.2"}}, {"green", []string{"urlprefix-share.com/"}},
	}}.start(t)
	for _, address := range []string{peer, sluice} {
		r := request{line: "GET share.com/"}
		await(t, address, r)
		seen := make(map[string]bool) // the services come into the table one after the other
		for begin := time.Now(); len(seen) < 2 && time.Since(begin) < patience; {
			answer := verify.Result(ask(address, r)).Must(t)
			seen[answer] = true
		}
		got := make(map[string]int)
		for range 1000 {
			answer := verify.Result(ask(address, r)).Must(t)
			got[answer]++
		}
		t.Logf("%s: %v", address, got)
		// Chosen at random: eight standard deviations, less than once in 10^14 runs.
		if blue := got["200 blue /"]; blue < 100 || blue > 300 || blue+got["200 green /"] != 1000 {
			t.Errorf("%s: %v, want about 200 from blue and the others from green", address, got)
		}
	}
}

func startFabio(t *testing.T, address string, consul *consultest.Agent) subprocess.Options {
	return subprocess.Options{Program: program(t, fabio), Args: fabioArgs(address, consul)}
}

// The tags are from fabio's documentation, with hosts that keep them apart.
func TestFabio(t *testing.T) {
	comparison{
		peer:   startFabio,
		sluice: "fabio",
		apps: []app{
			{"css", []string{"urlprefix-/css"}},
			{"static", []string{"urlprefix-i.com/static"}},
			{"mysite", []string{"urlprefix-mysite.com/"}},
			{"several", []string{"urlprefix-one.com/", "urlprefix-two.com/a", "other"}},
			{"slash", []string{"urlprefix-slash.com/foo/"}},
			{"upper", []string{"urlprefix-UPPER.com/Foo"}},
			{"short", []string{"urlprefix-order.com/"}},
			{"long", []string{"urlprefix-order.com/foo"}},
			{"longest", []string{"urlprefix-order.com/foo/bar"}},
			{"wildcard", []string{"urlprefix-*.wild.com/"}},
			{"deep", []string{"urlprefix-*.deep.wild.com/"}},
			{"exact", []string{"urlprefix-a.wild.com/only"}},
			{"glob", []string{"urlprefix-api-*.glob.com/"}},
			{"anything", []string{"urlprefix-*end.com/"}},
			{"port", []string{"urlprefix-port.com:80/"}},
			{"tls", []string{"urlprefix-tls.com:443/"}},
			{"strip", []string{"urlprefix-strip.com/foo strip=/foo"}},
			{"stripslash", []string{"urlprefix-stripslash.com/foo/ strip=/foo"}},
			{"stripother", []string{"urlprefix-stripother.com/ strip=/foo"}},
			{"prepend", []string{"urlprefix-prepend.com/bar prepend=/foo"}},
			{"both", []string{"urlprefix-both.com/foo prepend=/baz strip=/foo"}},
			{"dst", []string{"urlprefix-dst.com/ host=dst"}},
			{"named", []string{"urlprefix-named.com/ host=other.com"}},
			{"redirect", []string{"urlprefix-redirect.com/path redirect=301,https://www.google.com/"}},
			{"redirectpath", []string{"urlprefix-redirectpath.com/ redirect=302,https://www.foo.com$path"}},
			{"redirectslash", []string{"urlprefix-redirectslash.com/ redirect=303,https://www.foo.com/$path"}},
			{"redirecthost", []string{"urlprefix-redirecthost.com:80/ redirect=308,https://$host$path"}},
			{"redirectquery", []string{"urlprefix-redirectquery.com/ redirect=307,https://www.foo.com/?a=b"}},
			{"redirectstrip", []string{"urlprefix-redirectstrip.com/stripme redirect=301,https://bar.com/bbb$path strip=/stripme"}},
			{"allowed", []string{"urlprefix-allowed.com/ allow=ip:127.0.0.0/8,ip:fe80::/10"}},
			{"notallowed", []string{"urlprefix-notallowed.com/ allow=ip:192.168.1.0/24"}},
			{"denied", []string{"urlprefix-denied.com/ deny=ip:127.0.0.1"}},
			{"wrongitem", []string{"urlprefix-wrongitem.com/ allow=10.0.0.0/8"}},
			{"auth", []string{"urlprefix-auth.com/ auth=mybasicauth"}},
			{"unknown", []string{"urlprefix-unknown.com/ a b c=d"}},
			{"http", []string{"urlprefix-http.com/ proto=http weight=0"}},
			{"dc", []string{"urlprefix-$DC.dc.com/${DC}"}},
			{"encoded", []string{"urlprefix-encoded.com/a b", "urlprefix-encoded.com/x/y"}},
			{"critical", []string{"urlprefix-critical.com/"}},
			{"warning", []string{"urlprefix-warning.com/"}},
			{"unchecked", []string{"urlprefix-unchecked.com/"}},
			{"broad", []string{"urlprefix-broad.com/"}},
			{"criticalpart", []string{"urlprefix-broad.com/part"}},
		},
		status: map[string]string{
			"critical": api.HealthCritical, "criticalpart": api.HealthCritical, "warning": api.HealthWarning, "unchecked": unchecked,
		},
		requests: []request{
			{line: "GET critical.com/", want: "404", sluice: "503"},
			{line: "GET warning.com/", want: "404", sluice: "200 warning /"},
			{line: "GET unchecked.com/", want: "404", sluice: "200 unchecked /"},
			{line: "GET broad.com/", want: "200 broad /"},
			{line: "GET broad.com/part", want: "200 broad /part", sluice: "503"},
			{line: "GET any.com/css", want: "200 css /css"},
			{line: "GET any.com/css/a?x=y&z", want: "200 css /css/a?x=y&z"},
			{line: "GET any.com/cssx", want: "200 css /cssx"},
			{line: "GET any.com/CSS", want: "404"},
			{line: "GET any.com/cs", want: "404"},
			{line: "GET any.com/", want: "404"},
			{line: "GET i.com/static/x", want: "200 static /static/x"},
			{line: "GET i.com/", want: "404"},
			{line: "GET i.com/css", want: "200 css /css"},
			{line: "GET I.COM/static", want: "200 static /static"},
			{line: "GET i.com:9999/static", want: "404", sluice: "200 static /static"},
			{line: "GET mysite.com/", want: "200 mysite /"},
			{line: "POST mysite.com/a/b?c", want: "200 mysite /a/b?c"},
			{line: "GET mysite.com:80/", want: "200 mysite /"},
			{line: "GET mysite.com/css", want: "200 mysite /css"},
			{line: "GET www.mysite.com/", want: "404"},
			{line: "GET one.com/", want: "200 several /"},
			{line: "GET two.com/ab", want: "200 several /ab"},
			{line: "GET two.com/b", want: "404"},
			{line: "GET slash.com/foo/", want: "200 slash /foo/"},
			{line: "GET slash.com/foo/x", want: "200 slash /foo/x"},
			{line: "GET slash.com/foo", want: "404", sluice: "200 slash /foo"},
			{line: "GET slash.com/foox", want: "404"},
			{line: "GET upper.com/Foo", want: "200 upper /Foo"},
			{line: "GET upper.com/foo", want: "404"},
			{line: "GET order.com/", want: "200 short /"},
			{line: "GET order.com/fo", want: "200 short /fo"},
			{line: "GET order.com/foo", want: "200 long /foo"},
			{line: "GET order.com/foo/ba", want: "200 long /foo/ba"},
			{line: "GET order.com/foo/bar/x", want: "200 longest /foo/bar/x"},
			{line: "GET b.wild.com/", want: "200 wildcard /"},
			{line: "GET b.c.wild.com/", want: "200 wildcard /"},
			{line: "GET wild.com/", want: "404"},
			{line: "GET x.deep.wild.com/", want: "200 deep /"},
			{line: "GET a.wild.com/only/x", want: "200 exact /only/x"},
			{line: "GET a.wild.com/other", want: "200 wildcard /other"},
			{line: "GET api-1.glob.com/", want: "200 glob /"},
			{line: "GET api-1.x.glob.com/", want: "200 glob /"},
			{line: "GET api.glob.com/", want: "404"},
			{line: "GET frontend.com/", want: "200 anything /"},
			{line: "GET a.b-end.com/", want: "200 anything /"},
			{line: "GET port.com/", want: "200 port /"},
			{line: "GET port.com:80/", want: "200 port /"},
			{line: "GET tls.com/", want: "404"},
			{line: "GET strip.com/foo/bar", want: "200 strip /bar X-Forwarded-Prefix=/foo"},
			{line: "GET strip.com/foo", want: "200 strip / X-Forwarded-Prefix=/foo"},
			{line: "GET strip.com/foo?a", want: "200 strip /?a X-Forwarded-Prefix=/foo"},
			{line: "GET strip.com/foobar", want: "200 strip /bar X-Forwarded-Prefix=/foo"},
			{line: "GET stripslash.com/foo/bar", want: "200 stripslash /bar X-Forwarded-Prefix=/foo"},
			{line: "GET stripother.com/bar", want: "200 stripother /bar X-Forwarded-Prefix=/foo", sluice: "200 stripother /bar"},
			{line: "GET stripother.com/foo/bar", want: "200 stripother /bar X-Forwarded-Prefix=/foo"},
			{line: "GET prepend.com/bar/x", want: "200 prepend /foo/bar/x"},
			{line: "GET both.com/foo/x", want: "200 both /baz/x X-Forwarded-Prefix=/foo"},
			{line: "GET both.com/foo", want: "200 both /baz/ X-Forwarded-Prefix=/foo"},
			{line: "GET dst.com/", want: "200 dst / host=INSTANCE"},
			{line: "GET named.com/", want: "200 named / host=other.com"},
			{line: "GET redirect.com/path", want: "301 https://www.google.com/"},
			{line: "GET redirect.com/path/x?a=b", want: "301 https://www.google.com/", sluice: "301 https://www.google.com/?a=b"},
			{line: "GET redirectpath.com/x?a=b", want: "302 https://www.foo.com/x?a=b"},
			{line: "GET redirectslash.com/x", want: "303 https://www.foo.com/x"},
			{line: "GET redirecthost.com/x?a=b", want: "308 https://redirecthost.com/x?a=b"},
			{line: "GET redirecthost.com:80/x", want: "308 https://redirecthost.com:80/x", sluice: "308 https://redirecthost.com/x"},
			{line: "GET redirectquery.com/x?c=d", want: "307 https://www.foo.com/?a=b"},
			{line: "GET redirectstrip.com/stripme/x?a=b", want: "301 https://bar.com/bbb/x?a=b"},
			{line: "GET allowed.com/", want: "200 allowed /"},
			{line: "GET allowed.com/", fields: []string{"X-Forwarded-For: 10.1.2.3"}, want: "403", sluice: "200 allowed /"},
			{line: "GET notallowed.com/", want: "403"},
			{line: "GET denied.com/", want: "403"},
			{line: "GET wrongitem.com/", want: "200 wrongitem /", sluice: "403"},
			{line: "GET auth.com/", want: "401", sluice: "403"},
			{line: "GET unknown.com/", want: "200 unknown /"},
			{line: "GET http.com/", want: "200 http /"},
			{line: "GET dc1.dc.com/dc1", want: "200 dc /dc1"},
			{line: "GET mysite.com/a%20b", want: "200 mysite /a%20b"},
			{line: "GET mysite.com/a%2Fb", want: "200 mysite /a%2Fb"},
			{line: "GET mysite.com/a//b", want: "200 mysite /a//b"},
			{line: "GET mysite.com/a/../b", want: "200 mysite /a/../b"},
			{line: "GET mysite.com/%C3%A9", want: "200 mysite /%C3%A9"},
			{line: "GET mysite.com/a;b?c;d", want: "200 mysite /a;b?c;d"},
			{line: "GET encoded.com/x%2Fy", want: "200 encoded /x%2Fy"},
			{line: "GET encoded.com/x%252Fy", want: "404"},
			{line: "GET mysite.com/a%252Fb", want: "200 mysite /a%252Fb"},
			{line: "GET mysite.com/a%252520b", want: "200 mysite /a%252520b"},
			{line: "GET strip.com/foo/a%2Fb%20c", want: "200 strip /a/b%20c X-Forwarded-Prefix=/foo", sluice: "200 strip /a%2Fb%20c X-Forwarded-Prefix=/foo"},
			{line: "GET strip.com/%66oo/a", want: "200 strip /a X-Forwarded-Prefix=/foo", sluice: "400"},
			{line: "GET prepend.com/bar/a%2Fb", want: "200 prepend /foo/bar/a/b", sluice: "200 prepend /foo/bar/a%2Fb"},
			{line: "GET mysite.com/a%7eb", want: "200 mysite /a%7eb"},
			{line: "GET encoded.com//x/y", want: "404", sluice: "200 encoded //x/y"},
			{line: "GET encoded.com/z/../x/y", want: "404", sluice: "200 encoded /z/../x/y"},
			{line: "HEAD mysite.com/", want: "200"},
			{line: "OPTIONS mysite.com/", want: "200 mysite /"},
		},
	}.run(t)
}
