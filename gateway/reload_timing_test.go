//go:build unix

package gateway

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/config"
	"sluice/config/live"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// reported is a source of documents whose reports a benchmark makes.
type reported chan live.Report

func (r reported) Run(ctx context.Context, report func(live.Report)) error {
	for {
		select {
		case one := <-r:
			report(one)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cpuTime returns the time that all processors have spent in this process.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	verify.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReload is everything from the bytes of changed documents, or of the configuration file,
// to the table that is in use, with 10,000 routes to 1,000 services. cpu-ms is the time of all
// processors, also of the garbage collector; record-cpu-ms is the time for the history, after the
// table is in use.
func BenchmarkReload(b *testing.B) {
	const route, regexp = "{ host: h%d.example.com, path: /p%d/%d, service: s%d }", "{ host: h%d.example.com, path: '^/p%d/%d/[0-9]+$', match: regexp, service: s%d }"
	for _, shape := range []struct {
		name      string
		documents int    // 0: the routes are in the file
		route     string // the format of a route: its host, its path, the round, and its service
		changed   string // "all" documents, "one"; or "line": one route of one document
	}{
		{"one_document/all_routes", 1, route, "all"},
		{"one_document/one_route", 1, route, "line"},
		{"100_documents/all", 100, route, "all"},
		{"100_documents/one", 100, route, "one"},
		{"one_document/all_regexps", 1, regexp, "all"},
		{"100_documents/one_of_regexps", 100, regexp, "one"},
		{"file/all_routes", 0, route, "all"},
	} {
		b.Run(shape.name, func(b *testing.B) {
			g := newReloading(b)
			without := verify.Result(os.ReadFile(g.options.Input.File)).Must(b)
			const routes = 10_000
			documents := func(round int) (list []config.Document) {
				var text strings.Builder
				for d := range max(shape.documents, 1) {
					text.Reset()
					text.WriteString("routes:\n")
					of := routes / max(shape.documents, 1)
					for i := d * of; i < (d+1)*of; i++ {
						r := round
						if shape.changed == "one" && d != shape.documents/2 || shape.changed == "line" && i != routes/2 {
							r = 0
						}
						text.WriteString("  - ")
						fmt.Fprintf(&text, shape.route, i%1000, i, r, i%1000)
						text.WriteByte('\n')
					}
					list = append(list, config.Document{Name: fmt.Sprintf("consul_kv:sluice/%03d.yaml", d), Text: text.String()})
				}
				return list
			}
			apply := func(round int) {
				list := documents(round)
				runtime.GC()
				g.applied(func() {
					if shape.documents == 0 {
						verify.NoError(b, os.WriteFile(g.options.Input.File, append(bytes.Clone(without), list[0].Text...), 0o600))
						g.Reload() // nothing watches the file here
						return
					}
					g.source <- live.Report{Said: config.Source{Name: "consul_kv:sluice/", Kind: config.KindConsulKV, Documents: list}}
				})
				verify.Require(b, len(g.table().Routes()) == routes, "not applied")
			}
			b.StopTimer()
			apply(1)
			b.ResetTimer()
			g.inUse, g.recorded = 0, 0
			for round := 2; round < b.N+2; round++ {
				apply(round)
			}
			b.ReportMetric(g.inUse.Seconds()*1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(g.recorded.Seconds()*1000/float64(b.N), "record-cpu-ms/op")
		})
	}
}

// reloading is a gateway that follows its documents, and does nothing else.
type reloading struct {
	*Gateway
	b               *testing.B
	source          reported
	used            time.Duration      // the time of all processors when the last configuration was in use
	done            chan time.Duration // the time when it was recorded
	inUse, recorded time.Duration      // sums
}

// applied calls change, and waits until what it changes is in use and recorded.
func (r *reloading) applied(change func()) {
	before := cpuTime(r.b)
	r.b.StartTimer()
	change()
	done := <-r.done
	r.b.StopTimer()
	r.inUse += r.used - before
	r.recorded += done - r.used
}

func newReloading(b *testing.B) *reloading {
	b.Helper()
	file := filepath.Join(b.TempDir(), "sluice.yaml")
	var text strings.Builder
	text.WriteString(preamble + "dynamic: [{ consul_kv: { prefix: sluice/ } }]\nservices:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "  s%d: { peers: ['127.0.0.1:1'] }\n", i)
	}
	verify.NoError(b, os.WriteFile(file, []byte(text.String()), 0o600))
	g := verify.Result(New(Options{Input: config.Input{File: file}, Version: "test", Log: new(subprocess.Output)})).Must(b)
	r := &reloading{Gateway: g, b: b, source: make(reported), done: make(chan time.Duration)}
	o := g.documentOptions()
	o.NewSource = func(config.Dynamic, config.Source) live.Source { return r.source }
	o.Apply = func(ctx context.Context, c *config.Config) (*config.Config, error) {
		err := g.apply(ctx, c)
		r.used = cpuTime(b)
		return c, err
	}
	o.Applied = func(config.Revision) { r.done <- cpuTime(b) }
	g.documents.Connect(o)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { g.documents.Run(ctx, time.Second, time.Second) })
	b.Cleanup(func() {
		cancel()
		running.Wait()
		_ = g.proxy.Shutdown(context.Background(), 0) // it has no clients
		g.release(context.Background())
	})
	return r
}
