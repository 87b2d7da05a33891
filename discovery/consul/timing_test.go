package consul

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"

	"sluice/discovery"
	"sluice/discovery/discoverytest"
)

// BenchmarkAnswerToSink measures the way from a change in Consul, here the fake
// on loopback, to Sink: encoding, one answer, decoding and the hand-over; for a
// removal also the query that confirms it.
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
	client, err := NewClient(ClientOptions{Addresses: []string{fake.URL()}})
	if err != nil {
		b.Fatal(err)
	}
	got := make(chan struct{})
	m := discovery.NewManager(discovery.ManagerOptions{
		Debounce: discovery.Debounce{Quiet: -1, MaxWait: -1},
		Sink:     func(string, []discovery.Instance) { got <- struct{}{} },
	})
	s := client.Source(ServiceOptions{Service: "star"}).(*source)
	s.rate = rate.Inf
	m.Watch("star", s)
	ctx, cancel := context.WithCancel(b.Context())
	var run sync.WaitGroup
	run.Go(func() { m.Run(ctx) })
	defer func() {
		cancel()
		run.Wait()
		client.Close()
	}()
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
