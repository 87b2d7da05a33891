package handover

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/verify"
)

// A process has one handover that listens, so all of it is in one test, which has
// a process of its own. What takes two processes is tested with the program.
func TestHandover(t *testing.T) {
	const own = "SLUICE_TEST_HANDOVER"
	if os.Getenv(own) == "" {
		test := exec.Command(os.Args[0], "-test.run=^TestHandover$", "-test.count=1")
		test.Env = append(os.Environ(), own+"=1")
		output, err := test.CombinedOutput()
		verify.Require(t, err == nil, "%v\n%s", err, output)
		return
	}
	h := New(filepath.Join(t.TempDir(), "pid"), func(_, network, address string) (net.Listener, error) { return net.Listen(network, address) })
	give := func(io.Writer) error { t.Error("asked"); return nil }
	if err := h.Replace(give); err == nil || !strings.Contains(err.Error(), "does not listen") {
		t.Errorf("replace before listening: %v", err)
	}
	l := verify.Result(h.Listen("web", "tcp", "127.0.0.1:0")).Must(t)
	_, err := h.Listen("web", "tcp", l.Addr().String())
	verify.That(t, err != nil && strings.Contains(err.Error(), "address already in use"), "listen twice: %v", err)
	err = h.Replace(give)
	verify.That(t, err != nil && strings.Contains(err.Error(), "not ready"), "replace before serving: %v", err)
	given, replacing, err := h.Inherit()
	verify.That(t, given == nil && !replacing && err == nil, "from nobody: %v, %v, %v", given, replacing, err)
	verify.Succeeds(t, h.Serving())
	select {
	case <-h.Replaced():
		t.Error("replaced by nobody")
	default:
	}

	// A released socket is not kept, and its address is free.
	other := verify.Result(h.Listen("web", "tcp", "localhost:0")).Must(t)
	verify.That(t, listens(other), "a new listener does not listen")
	kept := verify.Result(other.(*net.TCPListener).File()).Must(t)
	defer kept.Close()
	h.Release(other)
	if conn, err := net.Dial("tcp", other.Addr().String()); err == nil {
		conn.Close()
		t.Error("the address is still open after Release")
	}
	if inherited, err := net.FileListener(kept); err != nil || listens(inherited) {
		t.Errorf("what a later process gets listens: %v", err)
	} else {
		inherited.Close()
	}
	if again, err := h.Listen("web", "tcp", other.Addr().String()); err != nil {
		t.Errorf("listen again: %v", err)
	} else {
		h.Release(again)
	}

	// The same for a unix socket, whose file stays.
	path := filepath.Join(t.TempDir(), "s")
	socket := verify.Result(h.Listen("web", "unix", path)).Must(t)
	verify.That(t, listens(socket), "a new unix socket does not listen")
	keptSocket := verify.Result(socket.(*net.UnixListener).File()).Must(t)
	defer keptSocket.Close()
	h.Release(socket)
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		t.Error("the unix socket is still open after Release")
	}
	if inherited, err := net.FileListener(keptSocket); err != nil || listens(inherited) {
		t.Errorf("the unix socket that a later process gets listens: %v", err)
	} else {
		inherited.Close()
	}
	_, err = os.Stat(path)
	verify.Succeeds(t, err)

	// The socket is kept for a later process until Stop.
	address := l.Addr().String()
	h.Stop()
	l.Close()
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("the address is still open after Stop")
	}
	err = h.Replace(give)
	verify.That(t, err != nil, "replaced after Stop")
}
