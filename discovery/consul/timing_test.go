package consul

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// BenchmarkAnswerToSink measures the time from a change in a fake Consul on loopback to
// Sink: encoding, one answer, decoding and the hand-over; for a removal also the
// confirmation.
func BenchmarkAnswerToSink(b *testing.B) {
	for _, n := range []int{3, 100, 1000} {
		b.Run(fmt.Sprint("update/instances=", n), func(b *testing.B) {
			benchmarkAnswerToSink(b, n, func(s *api.AgentService, turn int) { s.Weights.Passing = 1 + turn%100 })
		})
		b.Run(fmt.Sprint("removal/instances=", n), func(b *testing.B) {
			benchmarkAnswerToSink(b, n, func(s *api.AgentService, turn int) { s.Port = 20000 + turn%20000 })
		})
	}
}

func benchmarkAnswerToSink(b *testing.B, instances int, change func(s *api.AgentService, turn int)) {
	fake := discoverytest.Start(b)
	client, err := newClient(consul.Options{Addresses: []string{fake.URL()}})
	verify.NoError(b, err)
	got := make(chan struct{})
	m := discovery.NewManager(discovery.ManagerOptions{
		Sink: func(string, []discovery.Instance) { got <- struct{}{} },
	})
	s := client.Source(ServiceOptions{Service: "star"}).(*source)
	s.rate = rate.Inf
	m.Watch("star", s)
	b.Cleanup(client.Close)
	run(b, m)
	<-got

	entries := make([]*api.ServiceEntry, instances)
	for n := range entries {
		entries[n] = discoverytest.Instance("star", fmt.Sprint("star-", n), 1000+n)
	}
	fake.Set("star", entries...)
	<-got
	var total time.Duration
	turn := 0
	for b.Loop() {
		turn++
		changed := *entries[0].Service
		change(&changed, turn)
		entries[0] = &api.ServiceEntry{Node: entries[0].Node, Service: &changed, Checks: entries[0].Checks}
		begin := time.Now()
		fake.Set("star", append([]*api.ServiceEntry(nil), entries...)...)
		<-got
		total += time.Since(begin)
	}
	b.ReportMetric(float64(total.Microseconds())/float64(b.N), "µs/change")
}
