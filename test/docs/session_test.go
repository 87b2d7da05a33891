//go:build unix

package docs

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/test/consultest"
	"sluice/test/etcdtest"
	"sluice/test/sluicetest"
	"sluice/test/verify"
)

const (
	// patience is how long a command may print something else than the page shows.
	patience = 2 * time.Minute
	// limit is how long a command may run.
	limit = 4 * time.Minute
	// hostname is the name of this machine in the pages.
	hostname = "web1"
)

// session is the shell of a page. Its variables, jobs and directory stay from one command to the
// next.
type session struct {
	t      *testing.T
	dir    string // the directory of the page
	own    string // files of the session itself
	group  int    // of its processes
	stdin  io.WriteCloser
	ended  *bufio.Scanner // a line with the status of each command that has ended
	status int            // of the last command
	ports  *ports

	commands int // that have run

	served string // file with the output of a command that runs on
	shown  int    // bytes of it that were compared
}

// prelude are functions for the commands of a page.
const prelude = `
trap 'trap "" TERM; kill 0' EXIT # the background ends with the shell
# await COMMAND…: repeats it until its status is 0, for at most a minute.
await() {
	local end=$((SECONDS + 60))
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || { echo "this does not happen: $*"; "$@"; return 1; }
		sleep 0.05
	done
}
# terminal COMMAND…: runs it outside of the jobs of this shell. process PATTERN prints its id, and stop
# PATTERN ends it.
terminal() {
	"$@" >>"$DOCS_LOG" 2>&1 &
	disown $! # by its id: the current job is another one when this one has already ended
	echo "$! $*" >>"$DOCS_LOG.processes"
}
process() { sed -n "s/ .*$1.*//p" "$DOCS_LOG.processes" | tail -n 1; }
stop() {
	local id
	id=$(process "$1")
	kill "$id"
	while kill -0 "$id" 2>/dev/null; do sleep 0.02; done
}
# app PORT [STATUS [STATUS-OF-/health]]: runs an app, and waits until it serves.
app() { terminal command app "$@"; await curl "http://127.0.0.1:$1/"; }
`

// newSession starts a shell for the steps of a page. It ends with the test, and its processes too.
func newSession(t *testing.T, steps []step) *session {
	s := &session{t: t, dir: t.TempDir(), own: t.TempDir(), ports: newPorts(t, steps)}
	s.ports.state, s.ports.files = filepath.Join(s.own, "state"), s.dir
	verify.NoError(t, os.Mkdir(s.ports.state, 0o755))
	bin := filepath.Join(s.own, "bin")
	self := verify.Result(os.Executable()).Must(t)
	verify.NoError(t, os.Mkdir(bin, 0o755))
	for _, role := range []string{"sluice", "app"} {
		verify.NoError(t, os.Symlink(self, filepath.Join(bin, role)))
	}
	// curl shows its progress unless it writes to a terminal.
	verify.NoError(t, os.WriteFile(filepath.Join(s.own, ".curlrc"), []byte("silent\nshow-error\n"), 0o600))
	writeReferenced(t, s.dir)
	examples := verify.Result(filepath.Abs(filepath.Join(repository, "examples"))).Must(t)
	verify.NoError(t, os.Symlink(examples, filepath.Join(s.dir, "examples")))
	for _, s := range steps {
		if strings.Contains(s.text, "goapp") && s.illustration == "" {
			verify.NoError(t, os.Symlink(goapp(t), filepath.Join(bin, "goapp")))
			break
		}
	}

	shell := exec.Command("bash", "--noprofile", "--norc")
	shell.Dir = s.dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CONSUL_") {
			shell.Env = append(shell.Env, v)
		}
	}
	shell.Env = append(shell.Env, "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+s.own, "NO_COLOR=1", "PYTHONUNBUFFERED=1", "DOCS_LOG="+s.log(),
		envListen+"="+s.ports.real("127.0.0.1:8080"), envAdmin+"="+s.ports.real("127.0.0.1:8081"))
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.stdin = verify.Result(shell.StdinPipe()).Must(t)
	s.ended = bufio.NewScanner(verify.Result(shell.StdoutPipe()).Must(t))
	verify.NoError(t, shell.Start())
	s.group = shell.Process.Pid
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(s.log())
			t.Logf("what ran in the background printed:\n%s", log[max(0, len(log)-4000):])
		}
		s.end(shell)
	})
	s.run(prelude)
	return s
}

// end ends the processes of the session: with SIGTERM, then with SIGKILL. The shell ends because
// its input has, also when the test binary dies.
func (s *session) end(shell *exec.Cmd) {
	s.stdin.Close()
	_ = shell.Wait()
	_ = syscall.Kill(-s.group, syscall.SIGTERM)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); syscall.Kill(-s.group, 0) == nil; <-tick.C {
		switch waited := time.Since(begin); {
		case waited > patience:
			s.t.Errorf("processes of the page do not end")
			return
		case waited > 10*time.Second:
			_ = syscall.Kill(-s.group, syscall.SIGKILL)
		}
	}
}

// log is the file of what commands in the background print.
func (s *session) log() string { return filepath.Join(s.own, "background.log") }

