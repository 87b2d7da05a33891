package cli

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	consulapi "github.com/hashicorp/consul/api"
	"golang.org/x/sys/unix"

	"sluice/test/consultest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// envRole makes the test binary run as another program: "sluice", an app, or a deployment.
const envRole = "CLI_TEST_ROLE"

// playRole runs the program that envRole names, if any.
func playRole() {
	switch os.Getenv(envRole) {
	case "sluice":
		// As the first process of a container, it adopts processes.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			fmt.Println(err)
		}
		os.Exit(Run(os.Args[1:], os.Stdout, os.Stderr))
	case "app":
		runApp(os.Args[1])
	case "deploy":
		runDeploy(os.Args[1])
	}
}

// runApp serves HTTP on an address. It writes each signal that it gets, and ends with status 7
// after SIGTERM, SIGINT and SIGQUIT.
func runApp(address string) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	fmt.Println("process", os.Getpid())
	for {
		s := (<-signals).(syscall.Signal)
		fmt.Println("got", s)
		if s == syscall.SIGTERM || s == syscall.SIGINT || s == syscall.SIGQUIT {
			os.Exit(7)
		}
	}
}

// sluiceCommand returns a command of sluice.
func sluiceCommand(args ...string) *exec.Cmd {
	command := exec.Command(os.Args[0], args...)
	command.Env = append(os.Environ(), envRole+"=sluice")
	return command
}

// registered is a running "sluice register".
type registered struct {
	t       *testing.T
	command *exec.Cmd
	port    string
	output  *subprocess.Output // of it and of the app
	ended   chan struct{}
}

// startRegister runs an app, and registers it in Consul until t ends. %APP% in the command
// is one that runs runApp, %PORT% its port.
func startRegister(t *testing.T, consulURL string, flags, command []string) *registered {
	t.Helper()
	r := &registered{t: t, port: strconv.Itoa(consultest.ReservePort(t)), output: new(subprocess.Output), ended: make(chan struct{})}
	args := append([]string{"register", "--name", "star", "--port", r.port, "--address", "127.0.0.1", "--consul", consulURL, "--timeout", "30s"}, flags...)
	args = append(args, "--")
	for _, part := range command {
		part = strings.ReplaceAll(part, "%PORT%", r.port)
		if part == "%APP%" {
			args = append(args, "env", envRole+"=app", os.Args[0], "127.0.0.1:"+r.port)
			continue
		}
		args = append(args, strings.ReplaceAll(part, "%APP%", fmt.Sprintf("%s=app %s 127.0.0.1:%s", envRole, os.Args[0], r.port)))
	}
	r.command = sluiceCommand(args...)
	r.command.Stdout, r.command.Stderr = r.output, r.output
	verify.NoError(t, r.command.Start())
	go func() {
		defer close(r.ended)
		_ = r.command.Wait() // ProcessState says more
	}()
	t.Cleanup(func() {
		_ = r.command.Process.Kill() // the app ends with it
		<-r.ended
		if t.Failed() {
			t.Logf("output:\n%s", r.output)
		}
	})
	return r
}

// id is the registration's.
func (r *registered) id() string { return "star-127.0.0.1-" + r.port }

func (r *registered) signal(s syscall.Signal) {
	r.t.Helper()
	verify.NoError(r.t, r.command.Process.Signal(s))
}

// awaitOutput waits until the output has a text.
func (r *registered) awaitOutput(text string) {
	r.t.Helper()
	awaitThat(r.t, "the output has "+text, func() bool {
		select {
		case <-r.ended:
			verify.Require(r.t, strings.Contains(r.output.String(), text), "it has ended, and the output lacks %q", text)
		default:
		}
		return strings.Contains(r.output.String(), text)
	})
}

// awaitStatus waits until it ends, with this status.
func (r *registered) awaitStatus(want int) {
	r.t.Helper()
	<-r.ended
	verify.Equal(r.t, r.command.ProcessState.ExitCode(), want, "exit status")
}

// appPID returns the id of the process of the app.
func (r *registered) appPID() (pid int) {
	r.t.Helper()
	r.awaitOutput("process ")
	_, text, _ := strings.Cut(r.output.String(), "process ")
	fmt.Sscan(text, &pid)
	return pid
}

