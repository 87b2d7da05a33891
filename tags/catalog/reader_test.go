package catalog

import (
	"fmt"
	"strings"
	"testing"

	"sluice/config"
	"sluice/discovery"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// TestPresentTags compares what is shown with what is in use: new tags are shown with their
// routes, and other instances with the same tags at once.
func TestPresentTags(t *testing.T) {
	c := configtest.Must(t, "catalog: { tags: [fabio] }\nservices: { star: { consul: {} } }")
	all := NewReader(func() {})
	all.Start(c)
	star := all.Gate("star", c.Services["star"], func(discovery.Set, bool) {})
	instance := func(id, tag string) discovery.Instance {
		return discovery.Instance{Service: "star", ID: id, Address: "192.0.2.1", Port: 80, Weight: 1, Tags: []string{tag}}
	}
	take := func(set ...discovery.Instance) { star.Pass(discovery.Set{Instances: set}) }
	shows := func(want string) {
		t.Helper()
		got := ""
		for _, r := range all.Present(c, c).Routes {
			got += fmt.Sprintf("%s %q;", r.Path, r.By.IDs())
		}
		verify.Equal(t, got, want, "the routes")
	}
	resolve := func() { all.Applied(all.Ask(c, config.Addition{})) }
	take(instance("a", "urlprefix-h/x"))
	shows("")
	resolve()
	shows(`/x ["a"];`)
	take(instance("a", "urlprefix-h/x"), instance("b", "urlprefix-h/x"))
	shows(`/x ["a" "b"];`)
	take(instance("c", "urlprefix-h/y"))
	shows(`/x ["a"];`)
	resolve()
	shows(`/x ["a" "b"];/y ["c"];`) // the pool keeps a and b for a moment
}

// Until clients are served, the order in which services get their first sets does not decide which
// of them has a route. From then on the one that has it keeps it.
func TestHoldersOfRoutes(t *testing.T) {
	c := configtest.Must(t, "catalog: { tags: [fabio], fabio: { share: false } }\nservices: { moon: { consul: {} }, star: { consul: {} }, sun: { consul: {} } }")
	const key = `"h" 0 "string_prefix" "/x" []` // of the route
	for _, test := range []struct{ former, serveAfter, want string }{
		{"", "sun", "moon"},
		{"", "star", "star"},
		{"star", "sun", "star"},
		{"sun", "sun", "sun"},
		{"gone", "sun", "moon"},
	} {
		all := NewReader(func() {})
		all.Start(c)
		if test.former != "" {
			all.Restore(map[string]string{key: test.former})
		}
		for _, service := range []string{"star", "moon", "sun"} {
			instance := discovery.Instance{Service: service, ID: service, Address: "192.0.2.1", Port: 80, Weight: 1, Tags: []string{"urlprefix-h/x"}}
			all.Gate(service, c.Services[service], func(discovery.Set, bool) {}).Pass(discovery.Set{Instances: []discovery.Instance{instance}})
			all.Applied(all.Ask(c, config.Addition{}))
			if service == test.serveAfter {
				all.Serve()
			}
		}
		holders := all.InUse().Holders
		verify.That(t, len(holders) == 1 && holders[key] == test.want, "%+v: the holders are %v", test, holders)
	}
}

// readStar returns a reader of a configuration that has found the service star, with one instance
// that has tags, and what it asks for.
func readStar(t *testing.T, text string, tags ...string) (*Reader, Asked) {
	t.Helper()
	c := configtest.Must(t, text)
	found, _ := c.Found([]string{"star"}, "")
	all := NewReader(func() {})
	all.Start(c)
	instance := discovery.Instance{Service: "star", ID: "star-1", Address: "192.0.2.1", Port: 443, Weight: 1, Tags: tags}
	star := all.Gate("star", found.Services["star"], func(discovery.Set, bool) {})
	star.Pass(discovery.Set{Instances: []discovery.Instance{instance}})
	return all, all.Ask(c, found)
}

// A setting that cannot be used takes no other one away, such as TLS to the instances.
func TestSettingsThatCannotBeUsed(t *testing.T) {
	all, asked := readStar(t, "catalog: { tags: [traefik] }", "traefik.enable=true",
		"traefik.http.routers.star.rule=Host(`star.example.com`)", "traefik.http.services.star.loadbalancer.server.scheme=https",
		"traefik.http.services.star.loadbalancer.healthcheck.path=/health", "traefik.http.services.star.loadbalancer.healthcheck.interval=often")
	star := asked.Found.Services["star"]
	verify.That(t, star.Upstream.TLS != nil && star.Health.Active == nil, "upstream.tls %+v, health.active %+v", star.Upstream.TLS, star.Health.Active)
	all.Applied(asked)
	problems := all.InUse().Problems
	verify.That(t, len(problems) == 1 && strings.Contains(problems[0].Reason, "the setting health cannot be used"), "problems: %+v", problems)
	verify.Equal(t, len(asked.Routes.Routes), 1, "routes")
}

// Without its upstream, an instance would be asked in another protocol, or without TLS. Its routes
// are not used; those that restrict deny every request, so that no broader one answers.
func TestUpstreamThatCannotBeUsed(t *testing.T) {
	for _, test := range []struct {
		catalog string
		tags    []string
		routes  string // PATH DENY;
		reason  string // of the first problem; empty: none
	}{
		{"", []string{"sluice.upstream=protocol=h2 tls=true", "sluice.route=h/x"}, "/x [];", ""},
		{"", []string{"sluice.upstream=tls=false", "sluice.route=h/x"}, "/x [];", ""},
		{"", []string{"sluice.upstream=protocol=h3 tls=true", "sluice.route=h/x"}, "", `cannot be asked as its tags say: upstream.protocol: value "h3"`},
		{"", []string{"sluice.upstream=protocol=h2", "sluice.route=h/x"}, "", "only with upstream.tls"},
		{"", []string{"sluice.upstream=tls=true tls.skip_verify=maybe", "sluice.route=h/x"}, "", "upstream.tls.skip_verify"},
		{"", []string{"sluice.upstream=protocol=h3", "sluice.route=h/x", "sluice.route=h/y allow=10.0.0.0/8"}, "/y [0.0.0.0/0 ::/0];", "cannot be asked"},
		{"", []string{"sluice.upstream=protocol=h3", "sluice.route=h/x auth", "sluice.route=h/y allow"}, "/y [0.0.0.0/0 ::/0];", "KEY=VALUE"},
		{"", []string{"sluice.upstream=tls=true tls.ca=/etc/ca.pem", "sluice.route=h/x"}, "", "unknown key"},
		{"", []string{"sluice.upstream=tls=true tls.ca=/etc/ca.pem", "urlprefix-h/x"}, "", "unknown key"},
		{"", []string{"sluice.upstream=tls=true\n", "sluice.route=h/x"}, "", "control character"},
		{"", []string{"urlprefix-h/x proto=grpcs grpcservername=star\xff"}, "", "cannot be asked"},
		{", connect: true", []string{"urlprefix-h/x proto=https"}, "/x [];", "the setting upstream cannot be used"},
	} {
		all, asked := readStar(t, "catalog: { tags: [sluice, fabio]"+test.catalog+" }", test.tags...)
		routes := ""
		for _, r := range asked.Routes.Routes {
			routes += fmt.Sprintf("%s %s;", r.Path, r.Deny)
		}
		verify.Equal(t, routes, test.routes, "%q: the routes", test.tags)
		all.Applied(asked)
		problems := all.InUse().Problems
		if test.reason == "" {
			verify.Equal(t, len(problems), 0, "%q: problems", test.tags)
			continue
		}
		verify.That(t, len(problems) > 0 && strings.Contains(problems[0].Reason, test.reason), "%q: problems %+v", test.tags, problems)
	}
}

// TLS to the instances stays, also if another dialect asks for what does not go with it.
func TestUpstreamBeforeOtherSettings(t *testing.T) {
	const listeners = "listeners: [{ name: web, address: ':8080' }, { name: db, address: ':5432', protocol: tcp, sni: [] }]\n"
	_, asked := readStar(t, listeners+"catalog: { tags: [fabio, traefik] }", "urlprefix-h/x proto=https", "traefik.enable=true",
		"traefik.tcp.routers.star.rule=HostSNI(`*`)", "traefik.tcp.services.star.loadbalancer.proxyprotocol.version=1")
	star := asked.Found.Services["star"]
	verify.That(t, star.Upstream.TLS != nil && star.ProxyProtocol == "", "upstream.tls %+v, proxy_protocol %q", star.Upstream.TLS, star.ProxyProtocol)
}
