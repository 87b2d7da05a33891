package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/subprocess"
	"sluice/test/verify"
)

const restingConfiguration = `
admin: { address: "127.0.0.1:0" }
listeners: [{ name: web, address: "127.0.0.1:0" }]
services: { app: { peers: ["127.0.0.1:9"] } }
routes: [{ service: app }]
`

// From the start of the program as released until it is ready.
func BenchmarkStart(b *testing.B) {
	program := verify.Result(releaseBinary()).Must(b)
	file := filepath.Join(b.TempDir(), "sluice.yaml")
	verify.NoError(b, os.WriteFile(file, []byte(restingConfiguration), 0o600))
	for b.Loop() {
		command := exec.Command(program, "run", "--config", file)
		out := verify.Result(command.StdoutPipe()).Must(b)
		command.Stderr = command.Stdout
		verify.NoError(b, command.Start())
		ready := false
		for log := bufio.NewScanner(out); !ready && log.Scan(); {
			ready = strings.Contains(log.Text(), `"message":"ready"`)
		}
		b.StopTimer()
		verify.That(b, ready, "it is not ready")
		verify.NoError(b, command.Process.Kill())
		command.Wait() // killed
		b.StartTimer()
	}
}

// The program at rest takes little memory, although its start needs most of its code.
func TestMemoryAtRest(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: sluice runs in a process of its own")
	}
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
