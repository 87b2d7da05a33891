package mesh

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	identityUsable  = descriptions.New("mesh_identity_usable", "1 if sluice has a certificate of the mesh that is renewed, else 0; absent without services of the mesh.", "service")
	identityChanges = descriptions.New("mesh_identity_changes_total", "Certificates of sluice in the mesh, and sets of roots, that were put to use.", "part")
)

// IdentityMetrics returns the collector of an identity.
func IdentityMetrics(i *Identity) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		service := i.Service()
		if service == "" {
			return
		}
		s.Flag(identityUsable, i.Err() == nil, service)
		s.Counter(identityChanges, i.leaves.Load(), "leaf")
		s.Counter(identityChanges, i.rooted.Load(), "roots")
	})
}
