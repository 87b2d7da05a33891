package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The result goes to standard output or a file, notes to standard error. sluice check accepts it.
func TestImport(t *testing.T) {
	dir := t.TempDir()
	input, output := filepath.Join(dir, "fabio.properties"), filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(input, []byte("proxy.addr = :80\nproxy.colour = red\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if status := Run([]string{"import", "fabio", input}, &stdout, &stderr); status != exitOK {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	if want := input + ":2: proxy.colour: "; !strings.HasPrefix(stderr.String(), want) {
		t.Errorf("standard error is %q, want %q…", &stderr, want)
	}
	if status := Run([]string{"import", "fabio", input, "-o", output}, new(bytes.Buffer), new(bytes.Buffer)); status != exitOK {
		t.Errorf("status %d with -o", status)
	}
	if written, err := os.ReadFile(output); err != nil || string(written) != stdout.String() {
		t.Errorf("the file has %q, %v, and standard output %q", written, err, &stdout)
	}
	if status := Run([]string{"check", output}, new(bytes.Buffer), &stderr); status != exitOK {
		t.Errorf("sluice check: %s", &stderr)
	}
}

// Each has its notes, and the status for what is wrong.
func TestImportThatFails(t *testing.T) {
	input := filepath.Join(t.TempDir(), "traefik.yml")
	if err := os.WriteFile(input, []byte("entryPoints: { web: { address: ':80/udp' } }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
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
		var stdout, stderr bytes.Buffer
		if status := Run(c.args, &stdout, &stderr); status != c.status || !strings.Contains(stderr.String(), c.stderr) || stdout.Len() > 0 {
			t.Errorf("%q: status %d, %q, %q", c.args, status, &stdout, &stderr)
		}
	}
}
