package cli

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/test/long"
	"sluice/test/parallel"
	"sluice/test/verify"
)

const patience = 60 * time.Second

// releaseProgram builds the program with the command of the Dockerfile.
func releaseProgram(t *testing.T) (path string) {
	t.Helper()
	path = verify.Result(releaseBinary()).Must(t)
	return path
}

// releaseCommand returns the build command of the Dockerfile, without the output.
func releaseCommand() (string, error) {
	dockerfile, err := os.ReadFile("../Dockerfile")
	if err != nil {
		return "", err
	}
	command := regexp.MustCompile(`(?m)^RUN (.* go build .*) -o /sluice \.$`).FindSubmatch(dockerfile)
	if command == nil {
		return "", errors.New("the Dockerfile has no line that builds /sluice")
	}
	return string(command[1]), nil
}

var releaseBinary = sync.OnceValues(func() (path string, err error) {
	command, err := releaseCommand()
	if err != nil {
		return "", err
	}
	if releaseDir, err = os.MkdirTemp("", "sluice-release-"); err != nil {
		return "", err
	}
	path = filepath.Join(releaseDir, "sluice")
	build := exec.Command("sh", "-c", command+" -o "+path+" .")
	build.Dir = ".."
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", command, err, output)
	}
	return path, nil
})

var releaseDir string // of the built program

func TestMain(m *testing.M) {
	playRole()
	usualFile = "/nonexistent/sluice.yaml" // this machine may have the package
	for _, name := range []string{"SLUICE_ADMIN", "SLUICE_TOKEN_FILE"} {
		os.Unsetenv(name)
	}
	parallel.SetDefault(12) // the tests mostly wait for processes and Consul
	handleIgnored()
	status := m.Run()
	if releaseDir != "" {
		os.RemoveAll(releaseDir)
	}
	os.Exit(status)
}

// handleIgnored handles the signals that nohup, or a shell that starts this in the background, lets
// processes ignore. The children would ignore them too: a handled signal has its default in a
// child.
func handleIgnored() {
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

func TestReleaseIsStatic(t *testing.T) {
	t.Parallel()
	long.Test(t)
	program := verify.Result(elf.Open(releaseProgram(t))).Must(t)
	defer program.Close()
	for _, p := range program.Progs {
		verify.That(t, p.Type != elf.PT_INTERP, "the program needs a dynamic linker")
	}
	verify.That(t, program.Section(".debug_info") == nil && program.Section(".symtab") == nil, "the program is not stripped")
}

// A build with the files that .dockerignore leaves knows the commit, and is not marked as modified.
func TestImageKnowsItsVersion(t *testing.T) {
	t.Parallel()
	long.Test(t) // it compiles everything anew, with the flags of a release
	if _, err := os.Stat("../.git"); err != nil {
		t.Skip("this is no clone of the repository")
	}
	context := filepath.Join(t.TempDir(), "context")
	git := func(args ...string) string {
		t.Helper()
		output, err := exec.Command("git", args...).CombinedOutput()
		verify.Require(t, err == nil, "git %q: %v\n%s", args, err, output)
		return strings.TrimSpace(string(output))
	}
	git("clone", "--quiet", "..", context) // as on a machine that only builds
	commit := git("rev-parse", "--short=12", "HEAD")
	ignored := verify.Result(os.ReadFile("../.dockerignore")).Must(t)
	for pattern := range strings.Lines(string(ignored)) {
		if pattern = strings.TrimSpace(pattern); pattern == "" || pattern[0] == '#' {
			continue
		}
		verify.NoError(t, os.RemoveAll(filepath.Join(context, pattern)))
	}
	command := verify.Result(releaseCommand()).Must(t)
	program := filepath.Join(t.TempDir(), "sluice")
	build := exec.Command("sh", "-c", command+" -o "+program+" .")
	build.Dir = context
	build.Env = append(os.Environ(), "GOENV=off", "GOFLAGS=") // without the settings of this machine
	output, err := build.CombinedOutput()
	verify.Require(t, err == nil, "%s: %v\n%s", command, err, output)
	output, err = exec.Command(program, "version").Output()
	version := string(output)
	verify.That(t, err == nil && strings.Contains(version, commit) && !strings.Contains(version, "dirty") && !strings.Contains(version, "modified"), "%v: %s, want the unmodified commit %s", err, output, commit)
}

// The program needs nothing but itself and its configuration, as the user nobody: this directory
// is its root, as in a container.
func TestImageServesReloadsAndStops(t *testing.T) {
	t.Parallel()
	long.Test(t)
	origin := func(name string) string {
		return serveHandler(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })
	}
	root := shortDir(t) // not t.TempDir, which the user nobody cannot enter
	program := verify.Result(os.ReadFile(releaseProgram(t))).Must(t)
	verify.NoError(t, errors.Join(os.Chmod(root, 0o755), os.WriteFile(filepath.Join(root, "sluice"), program, 0o755)))
	s := newServing(t, "", "")
	s.configuration = filepath.Join(root, "sluice.yaml")
	s.configure(static(origin("one")))
	s.command = exec.Command("/sluice", "run", "--config", "/sluice.yaml")
	s.command.Dir, s.command.Env = "/", []string{}
	s.command.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	const nobody = 65534
	if os.Getuid() == 0 {
		s.command.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	} else { // a process may change its root only in a new user namespace
		s.command.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		s.command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getuid(), Size: 1}}
		s.command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getgid(), Size: 1}}
	}
	s.start()
	s.pid = s.command.Process.Pid
	awaitThat(t, "readiness", s.ready)
	serves := func(name string) func() bool {
		return func() bool { _, body := tryGet("http://" + s.address + "/"); return body == name }
	}
	verify.That(t, serves("one")(), "another answer")
	s.configure(static(origin("two")))
	awaitThat(t, "the other peer answers", serves("two"))
	s.signal(syscall.SIGHUP) // the file is unchanged: only the signal causes a reload
	s.awaitLog("configuration unchanged")
	s.write("nonsense")
	s.awaitLog(`"in_use":`)
	verify.That(t, serves("two")(), "a refused file is in use")
	s.end()
}

func TestSecondSignalCuts(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	ctx, finish := context.WithCancel(context.Background())
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-ctx.Done()
	}))
	defer server.Close()
	defer finish()
	s := startServing(t, "shutdown: { grace: 1h }\n"+strings.Replace(static(server.URL), "peers:", "timeouts: { response_header: 1h }, peers:", 1))
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		if response, err := http.Get("http://" + s.address + "/"); err == nil { // it waits as long as the request lasts
			response.Body.Close()
		}
	}()
	<-arrived
	s.signal(syscall.SIGTERM)
	s.awaitLog(`"connections":`)
	select {
	case <-cut:
		t.Fatal("the first signal did not wait for the request in flight")
	case <-time.After(100 * time.Millisecond):
	}
	s.end()
	<-cut
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	taken := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer taken.Close()
	s := newServing(t, "", "")
	s.address = taken.Addr().String()
	s.configure(static("http://127.0.0.1:1"))
	verify.Equal(t, failsToStart(t, s.command), fmt.Sprintf("sluice: listener \"web\": %s is in use by another process\n", taken.Addr()), "the output")
}
