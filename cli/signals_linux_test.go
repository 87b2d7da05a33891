package cli

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/test/verify"
)

// However many reloads are asked for while sluice starts, a stop is not lost.
func TestStopAfterManyReloadsDuringTheStart(t *testing.T) {
	t.Parallel()
	s := newServing(t, "", static("http://127.0.0.1:1"))
	text := verify.Result(os.ReadFile(s.configuration)).Must(t)
	verify.NoError(t, os.Remove(s.configuration))
	verify.NoError(t, syscall.Mkfifo(s.configuration, 0o600))
	s.start()
	reads := verify.Result(os.OpenFile(s.configuration, os.O_WRONLY, 0)).Must(t) // it waits for what comes
	s.write(string(text))                                                        // for later reads
	s.pid = s.command.Process.Pid
	for range 10_000 {
		s.signal(syscall.SIGHUP)
	}
	s.signal(syscall.SIGTERM)
	verify.Result(reads.Write(text)).Must(t)
	verify.NoError(t, reads.Close())
	stuck := time.AfterFunc(patience, func() { _ = s.command.Process.Kill() })
	defer stuck.Stop()
	verify.NoError(t, s.command.Wait())
}

// Who reads the access log at standard output and the log at standard error may end, such as a
// program behind a pipe. sluice serves on.
func TestServesWithoutAReaderOfItsOutput(t *testing.T) {
	t.Parallel()
	s := newServing(t, "", "")
	s.accessLog = "stdout"
	s.configure(static("http://127.0.0.1:1"))
	reads, writes, err := os.Pipe()
	verify.NoError(t, err)
	s.command.Stdout, s.command.Stderr = writes, writes
	verify.NoError(t, s.command.Start())
	t.Cleanup(func() { _ = s.command.Process.Kill() })
	verify.NoError(t, writes.Close()) // the process has a copy
	s.pid = awaitPID(t, s.pidFile, 0)
	verify.NoError(t, reads.Close())
	s.get("http://" + s.address)
	awaitThat(t, "the line of the request is lost, which is counted", func() bool {
		_, metrics := s.get("http://" + s.admin + "/metrics")
		return strings.Contains(metrics, "\nsluice_access_log_dropped_lines_total 1\n")
	})
	s.end() // which is logged
}

// Who reads the log may stop without an end. sluice serves, and ends.
func TestServesWithABlockedLog(t *testing.T) {
	t.Parallel()
	s := newServing(t, "", static("http://127.0.0.1:1"))
	reads, writes, err := os.Pipe()
	verify.NoError(t, err)
	defer reads.Close()
	room := verify.Result(unix.FcntlInt(writes.Fd(), unix.F_GETPIPE_SZ, 0)).Must(t)
	verify.Result(writes.Write(make([]byte, room))).Must(t)
	s.command.Stderr = writes
	verify.NoError(t, s.command.Start())
	t.Cleanup(func() { _ = s.command.Process.Kill() })
	verify.NoError(t, writes.Close())
	s.pid = awaitPID(t, s.pidFile, 0)
	s.get("http://" + s.address)
	stuck := time.AfterFunc(patience, func() { _ = s.command.Process.Kill() })
	defer stuck.Stop()
	s.end()
}