// run runs text in the shell, and returns its output and status.
func (s *session) run(text string) (output string, status int) {
	s.t.Helper()
	text = s.ports.real(text)
	// What runs on in the background keeps its output file.
	s.commands++
	script, out := filepath.Join(s.own, "script"), filepath.Join(s.own, fmt.Sprintf("output-%d", s.commands))
	// The command finds the status of the previous one in $?.
	verify.NoError(s.t, os.WriteFile(script, fmt.Appendf(nil, "(exit %d)\n%s\n", s.status, text), 0o600))
	fmt.Fprintf(s.stdin, ". %s >%s 2>&1 </dev/null; echo $?\n", script, out)
	endless := time.AfterFunc(limit, func() { _ = syscall.Kill(-s.group, syscall.SIGKILL) })
	defer endless.Stop()
	verify.Require(s.t, s.ended.Scan(), "the shell has ended, or this has not within %v: %s", limit, text)
	s.status = verify.Result(strconv.Atoi(s.ended.Text())).Must(s.t)
	printed := verify.Result(os.ReadFile(out)).Must(s.t)
	return s.ports.shown(string(printed)), s.status
}

var inBackground = regexp.MustCompile(`(?m)&( *#.*)?$`)

// background returns commands with their output in the log, if they end with &.
func (s *session) background(text string) string {
	return inBackground.ReplaceAllStringFunc(text, func(end string) string {
		if strings.HasPrefix(end, "&&") {
			return end
		}
		return ">>" + s.log() + " 2>&1 " + end
	})
}

// startConsul starts a Consul, whose port in the page is given.
func (s *session) startConsul(port string) {
	s.t.Helper()
	program := verify.Result(consultest.Binary(s.t.Context(), nil)).Must(s.t)
	verify.NoError(s.t, os.Symlink(program, filepath.Join(s.own, "bin", "consul")))
	agent := consultest.Start(s.t, consultest.Options{Node: "node-1"})
	_, real, _ := strings.Cut(agent.HTTPAddress(), ":")
	s.ports.add(port, real)
	s.run("export CONSUL_HTTP_ADDR=" + agent.URL())
}

// startEtcd starts an etcd, whose port in the page is given.
func (s *session) startEtcd(port string) {
	s.t.Helper()
	program := verify.Result(etcdtest.Ctl(s.t.Context(), os.Stderr)).Must(s.t)
	verify.NoError(s.t, os.Symlink(program, filepath.Join(s.own, "bin", "etcdctl")))
	endpoint := etcdtest.Start(s.t, etcdtest.Options{}).Endpoints()[0]
	_, real, _ := strings.Cut(strings.TrimPrefix(endpoint, "http://"), ":")
	s.ports.add(port, real)
	s.run("export ETCDCTL_ENDPOINTS=" + endpoint)
}

// goapp returns the path of the example, built once.
func goapp(t *testing.T) string {
	verify.NoError(t, buildGoapp())
	return filepath.Join(programs, "goapp")
}

var buildGoapp = sync.OnceValue(func() error {
	return sluicetest.Build(context.Background(), programs, "sluice/examples/goapp")
})

// ports are the free ports that a session uses for the ports of its page, and its directories.
type ports struct {
	toReal, toShown map[string]string
	host            string
	state           string // the directory that is /var/lib/sluice in the page
	files           string // the directory that is /etc/sluice in the page
}

// shownPort finds ports in what pages show.
var shownPort = regexp.MustCompile(`(?:127\.0\.0\.1|localhost|\[::1\]|[" ]):(\d{4,5})\b|--?port[ =](\d{4,5})\b`)

// anyPort finds ports in commands of a setup.
var anyPort = regexp.MustCompile(`\b([6-9]\d{3}|[1-6]\d{4})\b`)

// word finds what may be a port, anywhere, as in star-9001.
var word = regexp.MustCompile(`\b\d{4,5}\b`)

// newPorts reserves a free port for each port in what is run of a page, in the same order, because
// sluice sorts peers by it.
func newPorts(t *testing.T, steps []step) *ports {
	p := &ports{toReal: make(map[string]string), toShown: make(map[string]string)}
	p.host, _ = os.Hostname()
	shown := []string{"8080", "8081"}
	for _, s := range steps {
		if s.illustration != "" || s.kind == "yaml" && s.file == "" {
			continue
		}
		for _, found := range shownPort.FindAllStringSubmatch(s.text, -1) {
			shown = append(shown, found[1]+found[2])
		}
		if s.kind == "setup" {
			shown = append(shown, anyPort.FindAllString(s.text, -1)...)
		}
	}
	slices.SortFunc(shown, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	shown = slices.Compact(shown)
	const block = 9 // ports of consultest.ReserveBlock
	var free []int
	for range (len(shown) + block - 1) / block {
		first, reserved, err := consultest.ReserveBlock()
		verify.NoError(t, err)
		t.Cleanup(func() { reserved.Close() })
		for n := range block {
			free = append(free, first+n)
		}
	}
	slices.Sort(free)
	for n, port := range shown {
		p.add(port, strconv.Itoa(free[n]))
	}
	return p
}

func (p *ports) add(shown, real string) { p.toReal[shown], p.toShown[real] = real, shown }

// real returns text of the page with the ports and the directories of the session.
func (p *ports) real(text string) string {
	text = replace(word, text, p.toReal)
	return strings.NewReplacer("/var/lib/sluice", p.state, "/etc/sluice", p.files).Replace(text)
}

// shown returns output of the session with the ports of the page, and its name for the machine.
func (p *ports) shown(text string) string {
	text = replace(word, strings.ReplaceAll(text, p.host, hostname), p.toShown)
	return strings.NewReplacer(p.state, "/var/lib/sluice", p.files, "/etc/sluice").Replace(text)
}

func replace(words *regexp.Regexp, text string, by map[string]string) string {
	return words.ReplaceAllStringFunc(text, func(w string) string {
		if other := by[w]; other != "" {
			return other
		}
		return w
	})
}
