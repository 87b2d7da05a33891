package doctor

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	consulsource "sluice/discovery/consul"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// asking returns an instance of a service with tags, on node a.
func asking(service string, n int, tags ...string) Instance {
	port := 8000 + n
	if service == "sun" { // its processes are other ones than those of moon
		port += 100
	}
	i := star(n, "a", "10.0.0.1", port)
	i.Service, i.ID, i.Tags = service, fmt.Sprintf("%s-%d", service, n), tags
	return i
}

// For Consul, Moon and moon are one service, which the operator names.
func TestDefaultRuleIsNotForAnotherSpellingOfAServiceOfTheFile(t *testing.T) {
	facts := healthy()
	facts.Instances = []Instance{asking("Moon", 1)}
	facts.Config = configtest.Must(t, "catalog: { default_rule: '{service}.apps' }\nservices: { moon: { consul: {} } }\nroutes: [{ host: h, service: moon }]")
	facts.Uses = []Use{{Name: "moon", Service: "moon", Instances: facts.Instances}}
	verify.Equal(t, len(facts.resolveTags().result.Routes), 0, "routes of the default rule")
}

// What the default rule asks for is no tag that somebody could correct or remove.
func TestFindingsOfTheDefaultRuleNameNoTag(t *testing.T) {
	const catalog = "catalog: { default_rule: '{service}.apps' }\n"
	bare := func(service string, n int) Instance { return asking(service, n) }
	for _, test := range []struct {
		name, config, code, seen, remedy string
		instances                        []Instance
	}{
		{"no host name", catalog, "error tag-bad", "catalog.default_rule={service}.apps: the name of the service cannot be", "Give the service a route", []Instance{bare("my_app", 1)}},
		{"a route of the file", catalog + "services: { x: { peers: ['127.0.0.1:1'] } }\nroutes: [{ host: moon.apps, service: x }]",
			"warning tag-refused", "catalog.default_rule={service}.apps: ", "If the service may have it, allow it in the section catalog", []Instance{bare("moon", 1)}},
		{"two services", catalog, "error tag-conflict",
			"catalog.default_rule={service}.apps asks for the same requests as catalog.default_rule={service}.apps of the service Moon", "Give the service a route", []Instance{bare("moon", 1), bare("Moon", 1)}},
		{"a tag has the route", strings.Replace(catalog, "catalog: {", "catalog: { tags: [fabio], claims: [{ service: moon, hosts: [sun.apps] }],", 1), "error tag-conflict",
			`catalog.default_rule={service}.apps asks for the same requests as tag "urlprefix-sun.apps/" of the service moon`, "Give the service a route", []Instance{asking("moon", 1, "urlprefix-sun.apps/"), bare("sun", 1)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := configtest.Must(t, test.config)
			facts := healthy()
			facts.Config, facts.Instances = c, test.instances
			findings := slices.DeleteFunc(Diagnose(facts, 0), func(f Finding) bool { return f.Code == CodeUnused })
			verify.Require(t, len(findings) == 1, "the findings are %q", briefs(findings))
			f := findings[0]
			verify.That(t, strings.HasPrefix(brief(f), test.code+" ") &&
				strings.HasPrefix(f.Seen, test.seen) && strings.HasPrefix(f.Do, test.remedy),
				"%s: %s; %s", brief(f), f.Seen, f.Do)
			for _, text := range []string{f.Why, f.Do} {
				verify.That(t, !strings.Contains(text, "the tag") && !strings.Contains(text, "The tag"), "it speaks of a tag: %s", text)
			}
		})
	}
}