// answers reports whether the app answers.
func (r *registered) answers() bool {
	status, _ := tryGet("http://127.0.0.1:" + r.port)
	return status != 0
}

// passingStars returns the ids of the instances in Consul that pass.
func passingStars(t *testing.T, agent *consultest.Agent) (ids []string) {
	t.Helper()
	entries, _, err := agent.Client().Health().Service("star", "", true, (&consulapi.QueryOptions{}).WithContext(t.Context()))
	verify.NoError(t, err)
	for _, e := range entries {
		ids = append(ids, e.Service.ID)
	}
	return ids
}

func awaitStars(t *testing.T, agent *consultest.Agent, want string) {
	t.Helper()
	awaitThat(t, fmt.Sprintf("Consul has %q", want), func() bool { return strings.Join(passingStars(t, agent), " ") == want })
}

const noConsul = "http://127.0.0.1:1"

// A port that another app uses is refused: the app would fail, and its end would deregister the
// other one. The app keeps serving during the drain. A second signal ends the drain. A crash
// deregisters it.
func TestRegisterInConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	r := startRegister(t, agent.URL(), []string{"--http", "/", "--drain", "1h"}, []string{"%APP%"})
	awaitStars(t, agent, r.id())
	command := sluiceCommand("register", "--name", "star", "--port", r.port, "--address", "127.0.0.1", "--consul", agent.URL(), "false")
	out, err := command.CombinedOutput()
	want := "sluice: another process listens at 127.0.0.1:" + r.port + " already: want a free port\n"
	verify.That(t, command.ProcessState.ExitCode() == exitFailed && string(out) == want, "got %q, %v", out, err)
	awaitStars(t, agent, r.id())

	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2} {
		r.signal(s)
		r.awaitOutput("got " + s.String())
	}
	r.signal(syscall.SIGTERM)
	awaitStars(t, agent, "")
	r.awaitOutput("drain")
	verify.That(t, r.answers() && !strings.Contains(r.output.String(), "got terminated"), "the app has been stopped before the end of the drain")
	r.signal(syscall.SIGTERM)
	r.awaitStatus(7)
	r.awaitOutput("got terminated")

	r = startRegister(t, agent.URL(), []string{"--drain", "1h", "--interval", "1h"}, []string{"%APP%"})
	awaitStars(t, agent, r.id())
	verify.NoError(t, syscall.Kill(r.appPID(), syscall.SIGKILL))
	r.awaitStatus(128 + int(syscall.SIGKILL))
	services, err := agent.Client().Agent().Services()
	verify.That(t, err == nil && len(services) <= 0, "Consul still has %v, %v", services, err)
}

// Consul's absence does not matter to the app.
func TestRegisterPassesTheStatusOn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		command []string
		status  int
		says    string
	}{
		{[]string{"sh", "-c", "exit 3"}, 3, "the app has ended by itself"},
		{[]string{"true"}, 0, ""},
		{[]string{"sh", "-c", "kill -KILL $$"}, 137, ""},
		{[]string{"/no/such/program"}, exitNotFound, "the app cannot be started"},
		{[]string{"/"}, exitNotExecutable, "the app cannot be started"},
		{[]string{"env", "sh", "-c", "echo all of it"}, 0, "all of it\n"},
		{[]string{"env", "sh", "-c", "echo errors too >&2"}, 0, "errors too\n"},
	} {
		r := startRegister(t, noConsul, []string{"--ttl"}, c.command)
		r.awaitStatus(c.status)
		verify.That(t, strings.Contains(r.output.String(), c.says), "%q: the output lacks %q", c.command, c.says)
	}
}

// The exit status is the app's also if nobody reads the log any more.
func TestRegisterWithoutAReaderOfItsLog(t *testing.T) {
	t.Parallel()
	command := sluiceCommand("register", "--name", "star", "--port", "1", "--ttl", "--consul", noConsul, "--", "sh", "-c", "exit 7")
	reads, writes, err := os.Pipe()
	verify.NoError(t, err)
	verify.NoError(t, reads.Close())
	defer writes.Close()
	command.Stderr = writes
	_ = command.Run() // ProcessState says more
	verify.Equal(t, command.ProcessState.String(), "exit status 7", "the end")
}

