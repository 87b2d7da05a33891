package mesh

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/meshtest"
	"sluice/test/sluicetest"
	"sluice/test/verify"
)

func TestMain(m *testing.M) {
	consultest.ClearEnvironment()
	os.Exit(m.Run())
}

// A machine that stands still for seconds fails no handshake.
const configuration = `consul: { addresses: [URL], token: TOKEN }
services:
  web: { consul: { connect: true }, timeouts: { connect: 10s } }
  greeter: { consul: { connect: true }, upstream: { protocol: h2 }, timeouts: { connect: 10s } }
  steady: { consul: { connect: true }, timeouts: { connect: 10s } }
routes:
- { path: /web, service: web }
- { path: /steady, service: steady }
- { path: /grpc.health.v1.Health, service: greeter }
`

// No request fails while Consul gets new roots, and sidecars restart after their instances were put
// into maintenance mode, as a deployment does. The connection of the WebSocket, whose sidecar
// stays, outlives all roots.
func TestRotationsAndRestartsUnderLoad(t *testing.T) {
	long.Test(t)
	rounds := 2
	if n, err := strconv.Atoi(os.Getenv("SLUICE_MESH")); err == nil {
		rounds = n
	}
	mesh := meshtest.Start(t, consultest.Options{ACLs: true})
	var restarted []*meshtest.Sidecar
	for _, service := range []string{"web", "greeter", "steady"} {
		mesh.SetProtocol(t, service, "http")
		mesh.Intend(t, service, meshtest.Allow("sluice"))
		for _, id := range []string{service + "-1", service + "-2"} {
			sidecar := mesh.Sidecar(t, meshtest.Service{Name: service, ID: id, Port: meshtest.ServeHTTP(t, id).Port})
			if service != "steady" {
				restarted = append(restarted, sidecar)
			}
		}
		mesh.Native(t, meshtest.Service{Name: service, ID: service + "-native"})
		mesh.AwaitPassing(t, service, 3)
	}
	_, token, err := mesh.NewToken("sluice", verify.Result(consultest.DocumentedPolicy("../../docs/mesh.md", "## ACLs")).Must(t))
	verify.NoError(t, err)
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	verify.NoError(t, os.WriteFile(file, []byte(strings.NewReplacer("URL", mesh.URL(), "TOKEN", token.SecretID).Replace(configuration)), 0o600))
	s := sluicetest.Run(t, "--config", file)
	await := func(what string, condition func(sluicetest.Peer) bool, want int) {
		t.Helper()
		consultest.Await(t, what, func() bool {
			peers, err := s.Peers(t.Context())
			n := 0
			for _, p := range peers {
				if condition(p) {
					n++
				}
			}
			return err == nil && n == want
		})
	}
	up := func(p sluicetest.Peer) bool { return p.State == "up" }
	await("all peers are up", up, 9)

	l := startLoad(t, s)
	for round := range rounds {
		before := leaves(t, s)
		mesh.RotateCA(t)
		sidecar := restarted[round%len(restarted)]
		verify.NoError(t, mesh.Client().Agent().EnableServiceMaintenance(sidecar.ID, "restart"))
		await(sidecar.ID+" has no requests", func(p sluicetest.Peer) bool {
			return strings.HasPrefix(p.ID, sidecar.ID+"-") && p.State != "up" && p.Inflight == 0
		}, 1)
		sidecar.Restart(t)
		verify.NoError(t, mesh.Client().Agent().DisableServiceMaintenance(sidecar.ID))
		await("all peers are up again", up, 9)
		consultest.Await(t, "sluice has another certificate", func() bool { return leaves(t, s) != before })
	}
	l.stop(t)
	await("no request is left", func(p sluicetest.Peer) bool { return p.Inflight > 0 }, 0)
}

// leaves returns how many certificates sluice has put to use in the mesh. When they expire does not
// tell them apart: it is a whole second, in which two may be issued.
func leaves(t *testing.T, s *sluicetest.Sluice) string {
	t.Helper()
	response := verify.Result(http.Get(s.AdminURL() + "/metrics")).Must(t)
	defer response.Body.Close()
	text := string(verify.Result(io.ReadAll(response.Body)).Must(t))
	_, rest, found := strings.Cut(text, `sluice_mesh_identity_changes_total{part="leaf"} `)
	verify.That(t, found, "the metric is missing: %s", text)
	count, _, _ := strings.Cut(rest, "\n")
	return count
}
