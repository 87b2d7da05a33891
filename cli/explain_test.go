package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestExplain(t *testing.T) {
	prints(t, exitOK, "\n  also set by: documents\n  most peers", "explain", "services.star.retry.attempts")
	status, stdout, _ := execute(t, "explain", "routes.when")
	verify.That(t, status == exitOK && strings.Count(stdout, "routes[].when") > 5 && !strings.Contains(stdout, "]("), "status %d: %s", status, stdout)
	for asked, want := range map[string]string{
		"services.star.retry.attempts": "services.NAME.retry.attempts\n  default: 3\n  allowed: 1 to ",
		"defaults.service.retry":       "services.NAME.retry.attempts\n", "defaults.route.compress": "routes[].compress.encodings\n",
		"defaults": "defaults.service\n", "actions.secure.basic_auth": "routes[].basic_auth.users_file\n",
	} {
		status, stdout, _ = execute(t, "explain", asked)
		verify.That(t, status == exitOK && strings.HasPrefix(stdout, want), "%s: status %d: %s", asked, status, stdout)
	}
	fails(t, "sluice: \"services.star.retri\" is no key: did you mean \"services.star.retry\"?\n", "explain", "services.star.retri")
	prints(t, exitFailed, "such as services.star.retry", "explain", "nothing.like.it.at.all")
	prints(t, exitUsage, "", "explain")
}

// Each key has a description: those of services and routes too, whose rows leave out the beginning.
func TestConfigSchema(t *testing.T) {
	status, stdout, _ := execute(t, "config", "schema")
	verify.Equal(t, status, exitOK, "status")
	type schema struct {
		Description          string
		Properties           map[string]schema
		Items                *schema
		AdditionalProperties json.RawMessage
	}
	var root schema
	verify.Succeeds(t, json.Unmarshal([]byte(stdout), &root))
	host := root.Properties["routes"].Items.Properties["host"].Description
	verify.That(t, strings.HasPrefix(host, "such as www.example.com"), "routes[].host: %q", host)
	var service schema
	verify.Succeeds(t, json.Unmarshal(root.Properties["services"].AdditionalProperties, &service))
	attempts := service.Properties["retry"].Properties["attempts"].Description
	verify.That(t, attempts != "", "services.NAME.retry.attempts has no description")
}
