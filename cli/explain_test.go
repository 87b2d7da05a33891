package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestExplain(t *testing.T) {
	status, stdout, _ := execute(t, "explain", "services.star.retry.attempts")
	verify.That(t, status == exitOK && strings.HasPrefix(stdout, "services.NAME.retry.attempts\n  default: 3\n  allowed: 1 to ") &&
		strings.Contains(stdout, "\n  also set by: documents\n  most peers"), "status %d: %s", status, stdout)
	status, stdout, _ = execute(t, "explain", "routes.when")
	verify.That(t, status == exitOK && strings.Count(stdout, "routes[].when") > 5 && !strings.Contains(stdout, "]("), "status %d: %s", status, stdout)
	status, stdout, _ = execute(t, "explain", "actions.secure.basic_auth")
	verify.That(t, status == exitOK && strings.HasPrefix(stdout, "routes[].basic_auth.users_file\n"), "status %d: %s", status, stdout)
	for asked, want := range map[string]string{"defaults.service.retry": "services.NAME.retry.attempts\n", "defaults.route.compress": "routes[].compress.encodings\n", "defaults": "defaults.service\n"} {
		status, stdout, _ = execute(t, "explain", asked)
		verify.That(t, status == exitOK && strings.HasPrefix(stdout, want), "%s: status %d: %s", asked, status, stdout)
	}
	status, _, stderr := execute(t, "explain", "services.star.retri")
	verify.That(t, status == exitFailed && stderr == "sluice: \"services.star.retri\" is no key: did you mean \"services.star.retry\"?\n", "status %d: %s", status, stderr)
	status, _, stderr = execute(t, "explain", "nothing.like.it.at.all")
	verify.That(t, status == exitFailed && strings.Contains(stderr, "such as services.star.retry"), "status %d: %s", status, stderr)
	status, _, _ = execute(t, "explain")
	verify.Equal(t, status, exitUsage, "status without a key")
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
