package mesh

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions, ofIntentions metrics.Descriptions

var (
	identityUsable  = descriptions.New("mesh_identity_usable", "1 if sluice has a certificate of the mesh that is renewed, else 0; absent without services of the mesh.", "service")
	identityChanges = descriptions.New("mesh_identity_changes_total", "Certificates of sluice in the mesh, and sets of roots, that were put to use.", "part")
)

// IdentityStatus is what the metrics of an identity show.
type IdentityStatus struct {
	Service       string // "": sluice is not in the mesh
	Usable        bool
	Leaves, Roots uint64 // put to use
}

// Status returns the status of i.
func (i *Identity) Status() IdentityStatus {
	return IdentityStatus{Service: i.Service(), Usable: i.Err() == nil, Leaves: i.leaves.Load(), Roots: i.rooted.Load()}
}

// IdentityMetrics returns the collector of what read returns.
func IdentityMetrics(read func() IdentityStatus) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		status := read()
		if status.Service == "" {
			return
		}
		s.Flag(identityUsable, status.Usable, status.Service)
		s.Counter(identityChanges, status.Leaves, "leaf")
		s.Counter(identityChanges, status.Roots, "roots")
	})
}

var verdicts = ofIntentions.New("mesh_intention", "1 for what Consul's intentions say about connections of sluice to a service, 0 for other verdicts: allowed, denied, by request (the sidecar decides), or unknown.", "destination", "verdict")

// IntentionMetrics returns the collector of what read returns.
func IntentionMetrics(read func() []IntentionState) prometheus.Collector {
	return ofIntentions.Collector(func(s metrics.Series) {
		s = s.PerService()
		for _, state := range read() {
			for _, v := range []Verdict{Unknown, Allowed, Denied, ByRequest} {
				s.Flag(verdicts, state.Verdict == v, state.Destination.String(), strings.ReplaceAll(string(v), " ", "_"))
			}
		}
	})
}
