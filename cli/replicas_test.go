package cli

import (
	"bytes"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/admin"
	"sluice/admin/fleet"
	"sluice/consul/registration"
	"sluice/test/verify"
)

// refusedLong names the missing permission after the first hundred characters.
const refusedLong = `consul https://consul-server-1.internal.example.com:8501: 403 Forbidden: the token is not valid, or lacks service:write for "sluice-edge" (Permission denied)`

func TestReplicasTable(t *testing.T) {
	now := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	started, converged := now.Add(-26*time.Hour), false
	v := admin.Replicas{
		Registration: registration.Status{State: registration.StateFailing, LastError: refusedLong},
		Report: fleet.Report{
			Converged: &converged, Error: refusedLong,
			Replicas: []fleet.Member{
				{Name: "sluice-a", Node: "n1", Address: "10.0.0.1:80", Status: "passing", Version: "v1", Started: &started, ConfigHash: "c1", Services: 2, Instances: 5, Parts: map[string]string{}},
				{Name: "sluice-b", Node: "n2\x1b[2J", Address: "10.0.0.2:80", Status: "passing", ConfigHash: "c1", Error: "connection refused"},
			},
			Differences: []fleet.Difference{{Summary: "the instances differ: sluice-a: 1; sluice-b: 2"}},
		},
	}
	var out bytes.Buffer
	verify.NoError(t, writeReplicas(&out, v, now))
	want := `REPLICA   NODE    ADDRESS      STATUS   VERSION  UP    CONFIG  SERVICES  INSTANCES  WHY
sluice-a  n1      10.0.0.1:80  passing  v1       1d2h  c1      2         5          ·
sluice-b  n2?[2J  10.0.0.2:80  passing           -     c1      -         -          connection refused
this replica is not registered (failing): ` + refusedLong + `
they do not agree
  ` + refusedLong + `
  the instances differ: sluice-a: 1; sluice-b: 2
`
	want = strings.ReplaceAll(want, "·", "") // marks the end of a line
	got := out.String()
	verify.That(t, got == want, "got\n%s\nwant\n%s", got, want)
}

// --wait ends when the replicas agree, and fails after the timeout.
func TestReplicasWait(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	agreeAt := int32(3)
	address := serveJSON(t, func(*http.Request) any {
		converged := requests.Add(1) >= agreeAt
		return admin.Replicas{Report: fleet.Report{Converged: &converged}}
	})
	status, out, stderr := execute(t, "replicas", "--admin", address, "--wait", "1m")
	verify.That(t, status == exitOK && strings.HasSuffix(out, "\nthey agree\n") && requests.Load() == 3, "status %d, %d requests\n%s%s", status, requests.Load(), out, stderr)
	agreeAt = 1 << 30
	prints(t, exitFailed, "do not agree after 1ms", "replicas", "--admin", address, "--wait", "1ms")
	prints(t, exitFailed, "do not agree after 0s", "replicas", "--admin", address, "--wait", "0s")
	prints(t, exitUsage, "", "replicas", "--admin", address, "--wait", "1s", "--json")
}
