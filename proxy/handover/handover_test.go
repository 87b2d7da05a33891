package handover

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/proxy/handover/systemd"
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
	manager := verify.Result(systemd.New()).Must(t)
	h := New(filepath.Join(t.TempDir(), "pid"), manager, net.Listen)
	give := func(io.Writer) error { t.Error("asked"); return nil }
	if err := h.Replace(give, nil); err == nil || !strings.Contains(err.Error(), "does not listen") {
		t.Errorf("replace before listening: %v", err)
	}
	l := verify.Result(h.Listen("web", "tcp", "127.0.0.1:0")).Must(t)
	_, err := h.Listen("web", "tcp", l.Addr().String())
	verify.That(t, err != nil && strings.Contains(err.Error(), "address already in use"), "listen twice: %v", err)
	err = h.Replace(give, nil)
	verify.That(t, err != nil && strings.Contains(err.Error(), "not ready"), "replace before serving: %v", err)
	given, replacing, err := h.RequestState()
	verify.That(t, given == nil && !replacing && err == nil, "from nobody: %v, %v, %v", given, replacing, err)
	verify.Succeeds(t, h.Serving())
	select {
	case <-h.Replaced():
		t.Error("replaced by nobody")
	default:
	}

	// A released socket is not kept, and its address is free. The file of a unix socket stays.
	path := filepath.Join(t.TempDir(), "s")
	for network, address := range map[string]string{"tcp": "localhost:0", "unix": path} {
		other := verify.Result(h.Listen("web", network, address)).Must(t)
		verify.That(t, listens(other), "%s: a new listener does not listen", network)
		kept := verify.Result(other.(interface{ File() (*os.File, error) }).File()).Must(t)
		defer kept.Close()
		h.Release(other, false)
		if conn, err := net.Dial(network, other.Addr().String()); err == nil {
			conn.Close()
			t.Errorf("%s: the address is still open after Release", network)
		}
		inherited, err := net.FileListener(kept)
		verify.Require(t, err == nil && !listens(inherited), "%s: what a later process gets listens: %v", network, err)
		inherited.Close()
		if network == "tcp" {
			again, err := h.Listen("web", network, other.Addr().String())
			verify.Require(t, err == nil, "listen again: %v", err)
			h.Release(again, true)
		}
	}
	_, err = os.Stat(path)
	verify.Succeeds(t, err)

	// A socket of systemd that was not used stays for another listener. One that was released
	// listens no more, so the listener gets another one.
	opened := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t).(*net.TCPListener)
	defer opened.Close()
	for range 2 {
		verify.NoError(t, manager.Receive("spare\n", verify.Result(opened.File()).Must(t)))
	}
	for _, used := range []bool{false, true} {
		spare := verify.Result(h.Listen("spare", "tcp", "127.0.0.1:0")).Must(t)
		verify.Equal(t, spare.Addr().String(), opened.Addr().String(), "the socket of systemd")
		h.Release(spare, used)
	}
	other := verify.Result(h.Listen("spare", "tcp", "127.0.0.1:0")).Must(t)
	verify.That(t, other.Addr().String() != opened.Addr().String() && listens(other), "the socket that was released is used again")

	// A process that is starting would not inherit a new socket, and could not bind its address.
	h.update(func() { h.starting = true })
	_, err = h.Listen("late", "tcp", "127.0.0.1:0")
	verify.That(t, err != nil && strings.Contains(err.Error(), "a new process is starting"), "listen while a process starts: %v", err)
	h.update(func() { h.starting = false })

	// The socket is kept for a later process until Stop.
	address := l.Addr().String()
	h.Stop()
	l.Close()
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("the address is still open after Stop")
	}
	err = h.Replace(give, nil)
	verify.That(t, err != nil, "replaced after Stop")
	_, err = h.Listen("late", "tcp", "127.0.0.1:0")
	verify.That(t, err != nil && strings.Contains(err.Error(), "sluice stops"), "listen after Stop: %v", err)
}

// Who has stopped knows whether a new process serves: here one that does not wait for the end of
// the state. The test has processes of its own.
func TestStopKnowsTheNewProcess(t *testing.T) {
	const own = "SLUICE_TEST_HANDOVER_STOP"
	if os.Getenv(own) == "" {
		test := exec.Command(os.Args[0], "-test.run=^TestStopKnowsTheNewProcess$", "-test.count=1")
		test.Env = append(os.Environ(), own+"=1")
		output, err := test.CombinedOutput()
		verify.Require(t, err == nil, "%v\n%s", err, output)
		return
	}
	h := New("", verify.Result(systemd.New()).Must(t), net.Listen)
	verify.Result(h.Listen("web", "tcp", "127.0.0.1:0")).Must(t)
	given, replacing, err := h.RequestState()
	verify.NoError(t, err)
	verify.NoError(t, h.Serving())
	if replacing {
		given.Close()
		verify.NoError(t, h.begun().WaitForParent(t.Context()))
		return
	}
	proceed, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			err := h.Replace(func(io.Writer) error { <-proceed; return nil }, nil)
			if err == nil || !strings.Contains(err.Error(), "not ready") { // tableflip may learn of Serving later
				ended <- err
				return
			}
		}
	}()
	select {
	case <-h.begun().Exit(): // the new process serves
	case err := <-ended:
		t.Fatal(err)
	}
	h.Stop()
	select {
	case <-h.Replaced():
	default:
		t.Error("nobody knows of the new process")
	}
	close(proceed)
	verify.NoError(t, <-ended)
}
