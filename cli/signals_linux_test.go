package cli

import (
	"os"
	"syscall"
	"testing"
	"time"

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
