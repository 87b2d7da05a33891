package healthcheck

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"sluice/balancer"
	"sluice/test/verify"
)

// BenchmarkProbe measures one check, with the work of the peer.
func BenchmarkProbe(b *testing.B) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	defer web.Close()
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(b)
	rpc := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(rpc, health.NewServer())
	go rpc.Serve(l)
	defer rpc.Stop()
	for _, p := range []struct {
		probe   Probe
		name    string
		address string
	}{
		{NewTCP(TCPOptions{}), "tcp", web.Listener.Addr().String()},
		{newHTTP(HTTPOptions{}), "http", web.Listener.Addr().String()},
		{newHTTP(HTTPOptions{Reuse: true, Body: Expectation{Within: 100}}), "http/reused", web.Listener.Addr().String()},
		{NewGRPC(GRPCOptions{}), "grpc", l.Addr().String()},
		{NewGRPC(GRPCOptions{Reuse: true}), "grpc/reused", l.Addr().String()},
	} {
		b.Run(p.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				verify.NoError(b, p.probe.Check(ctx, Target{Address: p.address}))
				cancel()
			}
			p.probe.Close()
		})
	}
}

// instant is a probe without work.
type instant struct {
	left atomic.Int64 // checks until done is closed
	done chan struct{}
	fail atomic.Bool
}

func (i *instant) Check(context.Context, Target) error {
	if i.left.Add(-1) == 0 {
		close(i.done)
	}
	if i.fail.Load() {
		return fmt.Errorf("failed")
	}
	return nil
}
func (*instant) Forget(string)  {}
func (*instant) Close()         {}
func (*instant) String() string { return "instant" }

// BenchmarkAgenda measures a check without the probe.
func BenchmarkAgenda(b *testing.B) {
	for _, peers := range []int{10, 10_000} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			probe := &instant{done: make(chan struct{})}
			probe.left.Store(int64(b.N + peers))
			s := Settings{Active: &Active{Probe: probe, Interval: time.Nanosecond, Timeout: time.Second, UnhealthyThreshold: 1, HealthyThreshold: 1}}
			f := newFixture(b, s, Options{MaxChecks: 4})
			f.Apply(instances(peers))
			b.ResetTimer()
			<-probe.done
			b.StopTimer()
			f.close()
		})
	}
}

// BenchmarkStorm measures the time until all peers of a pool are unhealthy.
func BenchmarkStorm(b *testing.B) {
	for _, peers := range []int{100, 10_000} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			probe := &instant{done: make(chan struct{})}
			s := Settings{Active: &Active{Probe: probe, Interval: time.Millisecond, Timeout: time.Second, UnhealthyThreshold: 1, HealthyThreshold: 1}}
			f := newFixture(b, s, Options{})
			f.Apply(instances(peers))
			generations := uint64(0)
			for b.Loop() {
				before := f.Snapshot().Generation
				probe.fail.Store(!probe.fail.Load())
				want := peers
				if probe.fail.Load() {
					want = 0
				}
				for f.eligible() != want {
					time.Sleep(100 * time.Microsecond)
				}
				generations += f.Snapshot().Generation - before
			}
			b.ReportMetric(float64(generations)/float64(b.N), "snapshots/op")
			f.close()
		})
	}
}

// BenchmarkFailed measures a failure beyond the counting of the pool, if no further peer may be
// ejected.
func BenchmarkFailed(b *testing.B) {
	f := newFixture(b, passiveSettings(), Options{})
	defer f.close()
	f.Apply(instances(100))
	p := f.Snapshot().All[0]
	for _, length := range []int{1, 5} {
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			f.checker.fullUntil.Store(1 << 62)
			for b.Loop() {
				f.checker.failed(p, refused, balancer.Streak{Connect: length, Gateway: length, Any: length})
			}
		})
	}
}
