package series

import (
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

func newPool(t testing.TB, name string, ids ...string) *balancer.Pool {
	t.Helper()
	p := balancer.NewPool(name, balancertest.Complete(balancer.Options{DrainTimeout: time.Minute}))
	t.Cleanup(p.Close)
	var set []discovery.Instance
	for _, id := range ids {
		set = append(set, discovery.Instance{Service: name, ID: id, Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1})
	}
	p.Apply(set)
	return p
}

// A sample has what happened in its interval, over all pools of a service.
func TestSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		star, next := newPool(t, "star", "a", "b"), newPool(t, "star", "c")
		star.Requests.Observe(0, 200, time.Millisecond, 0, 0) // before the first sample
		pools := []*balancer.Pool{star, newPool(t, "moon")}
		r := NewRecorder(func() []*balancer.Pool { return pools })
		begin := moment(time.Now())
		r.begin(begin)
		for range 98 {
			star.Requests.Observe(0, 200, 2*time.Millisecond, 0, 0)
		}
		star.Requests.Observe(1, 503, 2*time.Second, 0, 0)
		star.Requests.Observe(1, 502, 2*time.Second, 0, 0)
		star.Requests.Retry(0)
		star.SetReasons(balancer.ReasonActive, balancer.Verdict{Peer: star.View().Peers[0].Peer, Down: true})
		r.sample(begin.Add(5 * time.Second))

		pools = append(pools, next) // both exist while the service is replaced
		next.Requests.Observe(0, 200, time.Millisecond, 0, 0)
		r.sample(begin.Add(10 * time.Second))
		pools = []*balancer.Pool{next, newPool(t, "sun")}
		r.sample(begin.Add(15 * time.Second))

		got := r.Read(time.Time{}, "star", "moon", "sun")
		want := []Sample{
			{Requests: 100, Errors: 2, Retries: 1, P50: 1.765, P99: 1750, Peers: [5]uint16{1, 0, 0, 1, 0}},
			{Requests: 1, P50: .75, P99: .995, Peers: [5]uint16{2, 0, 0, 1, 0}},
			{Peers: [5]uint16{1}},
		}
		verify.That(t, slices.Equal(got.Services[0], want), "star: %+v\nwant %+v", got.Services[0], want)
		verify.That(t, len(got.Services[1]) == 0 && slices.Equal(got.Services[2], []Sample{{}}), "of a service that has gone %+v, of a new one %+v", got.Services[1], got.Services[2])
		for i, limit := range got.Limits {
			want := begin.Add(time.Duration(i) * Interval)
			verify.That(t, limit.Equal(want), "limit %d is %v, want %v", i, limit, want)
		}
		recent := r.Recent()
		verify.That(t, recent["star"] == Recent{Requests: 101, Errors: 2, Seconds: 15, P50MS: 1.755, P99MS: 1732.683}, "recently: %+v", recent["star"])
		verify.That(t, recent["sun"] == Recent{Seconds: 5} && len(recent) == 2, "recently: %+v", recent)
		later := r.Read(got.Limits[1], "star", "sun")
		verify.That(t, slices.Equal(later.Limits, got.Limits[1:]) && slices.Equal(later.Services[0], want[1:]) && len(later.Services[1]) == 1, "after the first sample: %+v", later)
		last := r.Read(got.Limits[3], "star")
		verify.That(t, len(last.Limits) == 1 && len(last.Services[0]) == 0, "after the last sample: %+v", last)
	})
}

// Samples of 15 minutes are kept, also of a service that came later.
func TestOldSamplesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, late := newPool(t, "old"), newPool(t, "late")
		pools := []*balancer.Pool{old}
		r := NewRecorder(func() []*balancer.Pool { return pools })
		begin := moment(time.Now())
		r.begin(begin)
		for n := 1; n <= 2*Length+7; n++ {
			if n == Length {
				pools = append(pools, late)
			}
			for range n {
				old.Requests.Observe(0, 200, 0, 0, 0)
				late.Requests.Observe(0, 200, 0, 0, 0)
			}
			r.sample(begin.Add(time.Duration(n) * Interval))
		}
		got := r.Read(time.Time{}, "old", "late")
		verify.Require(t, len(got.Limits) == Length+1 &&
			got.Limits[0].Equal(begin.Add((Length+7)*Interval)) &&
			got.Limits[Length].Equal(begin.Add((2*Length+7)*Interval)),
			"%d limits, from %v", len(got.Limits), got.Limits[0].Sub(begin))
		for s, samples := range got.Services {
			verify.Require(t, len(samples) == Length, "%d samples", len(samples))
			for i, sample := range samples {
				verify.Equal(t, sample.Requests, uint32(Length+8+i), "service %d, sample %d has requests", s, i)
			}
		}
		recent := r.Recent()["late"]
		verify.That(t, recent.Seconds == 60 && recent.Requests == 12*(2*Length+7)-66, "recently: %+v", recent)
	})
}

// Run takes a sample in each interval.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := newPool(t, "star", "a")
		r := NewRecorder(func() []*balancer.Pool { return []*balancer.Pool{pool} })
		go r.Run(t.Context()) // the bubble waits for it
		time.Sleep(3*Interval + Interval/2)
		s := r.Read(time.Time{}, "star")
		verify.That(t, len(s.Limits) == 4 && len(s.Services[0]) == 3, "after three intervals: %+v", s)
	})
}

// The samples of 1,000 services with 10 peers each.
func BenchmarkSample(b *testing.B) {
	var pools []*balancer.Pool
	for n := range 1000 {
		ids := make([]string, 10)
		for i := range ids {
			ids[i] = strconv.Itoa(i)
		}
		pools = append(pools, newPool(b, strconv.Itoa(n), ids...))
	}
	r := NewRecorder(func() []*balancer.Pool { return pools })
	r.begin(time.Now())
	b.ReportAllocs()
	for b.Loop() {
		r.sample(time.Now())
	}
}
