package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/tags"
	"sluice/test/verify"
)

// used returns the actions of the route "/" with keys, in a file with named actions.
func used(actions, route string) (string, error) {
	c, err := Parse("sluice.yaml", fmt.Appendf(nil, "actions: {%s}\nservices: { a: { peers: ['127.0.0.1:1'] } }\nroutes: [{ service: a, %s }]", actions, route))
	if err != nil {
		return "", err
	}
	var shown map[string]any
	if err := json.Unmarshal(ActionsJSON(c.Routes[0].Actions), &shown); err != nil {
		return "", err
	}
	text, err := json.Marshal(shown) // sorted
	return string(text), err
}

func TestNamedActions(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	verify.NoError(t, os.WriteFile(users, []byte("ada:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/\n"), 0o600))
	password := "basic_auth: { users_file: " + users + " }"
	for _, test := range []struct{ name, actions, route, want string }{
		{"all keys", "a: { strip_prefix: /x, criticality: critical }", "use: [a]", `{"criticality":"critical","strip_prefix":"/x"}`},
		{"the route wins", "a: { strip_prefix: /x, timeouts: { connect: 1s, idle: 2s } }", "use: [a], strip_prefix: /y, timeouts: { idle: 3s }", `{"strip_prefix":"/y","timeouts":{"idle":"3s"}}`},
		{"the later name wins", "a: { strip_prefix: /x, add_prefix: /a }, b: { strip_prefix: /y }", "use: [a, b]", `{"add_prefix":"/a","strip_prefix":"/y"}`},
		{"names of names", "a: { use: [b, c] }, b: { add_prefix: /b, criticality: normal }, c: { use: [d], add_prefix: /c }, d: { criticality: critical }", "use: [a]",
			`{"add_prefix":"/c","criticality":"critical"}`},
		{"the same name twice", "a: { use: [c], add_prefix: /a }, b: { use: [c] }, c: { rate_limit: { rate: 2 }, allow: [10.0.0.0/8] }", "use: [a, b]",
			`{"add_prefix":"/a","allow":["10.0.0.0/8"],"rate_limit":{"burst":2,"key":"client_address","per":"1s","rate":2,"scope":"replica"}}`},
		{"headers by their names", "a: { response_headers: { set: { X-A: a, X-B: a }, add: { X-C: a }, remove: [X-D, X-E] } }",
			"use: [a], response_headers: { set: { x-a: r }, add: { X-F: r }, remove: [x-d, X-C] }",
			`{"response_headers":{"add":{"X-F":"***"},"remove":["x-d","X-C","X-E"],"set":{"X-B":"***","x-a":"***"}}}`},
		{"a redirect needs no service", "a: { redirect: { to: 'https://$host$path' } }", "use: [a]", `{"redirect":{"code":308,"to":"https://$host$path"}}`},
		{"both lists allow", "a: { allow: [10.0.0.0/8, '::1', 192.0.2.0/24] }", "use: [a], allow: [10.1.0.0/16, '::ffff:10.2.0.0/112', 192.0.0.0/16, 172.16.0.0/12]",
			`{"allow":["10.1.0.0/16","::ffff:10.2.0.0/112","192.0.2.0/24"]}`},
		{"one list allows", "a: { allow: [10.0.0.0/8] }, b: {}", "use: [a, b]", `{"allow":["10.0.0.0/8"]}`},
		{"one list denies", "a: { deny: [10.0.0.0/8, '::1'] }", "use: [a], deny: [10.0.0.0/8, 192.0.2.1]", `{"deny":["10.0.0.0/8","192.0.2.1","::1"]}`},
		{"the smaller limit", "a: { body_limit: 1MiB }, b: { body_limit: 2MiB }", "use: [a, b], body_limit: 3MiB", `{"body_limit":"1MiB"}`},
		{"a password", "a: { " + password + " }, b: { client_certificate: required }", "use: [a, b]",
			`{"basic_auth":{"realm":"restricted","users_file":"` + users + `"},"client_certificate":"required"}`},
		{"the same password", "a: { " + password + " }", "use: [a], " + password, `{"basic_auth":{"realm":"restricted","users_file":"` + users + `"}}`},
	} {
		got, err := used(test.actions, test.route)
		verify.That(t, err == nil && got == test.want, "%s: %s, %v\nwant %s", test.name, got, err, test.want)
	}
	for _, test := range []struct{ name, actions, route, want string }{
		{"unknown", "secure: {}, office: {}", "use: [secur]", `sluice.yaml:3: routes[0].use[0]: value "secur": the file has no actions with this name, did you mean "secure"? (known: office, secure)`},
		{"none", "", "use: [secure]", `sluice.yaml:3: routes[0].use[0]: value "secure": the file has no actions with this name`},
		{"unknown in actions", "secure: { use: [offise] }, office: {}", "use: [secure]", `sluice.yaml:1: actions.secure.use[0]: value "offise": the file has no actions with this name, did you mean "office"? (known: office, secure)`},
		{"itself", "a: { use: [a] }", "", `sluice.yaml:1: actions.a.use[0]: value "a": these actions use themselves: want no circle`},
		{"a circle", "a: { use: [b] }, b: { use: [c] }, c: { use: [a] }", "", `sluice.yaml:1: actions.c.use[0]: value "a": these actions use themselves: want no circle`},
		{"no client is in both", "a: { allow: [10.0.0.0/8] }", "use: [a], allow: [192.0.2.1]", `sluice.yaml:3: routes[0].use[0]: value "a": these actions have another allow, and neither may be lost: want one of them`},
		{"two passwords", "a: { " + password + " }, b: { basic_auth: { realm: b, users_file: " + users + " } }", "use: [a, b]",
			`sluice.yaml:3: routes[0].use[0]: value "a": these actions have another basic_auth, and neither may be lost: want one of them`},
		{"two limits", "a: { rate_limit: { rate: 1 } }", "use: [a], rate_limit: { rate: 100 }", `sluice.yaml:3: routes[0].use[0]: value "a": these actions have another rate_limit, and neither may be lost: want one of them`},
		{"two lists of certificates", "a: { client_certificates: [cn=a] }", "use: [a], client_certificates: [cn=b]",
			`sluice.yaml:3: routes[0].use[0]: value "a": these actions have another client_certificates, and neither may be lost: want one of them`},
		{"what is wrong is told once", "a: { host_header: 'a b' }, b: { use: [a] }", "use: [b]", `sluice.yaml:1: actions.a.host_header: value "a b": want "peer", or HOST or HOST:PORT, an IPv6 address in brackets`},
		{"a file that is missing", "a: { basic_auth: { users_file: /nowhere/users } }", "",
			`sluice.yaml:1: actions.a.basic_auth.users_file: value "/nowhere/users": cannot be used: users: open /nowhere/users: no such file or directory`},
		{"a match", "a: { path: /x }", "", `sluice.yaml:1: actions.a.path: unknown key`},
	} {
		_, err := used(test.actions, test.route)
		verify.Require(t, err != nil, "%s: no error", test.name)
		verify.That(t, strings.HasPrefix(err.Error(), test.want) && !strings.Contains(err.Error(), "\n"), "%s:\n got  %v\n want %s", test.name, err, test.want)
	}
}

