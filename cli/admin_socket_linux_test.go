package cli

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/test/verify"
)

// newSocketServing returns the program with an admin API on a unix socket, which has not started,
// and the path of the socket.
func newSocketServing(t *testing.T) (s *serving, path string) {
	t.Helper()
	s, path = newServing(t, "", ""), filepath.Join(shortDir(t), "admin.sock")
	s.admin = "unix:" + path
	s.configure(static("http://127.0.0.1:1"))
	return s, path
}

// checkAdmin checks that the admin API answers commands, and that its file is the one of before, if
// there was one.
func (s *serving) checkAdmin(before os.FileInfo) (now os.FileInfo) {
	s.t.Helper()
	status, stdout, stderr := execute(s.t, "peers", "--admin", s.admin)
	verify.That(s.t, status == exitOK && strings.Contains(stdout, "127.0.0.1:1"), "status %d: %s%s", status, stdout, stderr)
	now, err := os.Stat(strings.TrimPrefix(s.admin, "unix:"))
	verify.That(s.t, err == nil && (before == nil || os.SameFile(before, now)), "another file: %v, %v", now, err)
	return now
}

// Processes that replace each other pass the socket on, and one that fails does not remove it.
// After a crash the next process takes its place.
func TestAdminSocketIsPassedOn(t *testing.T) {
	t.Parallel()
	s, path := newSocketServing(t)
	s.serve()
	file := s.checkAdmin(nil)
	for range 2 {
		s.replace()
		s.checkAdmin(file)
	}
	good := verify.Result(os.ReadFile(s.configuration)).Must(t)
	s.write(string(good) + "nonsense: 1\n")
	s.signal(syscall.SIGUSR2)
	s.awaitLog("the new process does not serve")
	s.checkAdmin(file)
	s.get("http://" + s.address + "/") // the old process serves
	s.write(string(good))
	s.signal(syscall.SIGKILL)
	s.awaitEnd(s.pid)
	awaitThat(t, "nothing listens after the crash", func() bool { return !listens("unix", path) }) // its last thread may still end

	again := newServing(t, "", "")
	again.admin = s.admin
	again.configure(static("http://127.0.0.1:1"))
	again.serve()
	again.checkAdmin(nil)
	again.end()
}

// systemd opens the socket of the admin API, and keeps it.
func TestAdminSocketOfSystemd(t *testing.T) {
	t.Parallel()
	m := startServiceManager(t)
	s, path := newSocketServing(t)
	m.activate(s.command, "admin", []*os.File{listenFile(t, "unix", path)})
	verify.NoError(t, os.Chmod(path, 0o640))
	s.serve()
	file := s.checkAdmin(nil)
	s.replace()
	s.checkAdmin(file)
	verify.That(t, file.Mode().Perm() == 0o640, "the file has %v", file.Mode())
	s.end()
	verify.That(t, listens("unix", path), "systemd's socket has ended with the process")
}
