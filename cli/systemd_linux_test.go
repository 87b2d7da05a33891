package cli

import (
	"fmt"
	"io"
	"net"
	"net/http"
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

	"sluice/test/verify"
)

// serviceManager receives what the processes of a service send to systemd.
type serviceManager struct {
	t       *testing.T
	address string

	mu       sync.Mutex // guards the field below
	messages []string
}

func startServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	m := &serviceManager{t: t, address: filepath.Join(shortDir(t), "notify")}
	socket := verify.Result(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.address, Net: "unixgram"})).Must(t)
	var receiving sync.WaitGroup
	receiving.Go(func() {
		for message := make([]byte, 64<<10); ; {
			n, err := socket.Read(message)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.messages = append(m.messages, string(message[:n]))
			m.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		socket.Close()
		receiving.Wait()
		if t.Failed() {
			t.Logf("messages: %q", m.since(0))
		}
	})
	return m
}

// since returns the messages from number n on.
func (m *serviceManager) since(n int) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.messages[n:])
}

// await waits for a message with all these parts, from number n on, and returns it and the number
// of the next one.
func (m *serviceManager) await(n int, parts ...string) (message string, next int) {
	m.t.Helper()
	awaitThat(m.t, fmt.Sprintf("a message has %q", parts), func() bool {
		for i, received := range m.since(n) {
			if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(received, p) }) {
				message, next = received, n+i+1
				return true
			}
		}
		return false
	})
	return message, next
}

// activate makes systemd start the command: with sockets, and with more of the environment. The
// program learns its own process id, which is the shell's, in $$.
func (m *serviceManager) activate(command *exec.Cmd, names string, sockets []*os.File, environment ...string) {
	shell := exec.Command("sh", append([]string{"-c", `export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$0" "$@"`}, command.Args...)...)
	shell.ExtraFiles = sockets
	shell.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+m.address, "LISTEN_FDNAMES="+names, fmt.Sprintf("LISTEN_FDS=%d", len(sockets))), environment...)
	*command = *shell
}

// listenFile returns a listening socket, as systemd has one.
func listenFile(t *testing.T, network, address string) *os.File {
	t.Helper()
	l := verify.Result(net.Listen(network, address)).Must(t)
	defer l.Close()
	if l, ok := l.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	file := verify.Result(l.(interface{ File() (*os.File, error) }).File()).Must(t)
	t.Cleanup(func() { file.Close() })
	return file
}

// listenAnywhere returns a listening socket with a port that the system chooses, and its address.
func listenAnywhere(t *testing.T) (socket *os.File, address string) {
	t.Helper()
	socket = listenFile(t, "tcp", "127.0.0.1:0")
	l := verify.Result(net.FileListener(socket)).Must(t)
	defer l.Close()
	return socket, l.Addr().String()
}

