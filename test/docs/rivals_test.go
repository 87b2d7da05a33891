//go:build unix

package docs

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// TestRivals checks the nginx and haproxy blocks of all pages with these programs, where they are
// installed.
func TestRivals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeReferenced(t, dir)
	first, reserved, err := consultest.ReserveBlock()
	verify.NoError(t, err)
	defer reserved.Close()
	ports := make(map[string]int) // a free port for each of the pages
	checks := map[string]func(string) *exec.Cmd{
		"nginx": func(text string) *exec.Cmd {
			text = listenPort.ReplaceAllStringFunc(text, func(listen string) string {
				port := cmp.Or(ports[listen], first+len(ports))
				ports[listen] = port
				return fmt.Sprintf("listen 127.0.0.1:%d", port)
			})
			text = "pid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n" + text + "}\n"
			return exec.Command(program("nginx"), "-t", "-p", dir, "-c", write(t, dir, "nginx.conf", text))
		},
		"haproxy": func(text string) *exec.Cmd {
			if !strings.Contains(text, "\ndefaults\n") {
				text = "defaults\n mode http\n timeout connect 1s\n timeout client 30s\n timeout server 30s\n" + text
			}
			if !strings.Contains(text, " bind ") {
				text += "frontend none\n bind 127.0.0.1:8080\n"
			}
			return exec.Command(program("haproxy"), "-c", "-f", write(t, dir, "haproxy.cfg", text))
		},
	}
	for _, name := range pages(t) {
		for _, s := range readPage(t, name) {
			check := checks[s.kind]
			if check == nil || s.illustration != "" {
				continue
			}
			if program(s.kind) == "" {
				t.Skipf("%s is not installed", s.kind)
			}
			text := strings.ReplaceAll(s.text, "/etc/"+s.kind+"/", dir+"/")
			output, err := check(text).CombinedOutput()
			verify.That(t, err == nil, "%s:%d: %s: %v\n%s", name, s.line, s.kind, err, output)
		}
	}
}

var listenPort = regexp.MustCompile(`listen \d+`)

// program returns the path of a program that may be in a directory for root; "": it is not there.
func program(name string) string {
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	return ""
}

func write(t *testing.T, dir, name, text string) string {
	file := filepath.Join(dir, name)
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}