func TestRegisterPassesTheInputOn(t *testing.T) {
	t.Parallel()
	command := sluiceCommand("register", "--name", "star", "--port", "1", "--ttl", "--consul", noConsul, "--log", "off", "cat", "-u")
	command.Stdin = strings.NewReader("hello\n")
	out, err := command.CombinedOutput()
	verify.That(t, err == nil && string(out) == "hello\n", "got %q, %v", out, err)
}

// The app gets the whole environment but what lets it act as sluice in Consul.
func TestRegisterKeepsItsTokenToItself(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	verify.NoError(t, os.WriteFile(file, []byte("secret"), 0o600))
	const show = `echo "${CONSUL_HTTP_TOKEN-none} ${CONSUL_HTTP_TOKEN_FILE-none} ${CONSUL_HTTP_AUTH-none} ${CONSUL_HTTP_ADDR-none}"`
	for flag, want := range map[string]string{"--pass-token=false": "none none none http://x", "--pass-token": "secret " + file + " user http://x"} {
		command := sluiceCommand("register", "--name", "star", "--port", "1", "--ttl", "--consul", noConsul, "--log", "off", flag, "--", "sh", "-c", show)
		command.Env = append(command.Env, "CONSUL_HTTP_TOKEN=secret", "CONSUL_HTTP_TOKEN_FILE="+file, "CONSUL_HTTP_AUTH=user", "CONSUL_HTTP_ADDR=http://x")
		out, err := command.CombinedOutput()
		verify.That(t, err == nil && strings.TrimSpace(string(out)) == want, "%s: the app got %q, %v, want %q", flag, out, err, want)
	}
}

// The environment and the memory of sluice are not for the app, though both have the same user. An
// app with the capabilities of root may read them all the same: there the token is not in the
// environment any more.
func TestRegisterIsNotReadableByItsApp(t *testing.T) {
	t.Parallel()
	const show = `tr '\0' '\n' </proc/$PPID/environ | grep -a SECRET; head -c 1 /proc/$PPID/auxv >/dev/null && echo readable`
	file := filepath.Join(t.TempDir(), "SECRET3")
	verify.NoError(t, os.WriteFile(file, []byte("secret"), 0o600))
	var withoutRights []string
	if os.Getuid() == 0 {
		withoutRights = []string{"setpriv", "--bounding-set=-all", "--inh-caps=-all"}
	}
	for _, before := range [][]string{withoutRights, nil} {
		command := sluiceCommand("register", "--name", "star", "--port", "1", "--ttl", "--consul", noConsul, "--log", "off", "--", "sh", "-c", show)
		command.Env = append(command.Env, "CONSUL_HTTP_TOKEN=SECRET1", "CONSUL_HTTP_AUTH=SECRET2:x", "CONSUL_HTTP_TOKEN_FILE="+file)
		want := ""
		if len(before) > 0 {
			command.Path = verify.Result(exec.LookPath(before[0])).Must(t)
			command.Args = append(before, command.Args...)
		} else if os.Getuid() == 0 {
			want = "readable\n"
		}
		out, _ := command.Output() // its status is that of the last command
		verify.Equal(t, string(out), want, "what the app reads of sluice, started by %q", before)
	}
}

// An app that does not end is killed: after the stop timeout, or by a further signal.
func TestRegisterKills(t *testing.T) {
	t.Parallel()
	deaf := []string{"sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"}
	r := startRegister(t, noConsul, []string{"--ttl", "--stop-timeout", "100ms"}, deaf)
	r.awaitOutput("ready")
	r.signal(syscall.SIGTERM)
	r.awaitStatus(128 + int(syscall.SIGKILL))

	r = startRegister(t, noConsul, []string{"--ttl", "--stop-timeout", "1h"}, deaf)
	r.awaitOutput("ready")
	awaitThat(t, "a further signal kills", func() bool {
		_ = r.command.Process.Signal(syscall.SIGTERM) // it may have ended
		return strings.Contains(r.output.String(), "another signal kills the app")
	})
	r.awaitStatus(128 + int(syscall.SIGKILL))
}

