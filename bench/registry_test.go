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
)

// The registry answers the queries of sluice like an agent.
func TestRegistryAnswersAsAnAgent(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	for _, id := range []string{"instance-0", "instance-1"} {
		service := &api.AgentServiceRegistration{ID: id, Name: "service-1", Port: 9001}
		if err := agent.Client().Agent().ServiceRegister(service); err != nil {
			t.Fatal(err)
		}
	}
	consultest.Await(t, "the catalog has both instances", func() bool {
		entries, _, err := agent.Client().Health().Service("service-1", "", false, nil)
		return err == nil && len(entries) == 2
	})
	r, err := newRegistry(3, []string{"127.0.0.1:9001", "127.0.0.2:9001"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	// ask returns what an answer is, and its index: status, header, ids of instances.
	ask := func(address, path string, query url.Values) (answer map[string]string, index string) {
		t.Helper()
		u := url.URL{Scheme: "http", Host: address, Path: path, RawQuery: query.Encode()}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
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
			if err := json.NewDecoder(response.Body).Decode(&entries); err != nil || entries == nil {
				t.Errorf("%s: no list of instances: %v", &u, err)
			}
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
			query, err := url.ParseQuery(q.query)
			if err != nil {
				t.Fatal(err)
			}
			if query.Has("index") { // the present one
				_, index := ask(address, q.path, nil)
				if _, err := strconv.ParseUint(index, 10, 64); err != nil {
					t.Fatalf("%s: index %q", address, index)
				}
				// An agent whose view is not there yet answers with nothing when the wait is
				// over: this has it there.
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
			if want, got := answers[0][name], answers[1][name]; got != want {
				t.Errorf("%s?%s: %s is %q, Consul's is %q", q.path, q.query, name, got, want)
			}
		}
	}
}

// The registry works with Consul's own client, also for blocking queries.
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
			t.Errorf("query of %s: %d instances, want %d, %v", id, len(entries), want, err)
		}
	}
	r.services["service-1"].change(2)
	if n, index := ask(2, time.Minute); n != 2 || index != 3 {
		t.Errorf("after the next change: %d instances at index %d, want 2 at 3", n, index)
	}
}