// systemd opens the socket, and is told of the start, a reload, another process, and the stop.
func TestUnderSystemd(t *testing.T) {
	t.Parallel()
	origin := serveHandler(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	m := startServiceManager(t)
	s := newServing(t, "", static(origin))
	m.activate(s.command, "web:spare", []*os.File{listenFile(t, "tcp", s.address), listenFile(t, "tcp", "127.0.0.1:0")}, "WATCHDOG_USEC=300000")
	s.start()
	get := func() {
		t.Helper()
		_, body := s.get("http://" + s.address + "/")
		verify.Equal(t, body, "ok", "the answer")
	}
	_, n := m.await(0, "READY=1\nSTATUS=Serves")
	verify.That(t, s.ready(), "READY=1, but it is not ready")
	get()
	m.await(n, "WATCHDOG=1")
	verify.Contains(t, s.log(), `"sockets":["spare (127.0.0.1:`, "no warning of the socket without a listener")
	s.pid = awaitPID(t, s.pidFile, 0)

	s.signal(syscall.SIGHUP)
	reloading, n := m.await(n, "RELOADING=1")
	verify.That(t, regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=\d+$`).MatchString(reloading), "got %q", reloading)
	_, n = m.await(n, "READY=1")
	s.configure("nonsense")
	s.signal(syscall.SIGHUP)
	_, n = m.await(n, "READY=1", "is refused")
	s.configure(static(origin))
	s.signal(syscall.SIGHUP)
	awaitThat(t, "the configuration is valid again", func() bool {
		all := m.since(n)
		last := slices.IndexFunc(all, func(message string) bool {
			return strings.HasPrefix(message, "READY=1") && !strings.Contains(message, "refused")
		})
		return last >= 0
	})

	first := s.pid
	n = len(m.since(0))
	s.replace()
	verify.Require(t, first != s.pid, "the process is the same")
	_, n = m.await(n, "MAINPID="+strconv.Itoa(s.pid))
	m.await(n, "READY=1")
	get()
	m.await(len(m.since(0)), "WATCHDOG=1") // of the new process: the old one has ended
	verify.That(t, !slices.ContainsFunc(m.since(0), func(message string) bool { return strings.Contains(message, "STOPPING=1") }), "the old process reports a stop, but the service goes on")

	s.end()
	m.await(0, "STOPPING=1", "EXTEND_TIMEOUT_USEC=44000000")
	// Connections wait in systemd's socket for the next start.
	verify.That(t, listens("tcp", s.address), "systemd's socket has ended with the process")
}

// A new process has each socket of systemd for its own listener, also if the configuration names no
// ports. A socket without a listener stays for a later configuration, and a reload that is refused
// does not take it.
func TestSocketsOfSystemdArePassedOn(t *testing.T) {
	t.Parallel()
	m := startServiceManager(t)
	s := newServing(t, "", "")
	web, webAddress := listenAnywhere(t)
	more, moreAddress := listenAnywhere(t)
	addresses := map[string]string{"web": webAddress, "more": moreAddress}
	services := "services:\n"
	for name := range addresses {
		origin := serveHandler(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })
		services += fmt.Sprintf("  %s: { peers: [%q] }\n", name, origin)
	}
	listening := func(others string, names ...string) {
		text := fmt.Sprintf("admin: { address: %q }\naccess_log: { path: 'off' }\n%s", s.admin, services)
		listeners, routes := "listeners:\n"+others, "routes:\n"
		for _, name := range names {
			listeners += fmt.Sprintf("  - { name: %s, address: '127.0.0.1:0' }\n", name)
			routes += fmt.Sprintf("  - { listeners: [%s], service: %s }\n", name, name)
		}
		s.write(text + listeners + routes)
	}
	check := func() {
		t.Helper()
		for name, address := range addresses {
			_, body := s.get("http://" + address + "/")
			verify.Equal(t, body, name, "the listener %s", name)
		}
	}
	listening("", "web")
	m.activate(s.command, "web:more", []*os.File{web, more})
	s.serve()
	taken := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer taken.Close()
	listening(fmt.Sprintf("  - { name: taken, address: %q }\n", taken.Addr()), "web", "more")
	s.signal(syscall.SIGHUP)
	s.awaitLog("is in use by another process")
	listening("", "web")
	s.replace()
	listening("", "web", "more")
	s.signal(syscall.SIGHUP)
	check() // clients wait in the socket until it has a listener
	s.replace()
	check()
	s.end()
}

// A process that is not ready does not say so, but what it waits for.
func TestSystemdWaitsForReadiness(t *testing.T) {
	t.Parallel()
	m := startServiceManager(t)
	s := newServing(t, "", "consul: { addresses: ['http://127.0.0.1:1'] }\nservices: { star: { consul: { service: star } } }\nroutes: [{ service: star }]\n")
	m.activate(s.command, "", nil)
	s.start()
	m.await(0, `STATUS=Waits for service "star": `, "connection refused")
	s.pid = awaitPID(t, s.pidFile, 0)
	s.signal(syscall.SIGHUP)
	s.awaitLog("configuration unchanged")
	s.end()
	m.await(0, "STOPPING=1")
	for _, message := range m.since(0) {
		verify.That(t, !strings.Contains(message, "READY=1") && !strings.Contains(message, "RELOADING=1") && !strings.Contains(message, "WATCHDOG=1"), "got %q", message)
	}
}

// systemd keeps its socket when a start fails: clients wait for the next one.
func TestFailedStartKeepsTheSocketsOfSystemd(t *testing.T) {
	t.Parallel()
	m := startServiceManager(t)
	taken := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer taken.Close()
	s := newServing(t, "", "")
	s.write(fmt.Sprintf("listeners: [{ name: web, address: '127.0.0.1:0' }, { name: taken, address: %q }]\nadmin: { address: %q }\n", taken.Addr(), s.admin) + static("http://127.0.0.1:1"))
	socket, address := listenAnywhere(t)
	m.activate(s.command, "web", []*os.File{socket})
	verify.Contains(t, failsToStart(t, s.command), "is in use by another process", "the output")
	verify.That(t, listens("tcp", address), "systemd's socket has ended")
}

func TestWrongSocketsOfSystemd(t *testing.T) {
	t.Parallel()
	dir, m := shortDir(t), startServiceManager(t)
	s := newServing(t, "", static("http://127.0.0.1:1"))
	other := freeAddress(t)
	for _, c := range []struct {
		network, address, want string
	}{
		{"tcp", other, fmt.Sprintf("listener \"web\": systemd opens %s for this listener: the configuration must have the same port, or 0, or the same path, not %s", other, s.address)},
		{"unix", filepath.Join(dir, "s"), fmt.Sprintf("listener \"web\": systemd opens %s for this listener", filepath.Join(dir, "s"))},
		{"unixpacket", filepath.Join(dir, "p"), `systemd: socket "web": want a listening TCP or unix socket, or a UDP socket: it is a unixpacket socket`},
	} {
		command := exec.Command(s.command.Path, s.command.Args[1:]...)
		m.activate(command, "web", []*os.File{listenFile(t, c.network, c.address)})
		verify.Contains(t, failsToStart(t, command), c.want, "the output")
	}
}

// systemd starts sluice again however often it has failed: without a limit of its own, systemd's
// own ends that after 5 starts in 10 s.
func TestUnitHasNoStartLimit(t *testing.T) {
	t.Parallel()
	unit := string(verify.Result(os.ReadFile("../packaging/sluice.service")).Must(t))
	general, service, ok := strings.Cut(unit, "[Service]\n")
	verify.That(t, ok && strings.Contains(service, "\nRestart=always\n") && strings.Contains(general, "\nStartLimitIntervalSec=0\n"), "the unit\n%s", unit)
}
