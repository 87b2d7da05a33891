// Package series keeps what each service did in the last 15 minutes, for charts.
package series

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"sluice/balancer"
	"sluice/balancer/reading"
	"sluice/observe/metrics"
	"sluice/observe/wake"
)

const (
	// Interval is the time of a sample, unless the machine stands still.
	Interval = 5 * time.Second
	// Length is the number of samples that are kept of each service: 15 minutes.
	Length = 180
)

// Sample is what a service did in one interval. It has 32 bytes, so a service needs 6 KiB.
type Sample struct {
	Requests uint32                      // that ended
	Errors   uint32                      // of them, the ones with a status of 5xx
	Retries  uint32                      // attempts after the first of a request
	P50, P99 float32                     // of the durations, in milliseconds; 0 without requests
	Peers    [len(reading.States)]uint16 // as in reading.States, at the end of the interval
}

// Recorder takes a sample of every service in each interval. Its methods may be called
// concurrently.
type Recorder struct {
	pools func() []*balancer.Pool // as admin.Options.Pools

	mu sync.Mutex // guards the fields below

	limits   [Length + 1]time.Time // sample n is from limits[n%len] to limits[(n+1)%len]
	next     uint64                // number of the next sample
	services map[string]*track
	counted  map[*balancer.Pool]counters
}

// track has the samples of a service.
type track struct {
	first   uint64   // number of its first sample
	samples []Sample // up to Length; sample n is in samples[(n-first)%Length]
}

// counters are what a pool had counted at the end of the latest sample.
type counters struct {
	latency         [metrics.NumBuckets]uint64 // requests by their duration
	errors, retries uint64
}

// NewRecorder returns a recorder of the services whose pools the function pools returns.
func NewRecorder(pools func() []*balancer.Pool) *Recorder {
	return &Recorder{pools: pools, services: make(map[string]*track), counted: make(map[*balancer.Pool]counters)}
}

// Run takes samples until ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	r.begin(time.Now())
	wake.Every(ctx, Interval, func() { r.sample(time.Now()) })
}

// begin notes where the first sample begins, unless Run has begun before.
func (r *Recorder) begin(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == 0 {
		r.limits[0] = moment(now)
	}
	for _, pool := range r.pools() {
		requests := pool.Requests.Snapshot()
		r.counted[pool] = countersOf(&requests)
	}
}

// sample takes a sample of every service, and forgets services that are not there any more.
func (r *Recorder) sample(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sums := make(map[string]*sum)
	counted := make(map[*balancer.Pool]counters)
	for _, pool := range r.pools() {
		s := sums[pool.Name]
		if s == nil {
			s = new(sum)
			sums[pool.Name] = s
		}
		requests := pool.Requests.Snapshot()
		counted[pool] = countersOf(&requests)
		s.add(counted[pool], r.counted[pool], pool.View())
	}
	for name := range r.services {
		if sums[name] == nil {
			delete(r.services, name)
		}
	}
	for name, s := range sums {
		t := r.services[name]
		if t == nil {
			t = &track{first: r.next, samples: make([]Sample, 0, Length)}
			r.services[name] = t
		}
		t.add(r.next, s.sample())
	}
	r.counted = counted
	r.next++
	r.limits[r.next%uint64(len(r.limits))] = moment(now)
}

func (t *track) add(n uint64, s Sample) {
	if len(t.samples) < Length {
		t.samples = append(t.samples, s)
	} else {
		t.samples[(n-t.first)%Length] = s
	}
}

func countersOf(s *metrics.RequestsSnapshot) counters {
	return counters{s.Buckets(), s.Class(metrics.Class5xx), s.Retries}
}

// sum is a sample over all pools of a service: while it is replaced, there are two.
type sum struct {
	requests metrics.RequestsSnapshot // only latencies, all in one class
	errors   uint64
	retries  uint64
	peers    [len(reading.States)]int
}

func (s *sum) add(now, before counters, view balancer.View) {
	for i := range now.latency {
		s.requests.Ended[metrics.Class2xx][i] += now.latency[i] - before.latency[i]
	}
	s.errors += now.errors - before.errors
	s.retries += now.retries - before.retries
	for _, peer := range view.Peers {
		if i := slices.Index(reading.States[:], peer.State()); i >= 0 {
			s.peers[i]++
		}
	}
}

func (s *sum) sample() Sample {
	sample := Sample{
		Requests: bounded(s.requests.Total()), Errors: bounded(s.errors), Retries: bounded(s.retries),
		P50: milliseconds(s.requests.Quantile(0.5)), P99: milliseconds(s.requests.Quantile(0.99)),
	}
	for i, n := range s.peers {
		sample.Peers[i] = uint16(min(n, math.MaxUint16))
	}
	return sample
}

// moment returns t as the API tells it, so that a client can ask for what comes after.
func moment(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func bounded(n uint64) uint32              { return uint32(min(n, math.MaxUint32)) }
func milliseconds(d time.Duration) float32 { return float32(d.Microseconds()) / 1000 }

// Series are the samples of some services.
type Series struct {
	// Limits are the times between the samples, one more than there are samples, oldest
	// first.
	Limits []time.Time
	// Services are as asked for. Each element has the latest samples of a service: fewer
	// than there are limits for one that is younger.
	Services [][]Sample
}

// Read returns the samples that end after a time. A service without samples has none.
func (r *Recorder) Read(after time.Time, services ...string) Series {
	r.mu.Lock()
	defer r.mu.Unlock()
	var s Series
	from := r.next - min(r.next, Length)
	for from < r.next && !r.limit(from+1).After(after) {
		from++
	}
	for n := from; n <= r.next; n++ {
		s.Limits = append(s.Limits, r.limit(n))
	}
	for _, name := range services {
		var samples []Sample
		if t := r.services[name]; t != nil {
			for n := max(from, t.first); n < r.next; n++ {
				samples = append(samples, t.samples[(n-t.first)%Length])
			}
		}
		s.Services = append(s.Services, samples)
	}
	return s
}

// Recent is what a service did in about the last minute.
type Recent struct {
	Requests int     `json:"requests"` // that ended
	Errors   int     `json:"errors"`   // of them, the ones with a status of 5xx
	Seconds  float64 `json:"seconds"`  // that the samples took; 0: there are none yet
	P50MS    float64 `json:"p50_ms"`   // averages of the samples, by their requests; 0 without requests
	P99MS    float64 `json:"p99_ms"`
}

// Recent returns what services did in their samples of the last minute, by name.
func (r *Recorder) Recent() map[string]Recent {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]Recent, len(r.services))
	for name, t := range r.services {
		from := max(t.first, r.next-min(r.next, uint64(time.Minute/Interval)))
		s := Recent{Seconds: r.limit(r.next).Sub(r.limit(from)).Seconds()}
		for n := from; n < r.next; n++ {
			sample := &t.samples[(n-t.first)%Length]
			s.Requests += int(sample.Requests)
			s.Errors += int(sample.Errors)
			s.P50MS += float64(sample.P50) * float64(sample.Requests)
			s.P99MS += float64(sample.P99) * float64(sample.Requests)
		}
		if s.Requests > 0 {
			s.P50MS = math.Round(s.P50MS/float64(s.Requests)*1000) / 1000
			s.P99MS = math.Round(s.P99MS/float64(s.Requests)*1000) / 1000
		}
		all[name] = s
	}
	return all
}

func (r *Recorder) limit(n uint64) time.Time { return r.limits[n%uint64(len(r.limits))] }
