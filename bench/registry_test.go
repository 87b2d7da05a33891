//go:build linux

package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// The registry answers the queries of sluice like an agent.
func TestRegistryAnswersAsAnAgent(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	for _, id := range []string{"instance-0", "instance-1"} {
		service := &api.AgentServiceRegistration{ID: id, Name: "service-1", Port: 9001}
		verify.NoError(t, agent.Client().Agent().ServiceRegister(service))
	}
	consultest.Await(t, "the catalog has both instances", func() bool {
		entries, _, err := agent.Client().Health().Service("service-1", "", false, nil)
		return err == nil && len(entries) == 2
	})
	r := verify.Result(newRegistry(3, []string{"127.0.0.1:9001", "127.0.0.2:9001"})).Must(t)
	defer r.close()
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	// ask returns what an answer is, and its index: status, header, ids of instances.
	ask := func(address, path string, query url.Values) (answer map[string]string, index string) {
		t.Helper()
		u := url.URL{Scheme: "http", Host: address, Path: path, RawQuery: query.Encode()}
		request := verify.Result(http.NewRequestWithContext(t.Context(), http.MethodGet, u.String(), nil)).Must(t)
		response := verify.Result(transport.RoundTrip(request)).Must(t)
		defer response.Body.Close()
		answer = map[string]string{"status": response.Status}
		for name := range response.Header {
			answer[name] = response.Header.Get(name)
		}
		index = answer["X-Consul-Index"]
		for _, differs := range []string{"Date", "Content-Length", "X-Consul-Index"} {
			delete(answer, differs)
		}
		if path != "/v1/status/leader" {
			var entries []api.ServiceEntry
			err := json.NewDecoder(response.Body).Decode(&entries)
			verify.That(t, err == nil && entries != nil, "%s: no list of instances: %v", &u, err)
			for _, e := range entries {
				answer["ids"] += " " + e.Service.ID
			}
		}
		return answer, index
	}
	const service = "/v1/health/service/service-1"
	for _, q := range []struct{ path, query string }{
		{"/v1/status/leader", ""},
		{service, ""},
		{service, "index=INDEX&wait=10ms"},
		{service, "index=INDEX&wait=10ms&consistent="},
		{service, "index=INDEX&wait=10ms&near=_agent"},
		{service, "consistent="},
		{service, "consistent=&filter=" + url.QueryEscape(`Service.ID == "instance-1"`)},
		{service, "consistent=&filter=" + url.QueryEscape(`Service.ID == "instance-1" or Service.ID == "gone"`)},
		{service, "consistent=&filter=" + url.QueryEscape(`Service.ID == "gone"`)},
		{"/v1/health/service/unknown", ""},
	} {
		var answers [2]map[string]string
		for i, address := range []string{agent.HTTPAddress(), r.address} {
			query := verify.Result(url.ParseQuery(q.query)).Must(t)
			if query.Has("index") { // the present one
				_, index := ask(address, q.path, nil)
				_, err := strconv.ParseUint(index, 10, 64)
				verify.Require(t, err == nil, "%s: index %q", address, index)
				// An agent whose view is not there yet answers with nothing when
				// the wait is over: this has it there.
				early := maps.Clone(query)
				early.Set("index", "1")
				early.Set("wait", "1s")
				consultest.Await(t, "the view has both instances", func() bool {
					answer, _ := ask(agent.HTTPAddress(), q.path, early)
					return answer["ids"] == " instance-0 instance-1"
				})
				query.Set("index", index)
			}
			answers[i], _ = ask(address, q.path, query)
		}
		names := slices.Concat(slices.Collect(maps.Keys(answers[0])), slices.Collect(maps.Keys(answers[1])))
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			want, got := answers[0][name], answers[1][name]
			verify.That(t, got == want, "%s?%s: %s is %q, Consul's is %q", q.path, q.query, name, got, want)
		}
	}
}

// The registry works with Consul's own client, also for blocking queries.
func TestRegistryAnswersLikeConsul(t *testing.T) {
	r := verify.Result(newRegistry(3, []string{"127.0.0.1:9001", "127.0.0.2:9001"})).Must(t)
	defer r.close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	consul := verify.Result(api.NewClient(&api.Config{Address: r.address, HttpClient: &http.Client{Transport: transport}})).Must(t)
	ask := func(index uint64, wait time.Duration) (int, uint64) {
		t.Helper()
		q := (&api.QueryOptions{WaitIndex: index, WaitTime: wait}).WithContext(t.Context())
		entries, meta, err := consul.Health().Service("service-1", "", false, q)
		verify.NoError(t, err)
		if streaming := meta.QueryBackend == api.QueryBackendStreaming; streaming != (index > 0) || meta.KnownLeader == streaming {
			t.Errorf("with index %d: answered by %q, known leader %v", index, meta.QueryBackend, meta.KnownLeader)
		}
		return len(entries), meta.LastIndex
	}
	n, index := ask(0, 0)
	verify.That(t, n == 2 && index == 1, "first answer: %d instances at index %d, want 2 at 1", n, index)
	n, index = ask(1, 10*time.Millisecond)
	verify.That(t, n == 2 && index == 1, "after the wait: %d instances at index %d, want 2 at 1", n, index)
	timer := time.AfterFunc(10*time.Millisecond, func() { r.services["service-1"].change(2) })
	defer timer.Stop()
	n, index = ask(1, time.Minute)
	verify.That(t, n == 1 && index == 2, "after a change: %d instances at index %d, want 1 at 2", n, index)
	for id, want := range map[string]int{"instance-0": 1, "instance-1": 0} { // which has gone
		q := (&api.QueryOptions{Filter: `Service.ID == "` + id + `"`}).WithContext(t.Context())
		entries, _, err := consul.Health().Service("service-1", "", false, q)
		verify.That(t, err == nil && len(entries) == want, "query of %s: %d instances, want %d, %v", id, len(entries), want, err)
	}
	r.services["service-1"].change(2)
	n, index = ask(2, time.Minute)
	verify.That(t, n == 2 && index == 3, "after the next change: %d instances at index %d, want 2 at 3", n, index)
}
