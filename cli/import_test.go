package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/verify"
)

// The result goes to standard output or a file, notes to standard error. sluice check accepts it.
func TestImport(t *testing.T) {
	input := writeFile(t, "fabio.properties", "proxy.addr = :80\nproxy.colour = red\n")
	output := filepath.Join(t.TempDir(), "sluice.yaml")
	status, stdout, stderr := execute(t, "import", "fabio", input)
	verify.That(t, status == exitOK && strings.HasPrefix(stderr, input+":2: proxy.colour: "), "status %d: %s", status, stderr)
	prints(t, exitOK, "", "import", "fabio", input, "-o", output)
	verify.Equal(t, string(verify.Result(os.ReadFile(output)).Must(t)), stdout, "the file")
	prints(t, exitOK, "", "check", output)
}

// Each has its notes, and the status for what is wrong.
func TestImportThatFails(t *testing.T) {
	input := writeFile(t, "traefik.yml", "entryPoints: { web: { address: ':80/udp' } }\n")
	for _, c := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"import", "traefik"}, exitUsage, "name the load balancer"},
		{[]string{"import", "apache", input}, exitFailed, "want one of fabio"},
		{[]string{"import", "fabio", input + ".none"}, exitFailed, "no such file"},
		{[]string{"import", "traefik", input}, exitFailed, input + ":1: "},
	} {
		status, stdout, stderr := execute(t, c.args...)
		verify.That(t, status == c.status && strings.Contains(stderr, c.stderr) && stdout == "",
			"%q: status %d, %q, %q", c.args, status, stdout, stderr)
	}
}
