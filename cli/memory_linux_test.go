package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/long"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

const restingConfiguration = `
admin: { address: "127.0.0.1:0" }
listeners: [{ name: web, address: "127.0.0.1:0" }]
services: { app: { peers: ["127.0.0.1:9"] } }
routes: [{ service: app }]
`

// The program at rest takes little memory, although its start needs most of its code.
func TestMemoryAtRest(t *testing.T) {
	t.Parallel()
	long.Test(t)           // it links a release
	const limit = 20 << 10 // kB
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	verify.NoError(t, os.WriteFile(file, []byte(restingConfiguration), 0o600))
	var log subprocess.Output
	command := exec.Command(releaseProgram(t), "run", "--config", file)
	command.Stdout, command.Stderr = &log, &log
	verify.NoError(t, command.Start())
	resident := 0 // kB
	defer func() {
		err := errors.Join(command.Process.Kill(), command.Wait())
		t.Logf("%d kB; %v\n%s", resident, err, &log)
	}()
	awaitThat(t, "sluice is ready", func() bool { return strings.Contains(log.String(), `"message":"ready"`) })
	awaitThat(t, fmt.Sprintf("at most %d kB are resident", limit), func() bool {
		status := verify.Result(os.ReadFile(fmt.Sprintf("/proc/%d/status", command.Process.Pid))).Must(t)
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		verify.Result(fmt.Sscan(rest, &resident)).Must(t)
		return resident <= limit
	})
}
