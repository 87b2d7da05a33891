//go:build unix

package docs

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cli"
	"sluice/test/long"
	"sluice/test/testcert"
	"sluice/test/verify"
)

var update = flag.Bool("update", false, "write what commands print into the pages, where it differs")

// TestCommands runs the console and sh blocks of all pages.
func TestCommands(t *testing.T) {
	for _, name := range pages(t) {
		steps := readPage(t, name)
		if slices.ContainsFunc(steps, func(s step) bool { return s.runs() }) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if !*update {
					long.Test(t)
				}
				require(t, steps)
				runPage(t, name, steps)
			})
		}
	}
}

// require skips the test of a page if a program that its commands need is not installed.
func require(t *testing.T, steps []step) {
	for _, program := range []string{"bash", "curl", "jq", "openssl", "python3", "prometheus"} {
		_, err := exec.LookPath(program)
		if err != nil && slices.ContainsFunc(steps, func(s step) bool {
			return program == "bash" || (s.runs() || s.kind == "setup") && strings.Contains(s.text, program)
		}) {
			t.Skipf("the commands of the page need %s: %v", program, err)
		}
	}
}

// TestMarked finds commands in blocks without a language, which the tests would not run.
func TestMarked(t *testing.T) {
	t.Parallel()
	commands := regexp.MustCompile(`(?m)^(\$|sluice|curl|consul|etcdctl|jq|go (run|test)) .*`)
	for _, name := range pages(t) {
		for _, s := range readPage(t, name) {
			found := commands.FindString(s.text)
			verify.That(t, s.kind != "" || found == "", "%s:%d: a block with the command %q is neither console nor sh", name, s.line, found)
		}
	}
}

// runs: the step is a block of commands, and no illustration.
func (s step) runs() bool {
	return slices.Contains([]string{"console", "sh", "bash"}, s.kind) && s.illustration == ""
}

func runPage(t *testing.T, name string, steps []step) {
	s := newSession(t, steps)
	var corrections []correction
	for _, part := range steps {
		switch {
		case part.kind == "consul":
			s.startConsul(part.text)
		case part.kind == "etcd":
			s.startEtcd(part.text)
		case part.kind == "setup":
			output, status := s.run(s.background(part.text))
			verify.Require(t, status == 0, "%s:%d: the commands ended with status %d and printed\n%s", name, part.line, status, output)
		case part.file != "":
			file := filepath.Join(s.dir, part.file)
			verify.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			verify.NoError(t, os.WriteFile(file, []byte(s.ports.real(part.text)), 0o600))
		case part.serves:
			s.serve(name, part)
		case part.signal != "":
			s.signal(name, part)
		case part.runs():
			for _, c := range part.commands(t) {
				if strings.TrimSpace(c.text) == "" {
					continue
				}
				printed, ok := s.command(name, part, c)
				if !ok && *update && part.kind == "console" {
					corrections = append(corrections, correction{c, printed})
				} else if !ok {
					return
				}
			}
		}
	}
	if len(corrections) > 0 {
		correct(t, name, corrections)
	}
}

// serve starts the command of a block, and waits until it has printed what the page shows.
func (s *session) serve(name string, block step) {
	s.t.Helper()
	commands := block.commands(s.t)
	verify.Require(s.t, len(commands) == 1, "%s:%d: one command can serve, not %d", name, block.line, len(commands))
	s.served, s.shown = filepath.Join(s.own, "served"), 0
	s.run(": >" + s.served + "; " + commands[0].text + " >>" + s.served + " 2>&1 & served=$!")
	s.awaitServed(name, commands[0].line, commands[0].shown)
}

// signal sends a signal to what serve has started, and waits until it has ended, and has printed
// what the page shows.
func (s *session) signal(name string, block step) {
	s.t.Helper()
	s.run("kill -" + block.signal + " $served; wait $served")
	s.awaitServed(name, block.line, append([]string{"…"}, block.lines()...))
}

// slow are lines that a command prints only on a slow machine.
var slow = regexp.MustCompile(`(?m)^.* the app does not pass its check yet; .*\n`)

// awaitServed waits until what runs on has printed lines, and anything else after them.
func (s *session) awaitServed(name string, line int, shown []string) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		output := verify.Result(os.ReadFile(s.served)).Must(s.t)
		printed := slow.ReplaceAllString(s.ports.shown(string(output[s.shown:])), "")
		err := differ(append(slices.Clone(shown), "…"), strings.Split(strings.TrimSuffix(printed, "\n"), "\n"))
		if err == nil {
			s.shown = len(output)
			return
		}
		verify.Require(s.t, !time.Now().After(deadline), "%s:%d: it prints\n%s\nand not what the page shows, %v", name, line, printed, err)
	}
}

// replaced are commands that need the repository, or ports that the test cannot choose.
var replaced = strings.NewReplacer("go run ./examples/goapp", "goapp", "consul agent -dev", "true")