// Documents and tags use what the file offers to them, and cannot weaken it.
func TestRightsToNamedActions(t *testing.T) {
	const actions = `actions:
  file: { allow: [10.0.0.0/8] }
  documents: { use: [file], offered_to: [documents], forward_auth: { url: "http://auth.example.com/" } }
  tags: { use: [file], offered_to: [tags], forward_auth: { url: "http://auth.example.com/" } }
services: { a: { peers: ['127.0.0.1:1'] } }
` + dynamicFile
	route := func(use string) string {
		return "routes: [{ service: a, use: [" + use + "], allow: [0.0.0.0/0, '::/0'] }]"
	}
	for use, refused := range map[string]string{
		"tags":     "a document cannot use these actions: want offered_to: [documents] in the file",
		"file":     "a document cannot use these actions: want offered_to: [documents] in the file",
		"document": `the file has no actions with this name, did you mean "documents"? (known: documents)`,
	} {
		_, err := build(file(actions), keys("a.yaml", route(use)))
		diffLines(t, err, []string{`consul_kv:sluice/a.yaml:1: routes[0].use[0]: value "` + use + `": ` + refused})
	}
	r := verify.Result(build(file(actions), keys("a.yaml", route("documents")))).Must(t).Config.Routes[0]
	verify.That(t, len(r.Allow) == 1 && r.Allow[0].Text == "10.0.0.0/8" && !r.ForwardAuth.ByDocument, "a document uses documents: %+v", r)
	// The files of dynamic are the operator's as the file is.
	c := verify.Result(build(file(actions), files("a.yaml", route("file, tags")))).Must(t).Config
	verify.Equal(t, len(c.Routes[0].Allow), 1, "networks of a route of a file")
	for _, by := range []Setter{ByTag, ByRegistration} {
		using := func(use string) (Route, error) {
			return DecodeRoute(tags.Keys{"path": "/", "allow": []string{"0.0.0.0/0"}, "use": []string{use}}, by, c)
		}
		for use, refused := range map[string]string{
			"documents": by.String() + " cannot use these actions: want offered_to: [tags] in the file",
			"file":      by.String() + " cannot use these actions: want offered_to: [tags] in the file",
			"tag":       `the file has no actions with this name, did you mean "tags"? (known: tags)`,
		} {
			_, err := using(use)
			verify.That(t, err != nil && err.Error() == `use[0]: value "`+use+`": `+refused, "%s uses %s: %v", by, use, err)
		}
		_, err := using("")
		verify.That(t, err != nil, "%s uses nothing", by)
		r := verify.Result(using("tags")).Must(t)
		verify.That(t, len(r.Allow) == 1 && r.Allow[0].Text == "10.0.0.0/8" && r.Built().Restricts(), "%s uses tags: %+v", by, r)
		_, err = DecodeRoute(tags.Keys{"use": []string{"tags"}, "forward_auth": tags.Keys{"url": "http://evil.example.com/"}}, by, c)
		verify.That(t, err != nil && strings.Contains(err.Error(), "another forward_auth"), "%s replaces an authentication server: %v", by, err)
	}
	verify.That(t, MayRestrict(tags.Keys{"use": "x"}) && MayRestrict(tags.Keys{"usee": "x"}), "a tag that uses actions may restrict")
}

