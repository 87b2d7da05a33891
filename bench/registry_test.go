//go:build linux

package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// Consul's own client must understand the registry, blocking queries included.
func TestRegistryAnswersLikeConsul(t *testing.T) {
	r, err := newRegistry(3, []string{"127.0.0.1:9001", "127.0.0.2:9001"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	consul, err := api.NewClient(&api.Config{Address: r.address, HttpClient: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(index uint64, wait time.Duration) (int, uint64) {
		t.Helper()
		q := (&api.QueryOptions{WaitIndex: index, WaitTime: wait}).WithContext(t.Context())
		entries, meta, err := consul.Health().Service("service-1", "", false, q)
		if err != nil {
			t.Fatal(err)
		}
		if streaming := meta.QueryBackend == api.QueryBackendStreaming; streaming != (index > 0) || meta.KnownLeader == streaming {
			t.Errorf("with index %d: answered by %q, known leader %v", index, meta.QueryBackend, meta.KnownLeader)
		}
		return len(entries), meta.LastIndex
	}
	if n, index := ask(0, 0); n != 2 || index != 1 {
		t.Errorf("first answer: %d instances at index %d, want 2 at 1", n, index)
	}
	if n, index := ask(1, 10*time.Millisecond); n != 2 || index != 1 {
		t.Errorf("after the wait: %d instances at index %d, want 2 at 1", n, index)
	}
	timer := time.AfterFunc(10*time.Millisecond, func() { r.services["service-1"].change(2) })
	defer timer.Stop()
	if n, index := ask(1, time.Minute); n != 1 || index != 2 {
		t.Errorf("after a change: %d instances at index %d, want 1 at 2", n, index)
	}
	for id, want := range map[string]int{"instance-0": 1, "instance-1": 0} { // which has gone
		q := (&api.QueryOptions{Filter: `Service.ID == "` + id + `"`}).WithContext(t.Context())
		if entries, _, err := consul.Health().Service("service-1", "", false, q); err != nil || len(entries) != want {
			t.Errorf("asked for %s: %d instances, want %d, %v", id, len(entries), want, err)
		}
	}
	r.services["service-1"].change(2)
	if n, index := ask(2, time.Minute); n != 2 || index != 3 {
		t.Errorf("after the next change: %d instances at index %d, want 2 at 3", n, index)
	}
}
