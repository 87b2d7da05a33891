package gateway

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// versions registers instances of the service star, each with the version at its place in
// tags.
func versions(t *testing.T, consul *discoverytest.Consul, addresses []string, tags string) {
	t.Helper()
	var entries []*api.ServiceEntry
	for i, tag := range strings.Fields(tags) {
		e := discoverytest.Instance("star", fmt.Sprintf("star-%d", i), port(t, addresses[i]))
		e.Service.Tags = []string{tag}
		entries = append(entries, e)
	}
	consul.Set("star", entries...)
}

// Shares, groups and the tags of instances change during requests, of which none fails.
// Peers keep their counters.
func TestGroupsChangeUnderLoad(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	var addresses []string
	for i := range 4 {
		addresses = append(addresses, origin(t, fmt.Sprint(i)))
	}
	versions(t, consul, addresses, "v1 v1 v1 v2")
	text := func(groups string) string {
		return fmt.Sprintf("%s\nconsul: { addresses: [%q] }\nservices: { star: { consul: {}, %s } }\nroutes: [{ service: star }]\n", preamble, consul.URL(), groups)
	}
	r := start(t, text("wait_for_peer: 0s"))
	stop := r.load("web")
	revision := uint64(1)
	random := rand.New(rand.NewPCG(1, 0))
	for _, groups := range []string{
		"groups: { canary: { tags: [v2] } }",
		"groups: { canary: { tags: [v2] } }, split: { canary: 5%, fallback: rest }",
		"groups: { canary: { tags: [v2] } }, split: { canary: 50%, fallback: rest }",
		"groups: { canary: { tags: [v2] } }, split: { canary: 100%, key: none, fallback: rest }",
		"groups: { old: { tags: [v1] }, canary: { tags: [v3] } }, split: { canary: 50%, old: 30%, key: none, fallback: rest }",
		"groups: { next: { tags: [v2] } }, split: { next: 10%, key: client_address, fallback: rest }",
		"groups: { next: { tags: [v2] } }",
		"wait_for_peer: 1ms",
		"groups: { canary: { tags: [v2] } }, split: { canary: 50%, key: none, fallback: rest }",
	} {
		r.write(text(groups))
		revision++
		r.awaitRevision(revision)
		// A set that is not that of the end of the test, so that its arrival can be seen.
		tags := []string{"v1 v1 v2 v2", "v2 v1 v1 v1", "v2 v2 v2 v1", "v1 v3 v2 v1"}[random.IntN(4)]
		versions(t, consul, addresses, tags)
		r.await("the instances have the tags", func() bool {
			peers := r.peers()
			for i, tag := range strings.Fields(tags) {
				if p := peers[addresses[i]]; len(p.Tags) != 1 || p.Tags[0] != tag {
					return false
				}
			}
			return true
		})
	}
	n := stop()
	verify.That(t, n != 0, "no requests")
	r.await("no request is in flight", func() bool {
		for _, p := range r.peers() {
			if p.Inflight != 0 {
				return false
			}
		}
		return true
	})
	list := fetch[[]admin.Service](r, "/api/services")
	attempts := uint64(0)
	for _, p := range r.peers() {
		attempts += p.Requests
	}
	verify.That(t, attempts >= list[0].Requests, "the peers have %d attempts, the service %d requests: counters were lost", attempts, list[0].Requests)
}

// A route has a group of its own, a split of its own, or that of its service.
func TestRoutesOfGroups(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	addresses := []string{origin(t, "old"), origin(t, "new")}
	versions(t, consul, addresses, "v1 v2")
	r := start(t, preamble+fmt.Sprintf(`
consul: { addresses: [%q] }
services:
  star:
    consul: {}
    groups: { canary: { tags: [v2] }, none: { meta: { a: b } } }
    split: { canary: 100%% }
routes:
  - { path: /, service: star }
  - { path: /old, service: star, group: rest }
  - { path: /split, service: star, split: { canary: 0%% } }
  - { path: /none, service: star, group: none }
  - { path: /back, service: star, split: { none: 100%%, fallback: canary } }
`, consul.URL()))
	for path, want := range map[string]string{"/": "new", "/old": "old", "/split": "old", "/back": "new"} {
		for range 5 {
			r.gets(path, want)
		}
	}
	status, body := r.get("/none")
	verify.That(t, status == http.StatusServiceUnavailable && strings.Contains(body, "group"), "an empty group: %d %q", status, body)
}