func TestTagFindings(t *testing.T) {
	const catalog = "catalog: { tags: [fabio, sluice], claims: [{ service: '*', hosts: [h, file, '{service}'] }] }\n"
	for _, test := range []struct {
		name      string
		config    string
		instances []Instance
		uses      []Use
		want      []string // SEVERITY CODE SUBJECT: part of what was seen
	}{
		{name: "no tags in the configuration", config: "services: { x: { peers: ['127.0.0.1:1'] } }\nroutes: [{ path: /, service: x }]",
			instances: []Instance{asking("moon", 1, "urlprefix-h:x:y/")},
			want:      []string{"notice unused moon: no route leads to it"}},
		{name: "a good tag is a route", config: catalog, instances: []Instance{asking("moon", 1, "urlprefix-h/")}},
		{name: "bad tags, per instance", config: catalog,
			instances: []Instance{asking("moon", 1, "urlprefix-h/ weight=x"), asking("moon", 2, "urlprefix-h/ weight=x"), asking("sun", 1, "urlprefix-h?/", "urlprefix-sun/")},
			want: []string{
				`error tag-bad sun sun-1 on node a, 10.0.0.1:8101: tag "urlprefix-h?/": the host h? is a pattern`,
				`notice tag-bad moon moon-1 on node a, 10.0.0.1:8001: tag "urlprefix-h/ weight=x", column 14: not a number`,
				`notice tag-bad moon moon-2 on node a, 10.0.0.1:8002: tag "urlprefix-h/ weight=x", column 14: not a number`,
			}},
		{name: "a restriction that is not understood", config: catalog,
			instances: []Instance{asking("moon", 1, "urlprefix-h/ allow=x")},
			want:      []string{`error tag-bad moon moon-1 on node a, 10.0.0.1:8001: the route denies every request`}},
		{name: "two services", config: catalog,
			instances: []Instance{asking("moon", 1, "urlprefix-h/"), asking("sun", 1, "sluice.route=H"), asking("sun", 2, "sluice.route=H")},
			want: []string{
				`error tag-conflict sun sun-1 on node a, 10.0.0.1:8101: tag "sluice.route=H" asks for the same requests as tag "urlprefix-h/" of the service moon`,
				`error tag-conflict sun sun-2 on node a, 10.0.0.1:8102: of the service moon`,
				"notice unused sun: 2 instances",
			}},
		{name: "services that share a route", config: catalog,
			instances: []Instance{asking("moon", 1, "urlprefix-h/"), asking("sun", 1, "urlprefix-H/ weight=0.2"), asking("sun", 2, "urlprefix-H/ weight=0.2")}},
		{name: "services that may not share a route", config: strings.Replace(catalog, "claims:", "fabio: { share: false }, claims:", 1),
			instances: []Instance{asking("moon", 1, "urlprefix-h/"), asking("sun", 1, "urlprefix-h/")}, want: []string{
				`error tag-conflict sun sun-1 on node a, 10.0.0.1:8101: tag "urlprefix-h/" asks for the same requests as tag "urlprefix-h/" of the service moon`,
				"notice unused sun: 1 instance",
			}},
		{name: "a route of the file", config: catalog + "services: { x: { peers: ['127.0.0.1:1'] } }\nroutes: [{ host: file, service: x }]",
			instances: []Instance{asking("moon", 1, "urlprefix-file/", "urlprefix-h/")},
			want:      []string{`warning tag-conflict moon moon-1 on node a, 10.0.0.1:8001: the operator has a route for the same requests`}},
		{name: "no claim", config: catalog, instances: []Instance{asking("moon", 1, "urlprefix-other/", "urlprefix-moon/")},
			want: []string{`warning tag-refused moon moon-1 on node a, 10.0.0.1:8001: tag "urlprefix-other/": the service has no claim`}},
		{name: "a priority", config: catalog, instances: []Instance{asking("moon", 1, "sluice.route=moon/ priority=1")},
			want: []string{`notice tag-refused moon moon-1 on node a, 10.0.0.1:8001: priorities up to 0`}},
		{name: "other options", config: catalog,
			instances: []Instance{asking("moon", 1, "urlprefix-h/"), asking("moon", 2, "urlprefix-h/"), asking("moon", 3, "urlprefix-h/ strip=/x").with(func(i *Instance) { i.Registered = 9 })},
			want:      []string{`notice tags-differ moon moon-3 on node a, 10.0.0.1:8003: tag "urlprefix-h/ strip=/x": an older instance`}},
		{name: "only the selected services", config: strings.Replace(catalog, "tags:", "select: { name: 'm*', tag: live, meta: [team=a] }, tags:", 1),
			instances: []Instance{
				asking("moon", 1, "urlprefix-h?/", "live").with(func(i *Instance) { i.Meta = map[string]string{"team": "a"} }),
				asking("moon", 2, "urlprefix-h?/", "live"), asking("moon", 3, "urlprefix-h?/").with(func(i *Instance) { i.Meta = map[string]string{"team": "a"} }),
				asking("sun", 1, "urlprefix-h?/", "live").with(func(i *Instance) { i.Meta = map[string]string{"team": "a"} }),
			},
			want: []string{
				`error tag-bad moon moon-1 on node a, 10.0.0.1:8001: the host h?`,
				"notice unused moon: 3 instances", "notice unused sun: 1 instance",
			}},
		{name: "a service of the file, with the name and the instances that the file says", config: catalog,
			instances: []Instance{asking("moon", 1, "urlprefix-h?/"), asking("moon", 2, "urlprefix-h?/", "live", "urlprefix-h/")},
			uses: []Use{{
				Name: "file", Service: "moon", Source: consulsource.ServiceOptions{Service: "moon", Tags: []string{"live"}}, Listed: 1, Serving: 1,
				Instances: []Instance{asking("moon", 2, "urlprefix-h?/", "live", "urlprefix-h/")},
			}},
			want: []string{`error tag-bad moon moon-2 on node a, 10.0.0.1:8002: the host h?`}},
		{name: "an instance without a port", config: catalog,
			instances: []Instance{asking("moon", 1, "urlprefix-h/"), asking("moon", 2, "urlprefix-h?/").with(func(i *Instance) { i.Port, i.Unusable = 0, "no port" })},
			want:      []string{"error no-port moon moon-2 on node a, 10.0.0.1:0: no port"}},
		{name: "a sidecar", config: catalog,
			instances: []Instance{asking("moon", 1, "urlprefix-h/"), asking("moon-sidecar-proxy", 1, "urlprefix-h/").with(func(i *Instance) { i.Kind, i.Sidecar = "connect-proxy", true })}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := configtest.Must(t, test.config)
			facts := healthy()
			facts.Config, facts.Instances, facts.Uses = c, test.instances, test.uses
			findings := Diagnose(facts, 0)
			verify.Require(t, len(findings) == len(test.want),
				"the findings are %q, want %q", briefs(findings), test.want)
			for n, finding := range findings {
				verify.That(t, finding.Why != "" && finding.Do != "",
					"%s: no reason or no remedy: %+v", brief(finding), finding)
				what, seen, _ := strings.Cut(test.want[n], ": ")
				verify.That(t, brief(finding) == what && strings.Contains(finding.Seen, seen),
					"the finding is %s: %s, want %s", brief(finding), finding.Seen, test.want[n])
			}
			slices.Reverse(facts.Instances)
			verify.Slices(t, briefs(Diagnose(facts, 0)), briefs(findings), "in another order")
		})
	}
}
