package mesh

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/meshtest"
	"sluice/test/sluicetest"
	"sluice/test/verify"
)

// A change of a discovery chain moves the requests. The log has how long after Consul's answer to a
// blocking query of the test the first request is answered by the other instance; docs/mesh.md
// quotes it.
func TestChangeOfChainMovesRequests(t *testing.T) {
	long.Test(t)
	const changes = 20
	mesh := meshtest.Start(t, consultest.Options{ACLs: true})
	mesh.SetProtocol(t, "web", "http")
	mesh.Intend(t, "web", meshtest.Allow("sluice"))
	for _, version := range []string{"v1", "v2"} {
		mesh.Native(t, meshtest.Service{Name: "web", ID: version, Meta: map[string]string{"version": version}})
	}
	mesh.AwaitPassing(t, "web", 2)
	lead := func(version string) {
		mesh.Write(t, &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web", DefaultSubset: version, Subsets: map[string]api.ServiceResolverSubset{
			"v1": {Filter: "Service.Meta.version == v1"}, "v2": {Filter: "Service.Meta.version == v2"},
		}})
	}
	lead("v1")
	_, token, err := mesh.NewToken("sluice", verify.Result(consultest.DocumentedPolicy("../../docs/mesh.md", "## ACLs")).Must(t))
	verify.NoError(t, err)
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	text := fmt.Sprintf("consul: { addresses: [%q], token: %s }\nservices: { web: { consul: { connect: true }, timeouts: { connect: 10s } } }\nroutes: [{ service: web }]\n", mesh.URL(), token.SecretID)
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	s := sluicetest.Run(t, "--config", file)
	l := &load{url: s.URL(), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	defer l.client.CloseIdleConnections()
	answers := func(version string) bool { return l.exchange(http.MethodGet, nil, version) == nil }
	consultest.Await(t, "v1 answers", func() bool { return answers("v1") })
	ctx, end := context.WithCancel(t.Context())
	defer l.running.Wait()
	defer end()
	l.repeat(ctx, 100, "GET", func(context.Context) error { return l.exchange(http.MethodGet, nil, "v") })

	_, meta, err := mesh.Client().DiscoveryChain().Get("web", nil, nil)
	verify.NoError(t, err)
	index := meta.LastIndex
	var took []time.Duration
	for n := range changes {
		to := []string{"v2", "v1"}[n%2]
		answered := make(chan time.Time, 1)
		go func() {
			for {
				_, meta, err := mesh.Client().DiscoveryChain().Get("web", nil, (&api.QueryOptions{WaitIndex: index}).WithContext(t.Context()))
				if err != nil || meta.LastIndex != index {
					now := time.Now()
					if err == nil {
						index = meta.LastIndex
					}
					answered <- now
					return
				}
			}
		}()
		before := l.sent.Load()
		consultest.Await(t, "the next change, a second later", func() bool { return l.sent.Load() >= before+100 })
		lead(to)
		for end := time.Now().Add(consultest.Patience); !answers(to); { // without a pause, which would count
			verify.Require(t, time.Now().Before(end), "%s does not answer", to)
		}
		at := time.Now()
		took = append(took, max(0, at.Sub(<-answered)))
	}
	end()
	l.running.Wait()
	verify.That(t, len(l.failed) == 0, "%d of %d requests failed: %q", len(l.failed), l.sent.Load(), l.failed[:min(len(l.failed), 5)])
	slices.Sort(took)
	t.Logf("%d changes of the chain: from Consul's answer to the first request that the other instance answers, median %s, largest %s",
		changes, took[changes/2].Round(100*time.Microsecond), took[changes-1].Round(100*time.Microsecond))
}
