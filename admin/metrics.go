package admin

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"sluice/observe/metrics"
)

// serveMetrics returns the handler of /metrics.
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