// command runs a command of a block, and reports whether it did what the page shows.
func (s *session) command(name string, block step, c command) (printed []string, ok bool) {
	s.t.Helper()
	text := replaced.Replace(c.text)
	if block.background {
		text = "terminal " + text
	}
	deadline := time.Now().Add(patience)
	if *update {
		deadline = time.Now().Add(10 * time.Second)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	before := s.status
	for {
		s.status = before
		output, status := s.run(s.background(text))
		printed = strings.Split(strings.TrimSuffix(output, "\n"), "\n")
		if block.kind != "console" {
			verify.Equal(s.t, status, 0, "%s:%d: %s ended with status and printed %s", name, c.line, c.text, output)
			return printed, status == 0
		}
		err := differ(c.shown, printed)
		if err == nil {
			return printed, true
		}
		if time.Now().After(deadline) {
			s.t.Errorf("%s:%d: %s\nprints\n%s\nand not what the page shows, %v", name, c.line, c.text, output, err)
			return printed, false
		}
		<-tick.C
	}
}

// correction is what a command printed, where the page shows something else.
type correction struct {
	command command
	printed []string
}

// correct writes corrections into a page.
func correct(t *testing.T, name string, corrections []correction) {
	file, lines := filepath.Join(repository, name), strings.Split(textOf(t, name), "\n")
	for _, c := range slices.Backward(corrections) {
		first := c.command.line + strings.Count(c.command.text, "\n")
		lines = slices.Replace(lines, first, first+len(c.command.shown), c.printed...)
	}
	verify.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644))
}

// TestConfigurations checks the yaml blocks of all pages as sluice check does. A block that is not
// right as it is may lack services and routes: it gets the simplest ones.
func TestConfigurations(t *testing.T) {
	blocks := make(map[string][]step)
	for _, name := range pages(t) {
		blocks[name] = readPage(t, name)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	writeReferenced(t, dir)
	for name, steps := range blocks {
		for _, block := range steps {
			if block.kind != "yaml" || block.illustration != "" {
				continue
			}
			err := check(t, block.text)
			if err != nil {
				err = check(t, block.complete())
			}
			verify.That(t, err == nil, "%s:%d: %v", name, block.line, err)
		}
	}
}

// check runs sluice check. Warnings are errors: pages show no keys of earlier versions.
func check(t *testing.T, text string) error {
	dir := verify.Result(os.Getwd()).Must(t)
	text = strings.ReplaceAll(text, "/etc/sluice/", dir+"/")
	verify.NoError(t, os.WriteFile("sluice.yaml", []byte(text), 0o600))
	var stdout, stderr bytes.Buffer
	if status := cli.Run([]string{"check", "--config", "sluice.yaml"}, &stdout, &stderr); status != 0 || stderr.Len() > 0 {
		return fmt.Errorf("sluice check ends with status %d:\n%s%s", status, &stdout, &stderr)
	}
	return nil
}

// writeReferenced writes the files that the pages name.
func writeReferenced(t *testing.T, dir string) {
	cert, key := testcert.PEM("www.example.com")
	write(t, dir, "site.pem", string(cert)+string(key)) // as HAProxy wants it
	write(t, dir, "site.key", string(key))
	write(t, dir, "internal.pem", string(cert))
	clients := testcert.NewAuthority(t, "clients.example")
	write(t, dir, "clients.pem", string(clients.Root))
	write(t, dir, "clients.crl", string(clients.CRL(t, time.Now(), time.Now().Add(time.Hour), nil)))
	write(t, dir, "tickets.keys", base64.StdEncoding.EncodeToString(make([]byte, 32)))
	write(t, dir, "cloudflare.token", "TOKEN")
	verify.NoError(t, os.Chmod(write(t, dir, "dns-hook", "#!/bin/sh\n"), 0o700))
	write(t, dir, "east.pem", string(cert))
	write(t, dir, "users", "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")
	for _, page := range []string{"robots.txt", "closed.html", "soon.html", "error.html", "error.json"} {
		write(t, dir, page, "a page")
	}
	write(t, dir, "acme-1.key", base64.StdEncoding.EncodeToString(make([]byte, 32)))
	verify.NoError(t, os.Mkdir(filepath.Join(dir, "routes.d"), 0o755))
}

// complete returns a block of keys as a whole configuration. A part has the indentation of the
// configuration.
func (s step) complete() string {
	const listeners, services, routes = "listeners", "services", "routes"
	text, has := s.text, func(key string) bool {
		return strings.HasPrefix(s.text, key+":") || strings.Contains(s.text, "\n"+key+":")
	}
	switch s.part {
	case "listener":
		text = "listeners:\n  - name: web\n    address: \":8443\"\n" + s.text
		has = func(key string) bool { return key == listeners }
	case "service":
		text = "services:\n  star:\n    peers: [\"127.0.0.1:9001\"]\n" + s.text
		has = func(key string) bool { return key == services }
	case "route":
		text = "routes:\n  - service: star\n" + s.text
		has = func(key string) bool { return key == routes }
	}
	if !has(services) {
		text += "services: { star: { peers: [\"127.0.0.1:9001\"] } }\n"
	}
	if !has(routes) {
		text += "routes: [{ service: " + firstService(text) + " }]\n"
	}
	return text
}

// firstService returns the name of the first service of a configuration.
func firstService(text string) string {
	_, after, _ := strings.Cut("\n"+text, "\nservices:")
	name, _, _ := strings.Cut(strings.TrimLeft(after, " {\n"), ":")
	return name
}
