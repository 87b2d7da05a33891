package release

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	splitShare    = descriptions.New("split_share", "Share of a group in the split of a service, 0 to 1.", "service", "group")
	splitOverride = descriptions.New("split_given", "1 if the share was set in place of the configuration's, by the judge or an operator; else 0.", "service", "group", "by")
	judgeEvidence = descriptions.New("judge_evidence", "Evidence that a group fails more often than the rest, or is slower: 1 is none, 1000 is enough; 0 without a release.", "service", "group", "of")
)

// Metrics returns the collector of what read returns.
func Metrics(read func() []State) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		for _, split := range read() {
			s.Gauge(splitShare, split.Share, split.Service, split.Group)
			for _, by := range []string{ByJudge, ByOperator} {
				s.Flag(splitOverride, split.Override != nil && split.Override.By == by, split.Service, split.Group, by)
			}
			if split.Judge != nil {
				s.Gauge(judgeEvidence, split.Judge.Evidence, split.Service, split.Group, "failures")
				s.Gauge(judgeEvidence, split.Judge.SlowEvidence, split.Service, split.Group, "latency")
			}
		}
	})
}
