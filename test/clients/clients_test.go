package clients

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/test/pinned"
	"sluice/test/verify"
)

// All programs use the same sluice and, but for client certificates, the same listener.
func TestClients(t *testing.T) {
	s := start(t)
	for _, client := range []struct {
		name string
		test func(*testing.T, *stage)
	}{
		{"curl", testCurl}, {"openssl", testOpenSSL}, {"h2load", testH2Load},
		{"grpcurl", testGRPCurl}, {"ghz", testGhz}, {"chromium", testChromium}, {"gtlsclient", testGTLSClient},
	} {
		t.Run(client.name, func(t *testing.T) { client.test(t, s) })
	}
}

// patience is the timeout of a program, far above its usual duration.
const patience = 2 * time.Minute

// outcome is how a program has ended.
type outcome struct {
	stdout, stderr string
	status         int
}

// run runs a program to its end.
func run(t *testing.T, stdin, program string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, program, args...)
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && (ctx.Err() != nil || !errors.As(err, &exit)) {
		t.Fatalf("%s: %v, after %v\n%s%s", command, err, context.Cause(ctx), &stdout, &stderr)
	}
	return outcome{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
}

// succeed runs a program that must end with status 0, and returns its standard output.
func succeed(t *testing.T, program string, args ...string) (stdout string) {
	t.Helper()
	o := run(t, "", program, args...)
	verify.Equal(t, o.status, 0, "%s %q: %s%s: status", program, args, o.stdout, o.stderr)
	return o.stdout
}

// expect fails the test for each of the texts that are not in output.
func expect(t *testing.T, output string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		verify.Contains(t, output, text, "output")
	}
}

// tool builds a program that go.mod pins.
func tool(t *testing.T, name, module string) (path string) {
	t.Helper()
	p := pinned.Program{Name: name, Title: name, Module: module, Package: module + "/cmd/" + name, Dir: "test/clients"}
	return verify.Result(p.Binary(t.Context(), os.Stderr)).Must(t)
}

// file writes a file that ends with the test.
func file(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	verify.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}
