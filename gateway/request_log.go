package gateway

import (
	"cmp"
	"os"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/observe/panics"
	"sluice/observe/tracing"
	"sluice/proxy"
	"sluice/proxy/accesslog"
)

// requestLog is where finished requests are written: the access log, and spans for a collector.
type requestLog struct {
	version string // of the program
	log     zerolog.Logger

	lines   atomic.Pointer[accesslog.Logger]
	tracer  atomic.Pointer[tracing.Tracer] // nil: no spans
	spans   tracing.Counters
	closing sync.WaitGroup // of earlier tracers
}

// open opens what p has and before, the configuration in use, does not.
func (r *requestLog) open(p *plan, before *config.Config) (err error) {
	if before == nil || !reflect.DeepEqual(before.AccessLog, p.config.AccessLog) {
		if p.accessLog, err = r.openLines(p.config.AccessLog); err != nil {
			return err
		}
	}
	if before == nil || !reflect.DeepEqual(before.Tracing, p.config.Tracing) {
		p.tracer, err = r.newTracer(p.config.Tracing)
	}
	return err
}

func (r *requestLog) openLines(a config.AccessLog) (*accesslog.Logger, error) {
	return accesslog.New(accesslog.Options{
		Path:   a.Path,
		Format: a.Format.Value,
		Sample: float64(a.Sample),
		Slow:   a.Slow,
		Notify: func(err error) {
			if err != nil {
				r.log.Error().Err(err).Str("path", a.Path).Msg("access log: lines are lost")
			} else {
				r.log.Info().Str("path", a.Path).Msg("access log works again")
			}
		},
	})
}

// newTracer returns the tracer of c, or nil if no spans are exported.
func (r *requestLog) newTracer(c config.Tracing) (*tracing.Tracer, error) {
	if c.OTLP.IsZero() {
		return nil, nil
	}
	o := tracing.Options{
		Endpoint: c.OTLP, Headers: make(map[string]string), Sample: float64(c.Sample),
		Service: c.ServiceName, Version: r.version, Counters: &r.spans,
		Notify: func(err error) {
			if err != nil {
				r.log.Warn().Err(err).Stringer("otlp", c.OTLP).Msg("spans are lost: the collector does not take them")
			} else {
				r.log.Info().Stringer("otlp", c.OTLP).Msg("the collector takes spans again")
			}
		},
	}
	o.Instance, _ = os.Hostname() // without a name it is empty
	for _, header := range c.Headers {
		o.Headers[header.Value[0]] = header.Value[1]
	}
	return tracing.New(o)
}

// apply makes server write to what p has, with the other settings for clients, and closes what it
// wrote to before.
func (r *requestLog) apply(p *plan, server *proxy.Server) {
	before, tracer := r.lines.Load(), r.tracer.Load()
	if p.tracer != nil || p.config.Tracing.OTLP.IsZero() {
		tracer = p.tracer
	}
	now := cmp.Or(p.accessLog, before)
	server.Configure(proxyOptions(p.config.Client, now, tracer))
	if old := r.tracer.Swap(tracer); old != tracer {
		r.closing.Go(func() { // it may wait for the collector
			defer panics.Contain(panics.Task, nil)
			old.Close()
		})
	}
	if now == before {
		return
	}
	r.lines.Store(now)
	if err := before.CloseFor(now); err != nil {
		r.log.Error().Err(err).Msg("access log: the last lines of the old file are lost")
	}
}

// reopen opens the file of the access log again.
func (r *requestLog) reopen() {
	if err := r.lines.Load().Reopen(); err != nil {
		r.log.Error().Err(err).Msg("access log: cannot be opened again, the old file stays in use")
	}
}

func (r *requestLog) close() {
	if err := r.lines.Load().Close(); err != nil {
		r.log.Error().Err(err).Msg("access log")
	}
	r.tracer.Load().Close()
	r.closing.Wait()
}