// A document that has not changed has the actions of now.
func TestNamedActionsChangeUnderDocuments(t *testing.T) {
	in := Input{File: "sluice.yaml", Decoded: new(Decoded)}
	for _, prefix := range []string{"/a", "/b", "/b", "/a"} {
		text := "services: { a: { peers: ['127.0.0.1:1'] } }\nactions: { x: { offered_to: [documents], strip_prefix: " + prefix + " } }\n" + dynamicFile
		b := verify.Result(in.Build([]Source{file(text), keys("a.yaml", "routes: [{ service: a, use: [x] }]")})).Must(t)
		verify.Equal(t, b.Config.Routes[0].StripPrefix, prefix, "the route strips")
	}
}

// What is secret in named actions is secret in the routes that use them.
func TestSecretsOfNamedActionsAreNotShown(t *testing.T) {
	const text = `
actions:
  a:
    offered_to: [tags]
    request_headers: { set: { X-Key: s3cret } }
    direct_response: { body: "${TOKEN}" }
    redirect: { to: "https://h/${TOKEN}" }
services: { a: { peers: ["127.0.0.1:1"] } }
routes: [{ service: a, use: [a], redirect: { to: /open } }]
`
	c := verify.Result(buildIn(text, environ("TOKEN", "s3cret"))).Must(t)
	byTag := verify.Result(DecodeRoute(tags.Keys{"path": "/tag", "use": []string{"a"}}, ByTag, c)).Must(t)
	byTag.Service = "a"
	merged, conflicts := Merge(c, Addition{Origin: "tags", Routes: []Route{byTag}})
	verify.Equal(t, len(conflicts), 0, "conflicts")
	shown := string(verify.Result(json.Marshal(merged)).Must(t))
	verify.That(t, !strings.Contains(shown, "s3cret"), "shown: %s", shown)
	for path, want := range map[string]int{"/": 1, "/tag": 2} {
		for _, r := range merged.Routes {
			if shown := string(ActionsJSON(r.Actions)); r.Path == path {
				verify.That(t, !strings.Contains(shown, "s3cret") && strings.Count(shown, "${TOKEN}") == want, "%s is shown as %s", path, shown)
			}
		}
	}
	later := verify.Result(buildIn(text, environ("TOKEN", "s3cret2"))).Must(t)
	changes := fmt.Sprint(Diff(c, later))
	verify.That(t, !strings.Contains(changes, "s3cret") && strings.Contains(changes, "actions.a.redirect.to"), "changes: %s", changes)
}
