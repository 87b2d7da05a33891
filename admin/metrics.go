package admin

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/balancer/reading"
	"sluice/observe/metrics"
)

// Metrics gathers the series of all parts, as the mode of admin.metrics says. It is read once a
// scrape, so all parts do alike.
func Metrics(mode func() string, pools func() []*balancer.Pool, parts ...prometheus.Collector) prometheus.Gatherer {
	full, brief := prometheus.NewRegistry(), prometheus.NewRegistry()
	for _, part := range parts {
		full.MustRegister(part)
		brief.MustRegister(metrics.Brief(part))
	}
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		if m := mode(); m == "brief" || m == "auto" && reading.Many(pools()) {
			return brief.Gather()
		}
		return full.Gather()
	})
}

func serveMetrics(o Options) http.HandlerFunc {
	return promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          gatherLog{o.Log},
	}).ServeHTTP
}

type gatherLog struct{ zerolog.Logger }

func (l gatherLog) Println(v ...any) { l.Error().Msg(strings.TrimSpace(fmt.Sprintln(v...))) }

var ofProcess metrics.Descriptions

var (
	buildInfo = ofProcess.New("build_info", "Always 1; the labels are the versions.", "version", "go_version")
	isReady   = ofProcess.New("ready", "1 if sluice can serve, else 0.")
)

// ProcessMetrics returns the collector of the version of the program and of its readiness; see
// Options.
func ProcessMetrics(version string, ready func() (ready bool, missing []string)) prometheus.Collector {
	return ofProcess.Collector(func(s metrics.Series) {
		s.Gauge(buildInfo, 1, version, runtime.Version())
		ready, _ := ready()
		s.Flag(isReady, ready)
	})
}
