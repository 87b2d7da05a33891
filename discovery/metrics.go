package discovery

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	watchState       = descriptions.New("discovery_state", "1 for the current state of a service's watch, 0 for the others.", "service", "state")
	watchIndex       = descriptions.New("discovery_index", "Index of the registry's last answer.", "service")
	watchInstances   = descriptions.New("discovery_instances", "Instances in the last set from the registry.", "service")
	watchProbation   = descriptions.New("discovery_probation_instances", "Instances that the registry has lost and that are used until they fail.", "service")
	watchInvalid     = descriptions.New("discovery_invalid", "Entries of the registry that cannot be used.", "service")
	watchRestored    = descriptions.New("discovery_restored", "1 if the instances come from the snapshot, because the registry has not answered since the start; else 0.", "service")
	watchLastSuccess = descriptions.New("discovery_last_success_timestamp_seconds", "When the registry last answered, as Unix time.", "service")
	watchLastChange  = descriptions.New("discovery_last_change_timestamp_seconds", "When a changed set was last applied, as Unix time.", "service")
	watchQueries     = descriptions.New("discovery_queries_total", "Queries to the registry.", "service")
	watchErrors      = descriptions.New("discovery_errors_total", "Queries to the registry that failed.", "service")
	watchChanges     = descriptions.New("discovery_changes_total", "Changed sets that were applied.", "service")
)

// Metrics returns the collector of what read returns: see [Manager.Statuses].
func Metrics(read func() []WatchStatus) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		for _, w := range read() {
			// Also 0 in a brief scrape: replicas are compared.
			s.Gauge(watchInstances, float64(w.Instances), w.Service)
			s := s.PerService()
			for _, state := range []Freshness{WatchPending, WatchFresh, WatchStale} {
				s.Flag(watchState, w.State == state, w.Service, state.String())
			}
			s.Gauge(watchProbation, float64(w.Probation), w.Service)
			s.Gauge(watchInvalid, float64(len(w.Invalid)), w.Service)
			s.Flag(watchRestored, !w.Restored.IsZero(), w.Service)
			s.Counter(watchErrors, w.Errors, w.Service)
			if s.Brief {
				continue
			}
			s.Gauge(watchIndex, float64(w.Index), w.Service)
			s.Timestamp(watchLastSuccess, w.LastSuccess, w.Service)
			s.Timestamp(watchLastChange, w.LastChange, w.Service)
			s.Counter(watchQueries, w.Queries, w.Service)
			s.Counter(watchChanges, w.Changes, w.Service)
		}
	})
}
