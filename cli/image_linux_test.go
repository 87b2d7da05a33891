package cli

import (
	"context"
	"debug/elf"
	"encoding/json"
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
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/test/long"
	"sluice/test/parallel"
	"sluice/test/subprocess"
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

// image is the content of the container image: a directory with the program and its
// configuration.
type image struct {
	t    *testing.T
	root string
	file string // the path of the configuration outside of the image
}

func newImage(t *testing.T, configuration string) *image {
	t.Helper()
	program := releaseProgram(t)
	// Not t.TempDir: the user nobody cannot enter it.
	root := verify.Result(os.MkdirTemp("", "sluice-image-")).Must(t)
	t.Cleanup(func() { os.RemoveAll(root) })
	i := &image{t: t, root: root, file: filepath.Join(root, "etc", "sluice", "sluice.yaml")}
	data, err := os.ReadFile(program)
	if err == nil {
		err = errors.Join(
			os.Chmod(root, 0o755),
			os.WriteFile(filepath.Join(root, "sluice"), data, 0o755),
			os.MkdirAll(filepath.Dir(i.file), 0o755))
	}
	verify.NoError(t, err)
	i.configure(configuration)
	return i
}

func (i *image) configure(text string) {
	i.t.Helper()
	verify.NoError(i.t, errors.Join(os.WriteFile(i.file+"~", []byte(text), 0o644), os.Rename(i.file+"~", i.file)))
}

// container is a running image.
type container struct {
	t      *testing.T
	cmd    *exec.Cmd
	log    *subprocess.Output
	exited chan struct{}
}

// run starts the image as the user nobody, with its directory as the root, and waits until it is
// ready.
func (i *image) run() *container {
	i.t.Helper()
	c := &container{t: i.t, log: new(subprocess.Output), exited: make(chan struct{})}
	c.cmd = exec.Command("/sluice", "run", "--config", "/etc/sluice/sluice.yaml")
	c.cmd.Dir, c.cmd.Env = "/", []string{}
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: i.root, Pdeathsig: syscall.SIGKILL}
	const nobody = 65534
	if os.Getuid() == 0 {
		c.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	} else { // a process may change its root only in a new user namespace
		c.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		c.cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getuid(), Size: 1}}
		c.cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getgid(), Size: 1}}
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig applies to the thread
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			_ = c.cmd.Wait()
			close(c.exited)
		}
	}()
	if err := <-started; err != nil {
		if os.Getuid() != 0 && errors.Is(err, os.ErrPermission) {
			i.t.Skipf("this machine allows neither chroot nor user namespaces: %v", err)
		}
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.exited
		if i.t.Failed() {
			i.t.Logf("output:\n%s", c.log)
		}
	})
	c.await("the listeners", func() bool { return c.address("admin") != "" && c.address("web") != "" })
	c.await("readiness", func() bool {
		status, _ := tryGet("http://" + c.address("admin") + "/readyz")
		return status == http.StatusOK
	})
	return c
}

// address returns the address of a listener from the log, or "" if it is not bound yet.
func (c *container) address(listener string) string {
	for line := range strings.Lines(c.log.String()) {
		var l struct{ Message, Listener, Address string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Message == "listening" && l.Listener == listener {
			return l.Address
		}
	}
	return ""
}

// await waits until condition returns true.
func (c *container) await(what string, condition func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		select {
		case <-c.exited:
			c.t.Fatalf("it ended before %s", what)
		default:
		}
		verify.Require(c.t, !time.Now().After(deadline), "waited in vain until %s", what)
	}
}

func (c *container) signal(s os.Signal) {
	c.t.Helper()
	verify.NoError(c.t, c.cmd.Process.Signal(s))
}

// configuration returns a configuration with a static peer and free ports.
func configuration(peer string) string {
	return "listeners: [{ name: web, address: '127.0.0.1:0' }]\nadmin: { address: '127.0.0.1:0' }\n" + static(peer)
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

func TestImageServesReloadsAndStops(t *testing.T) {
	t.Parallel()
	long.Test(t)
	origin := func(name string) string {
		return serveHandler(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })
	}
	one, two := origin("one"), origin("two")
	i := newImage(t, configuration(one))
	c := i.run()
	get := func() string { _, body := tryGet("http://" + c.address("web") + "/"); return body }
	verify.Equal(t, get(), "one", "get()")
	i.configure(configuration(two))
	c.await("the other peer answers", func() bool { return get() == "two" })
	c.signal(syscall.SIGHUP) // the file is unchanged: only the signal causes a reload
	c.await("the reload", func() bool { return strings.Contains(c.log.String(), "configuration unchanged") })
	i.configure("nonsense")
	c.await("the invalid file is refused", func() bool { return strings.Contains(c.log.String(), `"in_use":`) })
	verify.Equal(t, get(), "two", "get()")
	c.signal(syscall.SIGTERM)
	select {
	case <-c.exited:
		verify.Equal(t, c.cmd.ProcessState.ExitCode(), 0, "status")
	case <-time.After(patience):
		t.Fatal("the process does not end")
	}
	verify.That(t, !strings.Contains(c.log.String(), "panic"), "log:\n%s", c.log)
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
