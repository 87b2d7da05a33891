package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"sluice/test/verify"
)

// execute runs a command line in this process.
func execute(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = Run(args, &out, &errs)
	return status, out.String(), errs.String()
}

// prints fails the test unless a command line ends with the status, and what it writes has the
// text.
func prints(t *testing.T, wantStatus int, want string, args ...string) {
	t.Helper()
	status, stdout, stderr := execute(t, args...)
	got := stdout + stderr
	verify.That(t, status == wantStatus && strings.Contains(got, want), "%q: status %d\n%s want %d\n%s", args, status, got, wantStatus, want)
}

// fails fails the test unless a command line fails, with this error and no other.
func fails(t *testing.T, want string, args ...string) {
	t.Helper()
	status, stdout, stderr := execute(t, args...)
	verify.That(t, status == exitFailed && stderr == want, "%q: status %d\n%s%s want\n%s", args, status, stdout, stderr, want)
}

// commandsTo returns a function that fails the test unless a command to that admin API ends with
// the status, and writes want.
func commandsTo(t *testing.T, admin string) func(status int, want string, args ...string) {
	return func(wantStatus int, want string, args ...string) {
		t.Helper()
		status, stdout, stderr := execute(t, append(args, "--admin", admin)...)
		got := stdout + stderr
		verify.That(t, status == wantStatus && got == want, "%q: status %d\n%s want %d\n%s", args, status, got, wantStatus, want)
	}
}

func writeFile(t *testing.T, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	verify.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// shortDir returns a directory for sockets, whose addresses are short.
func shortDir(t *testing.T) string {
	t.Helper()
	dir := verify.Result(os.MkdirTemp("", "sluice-")).Must(t)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serveHandler serves a handler, and returns its address.
func serveHandler(t *testing.T, handler http.HandlerFunc) (address string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// serveJSON serves what answer returns.
func serveJSON(t *testing.T, answer func(*http.Request) any) (address string) {
	t.Helper()
	return serveHandler(t, func(w http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(w).Encode(answer(r)) })
}

func TestWrongCommandLines(t *testing.T) {
	tests := []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"unlike"}, exitUsage, "sluice: unknown command \"unlike\" for \"sluice\"\nRun \"sluice --help\" for help.\n"},
		{[]string{"run", "--nope"}, exitUsage, "sluice: unknown flag: --nope\nRun \"sluice run --help\" for help.\n"},
		{[]string{"run", "file"}, exitUsage, "sluice: unexpected argument \"file\"\nRun \"sluice run --help\" for help.\n"},
		{[]string{"runn"}, exitUsage, "sluice: unknown command \"runn\" for \"sluice\"\nsluice: Did you mean this?\nsluice: \trun\nRun \"sluice --help\" for help.\n"},
		{[]string{"run"}, exitUsage, "sluice: nothing to serve: give --config FILE, --service NAME for a service in Consul, or --tags DIALECT for those with tags\nRun \"sluice run --help\" for help.\n"},
		{[]string{"run", "-c", "a", "--service", "b"}, exitUsage, "sluice: --service b: not allowed with --config: add the service to a\nRun \"sluice run --help\" for help.\n"},
		{[]string{"run", "-c", "/nonexistent/a"}, exitFailed, "sluice: read configuration: open /nonexistent/a: no such file or directory\n"},
		{[]string{"check", "a", "-c", "b"}, exitUsage, "sluice: name the file once: as FILE or by --config\nRun \"sluice check --help\" for help.\n"},
		{[]string{"peers", "--watch", "--json"}, exitUsage, "sluice: --watch and --json exclude each other\nRun \"sluice peers --help\" for help.\n"},
		{[]string{"drain"}, exitUsage, "sluice: name one peer\nRun \"sluice drain --help\" for help.\n"},
		{[]string{"enable", "a", "b"}, exitUsage, "sluice: name one peer\nRun \"sluice enable --help\" for help.\n"},
		{[]string{"ready", "offf"}, exitUsage, "sluice: want on, off or nothing\nRun \"sluice ready --help\" for help.\n"},
		{[]string{"doctor", "star"}, exitUsage, "sluice: unexpected argument \"star\"\nRun \"sluice doctor --help\" for help.\n"},
		{[]string{"doctor", "--yes"}, exitUsage, "sluice: --yes and --dry-run are for --fix\nRun \"sluice doctor --help\" for help.\n"},
		{[]string{"doctor", "--fix", "--json"}, exitUsage, "sluice: --fix --json cannot prompt: add --yes or --dry-run\nRun \"sluice doctor --help\" for help.\n"},
		{[]string{"doctor", "--agent-address", "a"}, exitUsage, "sluice: --agent-address \"a\": want NODE=URL\nRun \"sluice doctor --help\" for help.\n"},
		{[]string{"doctor", "--critical-for", "-1s"}, exitUsage, "sluice: --critical-for -1s: want 0 or more\nRun \"sluice doctor --help\" for help.\n"},
		{[]string{"doctor", "--connect-timeout", "0s"}, exitUsage, "sluice: --connect-timeout 0s: want more than 0\nRun \"sluice doctor --help\" for help.\n"},
		{[]string{"peers", "--admin", "x"}, exitUsage, "sluice: --admin \"x\": want HOST:PORT, https://HOST:PORT or unix:PATH\nRun \"sluice peers --help\" for help.\n"},
		{[]string{"peers", "--admin", "ftp://a:1"}, exitUsage, "sluice: --admin \"ftp://a:1\": want HOST:PORT, https://HOST:PORT or unix:PATH\nRun \"sluice peers --help\" for help.\n"},
		{[]string{"peers", "--ca-file", "a.pem"}, exitUsage, "sluice: --ca-file: only with --admin https://HOST:PORT\nRun \"sluice peers --help\" for help.\n"},
		{[]string{"peers", "--admin", "https://127.0.0.1:1", "--ca-file", "/nonexistent/a"}, exitFailed, "sluice: --ca-file: trusted certificates: open /nonexistent/a: no such file or directory\n"},
		{[]string{"peers", "--admin", "unix:/nonexistent/a"}, exitFailed, "sluice: no sluice answers at unix:/nonexistent/a: is it running? (--admin sets the address)\n"},
		{[]string{"peers", "--token-file", "/nonexistent/a"}, exitFailed, "sluice: --token-file: open /nonexistent/a: no such file or directory\n"},
	}
	for _, test := range tests {
		status, stdout, stderr := execute(t, test.args...)
		verify.That(t, status == test.status && stderr == test.stderr && stdout == "", "%q: status %d\n%s%s want %d\n%s", test.args, status, stdout, stderr, test.status, test.stderr)
	}
}

