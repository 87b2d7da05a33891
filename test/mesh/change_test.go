package mesh

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

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
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	exchange := func(want string) error {
		answer, err := sluicetest.Ask(context.Background(), client, http.MethodGet, s.URL())
		if err == nil && (answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Text, want)) {
			err = fmt.Errorf("%v: %.200s", answer, answer.Text)
		}
		return err
	}
	answers := func(version string) bool { return exchange(version) == nil }
	consultest.Await(t, "v1 answers", func() bool { return answers("v1") })
	ctx, end := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var sent atomic.Int64
	defer load.Wait()
	defer end()
	load.Go(func() { // 100 requests a second, also if earlier ones have not ended
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			load.Go(func() {
				err := exchange("v")
				verify.That(t, err == nil, "%s: request %d failed: %v", time.Now().Format("15:04:05.000"), sent.Add(1), err)
			})
		}
	})

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
		before := sent.Load()
		consultest.Await(t, "the next change, a second later", func() bool { return sent.Load() >= before+100 })
		lead(to)
		for end := time.Now().Add(consultest.Patience); !answers(to); { // without a pause, which would count
			verify.Require(t, time.Now().Before(end), "%s does not answer", to)
		}
		at := time.Now()
		took = append(took, max(0, at.Sub(<-answered)))
	}
	end()
	load.Wait()
	slices.Sort(took)
	t.Logf("%d changes of the chain: from Consul's answer to the first request that the other instance answers, median %s, largest %s",
		changes, took[changes/2].Round(100*time.Microsecond), took[changes-1].Round(100*time.Microsecond))
}
