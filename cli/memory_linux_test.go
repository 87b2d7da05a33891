package cli

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"sluice/test/long"
	"sluice/test/verify"
)

// The program at rest takes little memory, although its start needs most of its code.
func TestMemoryAtRest(t *testing.T) {
	t.Parallel()
	long.Test(t)           // it links a release
	const limit = 20 << 10 // kB
	s := newServing(t, "", static("http://127.0.0.1:9"))
	s.command = exec.Command(releaseProgram(t), "run", "--config", s.configuration, "--pid-file", s.pidFile)
	s.serve()
	awaitThat(t, "sluice is ready", s.ready)
	resident := 0 // kB
	awaitThat(t, fmt.Sprintf("at most %d kB are resident", limit), func() bool {
		status := verify.Result(os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))).Must(t)
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		verify.Result(fmt.Sscan(rest, &resident)).Must(t)
		return resident <= limit
	})
	t.Logf("%d kB", resident)
	s.end()
}