func TestHelpIsNoFailure(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"help", "run"}, {"run", "--help"}, {"check", "--help"}, {"peers", "--help"}, {"doctor", "--help"}} {
		prints(t, exitOK, "Usage:", args...)
	}
}

// A shell asks the running sluice for the names of services.
func TestCompletion(t *testing.T) {
	address := serveHandler(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[{"service":"moon"},{"service":"star"}]`) })
	complete := func(args ...string) (names string) {
		t.Helper()
		status, stdout, stderr := execute(t, append([]string{"__complete"}, args...)...)
		names, found := strings.CutSuffix(stdout, ":4\n") // no names of files
		verify.That(t, status == exitOK && found, "%q: status %d\n%s%s", args, status, stdout, stderr)
		return names
	}
	for _, args := range [][]string{{"peers", "--admin", address, ""}, {"peers", "moon", "--admin", address, ""}, {"shares", "pause", "--admin", address, ""}} {
		verify.Equal(t, complete(args...), "moon\nstar\n", "%q", args)
	}
	verify.Equal(t, complete("shares", "pause", "moon", "--admin", address, ""), "", "a second service")
	verify.Equal(t, complete("peers", "--admin", nowhere, ""), "", "without sluice")
}

func TestCheck(t *testing.T) {
	good := writeFile(t, "good.yaml", "services: { a: { peers: ['127.0.0.1:1'] } }\nroutes: [{ service: a }]\n")
	status, stdout, stderr := execute(t, "check", "--config", good)
	want := good + " is right: listeners 1, services 1, routes 1\n"
	verify.That(t, status == exitOK && stdout == want && stderr == "", "status %d\n%s%s", status, stdout, stderr)

	bad := writeFile(t, "bad.yaml", "log: { level: loud }\nservices: { a: { peers: ['127.0.0.1:1'] } }\nroutes: [{ service: b }]\n")
	status, stdout, stderr = execute(t, "check", "--config", bad)
	want = fmt.Sprintf(`%s:1: log.level: value "loud": want one of debug, info, warn, error
  log: { level: loud }
                ^
%[1]s:3: routes[0].service: value "b": no such service, did you mean "a"? (known: a)
  routes: [{ service: b }]
             ^
sluice: errors in the configuration: 2
`, bad)
	verify.That(t, status == exitFailed && stdout == "" && stderr == want, "status %d\n%s%s want\n%s", status, stdout, stderr, want)
	prints(t, exitOK, "{\n  \"file\": \""+good+"\",\n  \"right\": true,\n  \"errors\": []\n}\n", "check", good, "--json")
	var found struct {
		Right  bool
		Errors []struct {
			File                string
			Line, Column        int
			Key, Value, Message string
		}
	}
	status, stdout, stderr = execute(t, "check", bad, "--json")
	verify.Succeeds(t, json.Unmarshal([]byte(stdout), &found))
	verify.That(t, status == exitFailed && stderr == "" && !found.Right && len(found.Errors) == 2, "status %d\n%s%s", status, stdout, stderr)
	first := found.Errors[0]
	verify.That(t, first.File == bad && first.Line == 1 && first.Column == 15 && first.Key == "log.level" && first.Value == `"loud"` && first.Message == "want one of debug, info, warn, error", "%+v", first)
	verify.That(t, found.Errors[1].Line == 3 && found.Errors[1].File == bad, "%+v", found.Errors[1])

	// Files that run opens after it has read the configuration.
	named := writeFile(t, "files.yaml", `consul: { tls: { ca_path: /nonexistent/cas } }
services:
  a:
    peers: ['127.0.0.1:1']
    upstream: { tls: { ca: /nonexistent/ca } }
    health: { active: { tls: { cert: /nonexistent/c, key: /nonexistent/k } } }
  b: { etcd: { endpoints: ['https://127.0.0.1:1'], prefix: /b/, tls: { ca: /nonexistent/ca } } }
routes:
  - { path: /a, service: a, basic_auth: { users_file: /nonexistent/users } }
  - { path: /b, service: b, jwt: { jwks_file: /nonexistent/keys, issuer: i, audiences: [a] } }
`)
	status, stdout, stderr = execute(t, "check", "--config", named)
	for _, want := range []string{
		`:1: consul.tls.ca_path: value "/nonexistent/cas": cannot be used: trusted certificates: `,
		`:5: services.a.upstream.tls.ca: value "/nonexistent/ca": cannot be used: trusted certificates: `,
		`:6: services.a.health.active.tls.cert: value "/nonexistent/c": cannot be read: `,
		`:6: services.a.health.active.tls.key: value "/nonexistent/k": cannot be read: `,
		`:7: services.b.etcd.tls.ca: value "/nonexistent/ca": cannot be used: trusted certificates: `,
		`:9: routes[0].basic_auth.users_file: value "/nonexistent/users": cannot be used: users: `,
		`:10: routes[1].jwt.jwks_file: value "/nonexistent/keys": cannot be used: keys: `,
	} {
		verify.That(t, strings.Contains(stderr, named+want), "no %s in\n%s", want, stderr)
	}
	verify.That(t, status == exitFailed && stdout == "" && strings.HasSuffix(stderr, "errors in the configuration: 7\n"), "status %d\n%s%s", status, stdout, stderr)
}

// Without a file, run and check take that of the package.
func TestUsualFile(t *testing.T) {
	packaged := usualFile
	t.Cleanup(func() { usualFile = packaged })
	usualFile = writeFile(t, "sluice.yaml", "services: { a: { peers: ['127.0.0.1:1'] } }\nroutes: [{ service: b }]\n")
	for _, command := range []string{"check", "run"} {
		prints(t, exitFailed, usualFile+":2: routes[0].service", command)
	}
}

// A pipeline has no tokens, and neither the files that sluice writes nor those with instances.
func TestCheckOpensNoTokens(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "sluice.yaml", `
access_log: { path: /nonexistent/access.log }
admin: { token_file: /nonexistent/a, read_token_file: /nonexistent/b, orders: /nonexistent/orders, shares: /nonexistent/shares }
discovery: { snapshot: /nonexistent/snapshot }
consul: { token_file: /nonexistent/c, register: { replica_token_file: /nonexistent/d } }
services: { star: { file: /nonexistent/star } }
routes: [{ service: star }]
`)
	prints(t, exitOK, path+" is right: listeners 1, services 1, routes 1\n", "check", "--config", path)
}

func TestVersion(t *testing.T) {
	status, stdout, _ := execute(t, "version")
	verify.That(t, status == exitOK && strings.HasPrefix(stdout, "sluice ") && strings.Count(stdout, "\n") == 1, "status %d: %s", status, stdout)
}

// The number is read by packaging/build too.
func TestVersionNamesItsCommit(t *testing.T) {
	for want, settings := range map[string][]debug.BuildSetting{
		releaseVersion:                            nil,
		releaseVersion + "+0123456789ab":          {{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "false"}},
		releaseVersion + "+0123456789ab.modified": {{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}},
	} {
		verify.Equal(t, versionOf(&debug.BuildInfo{Settings: settings}), want, "version")
	}
}
