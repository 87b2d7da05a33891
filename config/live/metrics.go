package live

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/config"
	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	revision      = descriptions.New("config_revision", "Number of the configuration in use.")
	lastApplied   = descriptions.New("config_last_applied_timestamp_seconds", "When the configuration in use was applied, as Unix time.")
	lastSucceeded = descriptions.New("config_last_reload_successful", "0 if the latest configuration was refused, else 1.")
	sourceState   = descriptions.New("config_source_state", "1 for the state of a source of the configuration, 0 for the others.", "source", "state")
	reloadsTotal  = descriptions.New("config_reloads_total", "Configurations loaded, by result.", "result")
	info          = descriptions.New("config_info", "Always 1; the label is the hash of the configuration in use, equal on replicas with the same documents.", "hash")
)

// Metrics returns the collector of the history and of the state of all sources.
func Metrics(history *config.History, read func() []Status) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		current, reloads, sources := history.Current(), history.Reloads(), read()
		s.Gauge(revision, float64(current.Number))
		s.Timestamp(lastApplied, current.Time)
		s.Flag(lastSucceeded, !slices.ContainsFunc(sources, func(status Status) bool { return status.Refused != nil }))
		for _, status := range sources {
			for _, state := range []SourceState{SourceInUse, SourcePinned, SourceRefused, SourceStale, SourceWaiting} {
				s.Flag(sourceState, status.State() == state, status.Source.Name, string(state))
			}
		}
		if current.Hash != "" {
			s.Gauge(info, 1, current.Hash)
		}
		s.Counter(reloadsTotal, reloads.Applied, "applied")
		s.Counter(reloadsTotal, reloads.Refused, "refused")
	})
}