// A shell ends at once, without the app that it has started.
func TestRegisterEndsWhatAShellHasStarted(t *testing.T) {
	t.Parallel()
	r := startRegister(t, noConsul, []string{"--drain", "10ms"}, []string{"sh", "-c", "%APP%; true"})
	r.awaitOutput("process")
	r.signal(syscall.SIGTERM)
	r.awaitStatus(128 + int(syscall.SIGTERM))
	verify.That(t, !r.answers() && strings.Contains(r.output.String(), "got terminated"), "the app runs, or was killed")
}

// If sluice is killed, the app ends too: a new one can use its port.
func TestRegisterIsKilled(t *testing.T) {
	t.Parallel()
	r := startRegister(t, noConsul, nil, []string{"%APP%"})
	r.awaitOutput("process")
	verify.NoError(t, r.command.Process.Kill())
	r.awaitOutput("got terminated")
}

// What the app has left to the first process of a container does not stay as a zombie.
func TestRegisterBuriesWhatItAdopts(t *testing.T) {
	t.Parallel()
	r := startRegister(t, noConsul, []string{"--ttl"}, []string{"sh", "-c", "(sleep 0.1 & echo process $!); exec sleep 600"})
	orphan := r.appPID()
	awaitThat(t, "the orphan is gone", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", orphan))
		return err != nil
	})
	r.signal(syscall.SIGTERM)
	r.awaitStatus(128 + int(syscall.SIGTERM))
}

func TestRegisterStopsAnAppThatDoesNotPassItsCheck(t *testing.T) {
	t.Parallel()
	r := startRegister(t, noConsul, []string{"--start-timeout", "200ms", "--http", "/"}, []string{"sleep", "600"})
	r.awaitStatus(exitFailed)
	want := fmt.Sprintf("sluice: the app has not passed its check \"http GET /\" at 127.0.0.1:%s within 200ms: ", r.port)
	verify.That(t, strings.Contains(r.output.String(), want), "the output lacks %q", want)
}

// Who stops such an app, and does not know that it stops, does not kill it.
func TestRegisterStopsAnAppOnlyOnceThatDoesNotPassItsCheck(t *testing.T) {
	t.Parallel()
	// The shell has set its trap within 5 s, also on a machine that stands still for seconds.
	r := startRegister(t, noConsul, []string{"--start-timeout", "5s", "--http", "/", "--stop-timeout", "1h"},
		[]string{"sh", "-c", "trap 'echo stopping' TERM; while :; do sleep 0.05; done"})
	r.awaitOutput("stopping")
	r.signal(syscall.SIGTERM)
	r.awaitOutput("the app stops already")
	verify.That(t, !strings.Contains(r.output.String(), "kills the app"), "the first signal kills the app")
	r.signal(syscall.SIGTERM)
	r.awaitOutput("another signal kills the app")
	r.awaitStatus(exitFailed)
}

func TestRegisterRefusals(t *testing.T) {
	t.Parallel()
	someFlags := []string{"--name", "star", "--port", "5000"}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "sluice: --name is missing\nsluice: --port is missing\nsluice: the command of the app is missing"},
		{append(someFlags, "--http", "/", "--tcp", "--", "true"), "--http and --tcp: want one of them"},
		{append(someFlags, "--meta", "a", "--", "true"), `--meta "a": want KEY=VALUE`},
		{append(someFlags, "--grpc-service", "a", "--", "true"), "--grpc-service is for --grpc"},
		{append(someFlags, "--log", "xml", "--", "true"), `--log "xml": want auto, console, json or off`},
		{[]string{"--name", "a b", "--port", "70000", "--", "true"}, `sluice: name "a b": want`},
		{append(someFlags, "--deregister-after", "1s", "--", "true"), "deregister after 1s: want at least 1m0s"},
	} {
		prints(t, exitUsage, c.want, append([]string{"register"}, c.args...)...)
	}
}
