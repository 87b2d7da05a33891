package claim

import (
	"testing"

	"sluice/config"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// The hosts of the operator's routes are reserved in every spelling, and a claim covers them in
// every spelling.
func TestHostsAreComparedInOneSpelling(t *testing.T) {
	const text = "services: { s: { peers: ['127.0.0.1:1'] } }\nroutes: [{ host: '[2001:db8::1]', path: /app, service: s }, { host: App.example, service: s }]\n"
	for _, host := range []string{"[2001:db8::1]", "[2001:DB8:0::1]", "[2001:0db8:0:0:0:0:0:1]", "app.example", "APP.example."} {
		for claims, want := range map[string]bool{
			"": false,
			", claims: [{ service: web, hosts: ['[2001:DB8::0:1]', app.EXAMPLE] }]": true,
		} {
			c := configtest.Must(t, "catalog: { tags: [sluice]"+claims+" }\n"+text)
			rules := NewRules(c)
			_, refused := rules.allow("web", config.Route{Host: host, Path: "/"})
			verify.That(t, (refused == "") == want, "%s with the claims %q: %q", host, claims, refused)
		}
	}
}
