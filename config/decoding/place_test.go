package decoding

import (
	"strings"
	"testing"

	"sluice/test/verify"
)

// An error at a key counts for all keys above it, and for no other one, also for keys that were
// asked about before.
func TestFailedKeys(t *testing.T) {
	d := new(Schema).Decoder("sluice.yaml")
	errs := []string{"services.a.peers[12]", "services.a.b", `services."x.y`, "routes[1].when.any[0].not", "routes[10]", ""}
	asked := []string{"", "services", "services.a", "services.a.b", "services.a.bc", "services.a.peers", "services.a.peers[1]", `services."x`, "routes", "routes[1]", "routes[1].when.any", "routes[0]", "route"}
	for n := range len(errs) + 1 {
		if n > 0 {
			d.Fail(Place{}, errs[n-1], "", "wrong")
		}
		for _, key := range asked {
			want := false
			for _, at := range errs[:n] {
				below, under := strings.CutPrefix(at, key)
				want = want || under && (below == "" || strings.HasPrefix(below, ".") || strings.HasPrefix(below, "["))
			}
			verify.Equal(t, d.Failed(key), want, "after %q: %q", errs[:n], key)
		}
	}
}
