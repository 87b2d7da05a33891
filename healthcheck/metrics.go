package healthcheck

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	checksTotal     = descriptions.New("health_checks_total", "Active health checks by result.", "service", "result")
	checksRunning   = descriptions.New("health_checks_running", "Running active health checks.")
	checksOverdue   = descriptions.New("health_checks_overdue", "Active health checks delayed by health.max_checks.")
	ejectionsTotal  = descriptions.New("ejections_total", "Ejections of peers by the setting that caused them.", "service", "cause")
	ejectionsDenied = descriptions.New("ejections_refused_total", "Ejections refused because too many peers were ejected.", "service")
)

// Metrics returns the collector of a monitor's load, see [Monitor.Load], and of the counters of
// all services by name.
func Metrics(load func() (running, overdue int), read func() map[string]Stats) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		running, overdue := load()
		s.Gauge(checksRunning, float64(running))
		s.Gauge(checksOverdue, float64(overdue))
		s = s.PerService()
		for service, stats := range read() {
			s.Counter(checksTotal, stats.ChecksPassed, service, "passed")
			s.Counter(checksTotal, stats.ChecksFailed, service, "failed")
			for cause, n := range stats.Ejections {
				s.Counter(ejectionsTotal, n, service, Cause(cause).String())
			}
			s.Counter(ejectionsDenied, stats.Refused, service)
		}
	})
}
