package consul

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/test/discoverytest"
	"sluice/test/hostile"
	"sluice/test/verify"
)

// Whatever poses as Consul, the last good set stays in use, and state and log tell why. An
// instance that is not usable is left out.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	cases := hostile.ConsulAnswers()
	add := func(name, reason, set string, entries ...*api.ServiceEntry) {
		body := verify.Result(json.Marshal(append(entries, hostileEntry("a", nil)))).Must(t)
		cases = append(cases, hostile.Case[http.HandlerFunc]{Name: name, Answer: hostile.AsConsul(string(body)), Reason: reason, Set: set})
	}
	for _, host := range hostile.Hosts {
		add("the address "+consul.OneLine(host), "is no host name", "", hostileEntry("b", func(e *api.ServiceEntry) { e.Service.Address = host }))
	}
	add("no address", "no address, nor has its node", "", hostileEntry("b", func(e *api.ServiceEntry) { e.Service.Address, e.Node.Address = "", "" }))
	for port, reason := range map[int]string{-1: "its port is -1", 0: "port 0", 65536: "its port is 65536", 1 << 40: "its port is"} {
		add(reason, reason, "", hostileEntry("b", func(e *api.ServiceEntry) { e.Service.Port = port }))
	}
	for name, change := range map[string]func(s *api.AgentService){
		"a negative weight":     func(s *api.AgentService) { s.Weights = api.AgentWeights{Passing: -1 << 40, Warning: -1} },
		"a huge weight":         func(s *api.AgentService) { s.Weights = api.AgentWeights{Passing: 1 << 40, Warning: 1 << 40} },
		"names with characters": func(s *api.AgentService) { s.ID, s.Service = "b\x1b[2J\r\n\x00", "\x1b]0;\a\r\n" },
	} {
		add(name, "", "a b", hostileEntry("b", func(e *api.ServiceEntry) { change(e.Service) }))
	}
	for name, change := range map[string]func(s *api.AgentService){
		"a name of a megabyte": func(s *api.AgentService) { s.ID, s.Service = strings.Repeat("i", 1<<20), strings.Repeat("s", 1<<20) },
		"a tag of a megabyte":  func(s *api.AgentService) { s.Tags = []string{"sluice.route=" + strings.Repeat("/", 1<<20)} },
		"many tags":            func(s *api.AgentService) { s.Tags = strings.Split(strings.Repeat("sluice.route=/a,", 20_000), ",") },
		"a meta of a megabyte": func(s *api.AgentService) { s.Meta = map[string]string{strings.Repeat("k", 1<<20): "\x00"} },
	} {
		add(name, "octets, ", "a", hostileEntry("b", func(e *api.ServiceEntry) { change(e.Service) }))
	}
	add("no entries", "no node or no service", "", nil, &api.ServiceEntry{}, &api.ServiceEntry{Node: &api.Node{}}, &api.ServiceEntry{Service: &api.AgentService{}})
	duplicates := make([]*api.ServiceEntry, 500)
	for n := range duplicates {
		duplicates[n] = hostileEntry("a", func(e *api.ServiceEntry) { e.Node.Node = strings.Repeat("n", n%100) })
	}
	add("duplicates", "", "a", duplicates...)
	unusable := make([]*api.ServiceEntry, 1_000)
	for n := range unusable {
		unusable[n] = hostileEntry("b", func(e *api.ServiceEntry) { e.Service.ID, e.Service.Port = strings.Repeat("i", n%200)+"b", -n })
	}
	add("many that are not usable", "instance skipped", "", unusable...)
	for name, body := range map[string]string{
		"a weight of text": `[{"Node":{},"Service":{"Weights":{"Passing":"9"}}}]`,
		"a weight of 1e30": `[{"Node":{},"Service":{"Weights":{"Passing":1e30}}}]`,
		"a port of text":   `[{"Node":{},"Service":{"Port":"80"}}]`,
		"a port of 1.5":    `[{"Node":{},"Service":{"Port":1.5}}]`,
		"tags of numbers":  `[{"Node":{},"Service":{"Tags":[1]}}]`,
		"a negative index": `[{"Node":{},"Service":{"ModifyIndex":-1}}]`,
		"an object":        `{}`,
		"two answers":      `[] []`,
	} {
		cases = append(cases, hostile.Case[http.HandlerFunc]{Name: name, Answer: hostile.AsConsul(body), Reason: "decode the answer"})
	}
	hostile.Test(t, func(log zerolog.Logger) hostile.Registry[http.HandlerFunc] {
		fake := discoverytest.New()
		var answer atomic.Pointer[http.HandlerFunc]
		pipe := discoverytest.ServePipe(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if say := answer.Load(); say != nil && strings.HasPrefix(r.URL.Path, "/v1/health/") {
				(*say)(w, r)
				return
			}
			fake.ServeHTTP(w, r)
		}))
		client := verify.Result(newClient(consul.Options{
			Addresses: []string{"http://agent"}, Token: "secret", Log: log, Dial: pipe.DialContext,
		})).Must(t)
		good := func(words string) {
			var entries []*api.ServiceEntry
			for _, word := range strings.Fields(words) {
				entries = append(entries, hostileEntry(word, nil))
			}
			fake.Set("star", entries...)
		}
		return hostile.Registry[http.HandlerFunc]{
			Source: client.Source(ServiceOptions{Service: "star", Wait: 30 * time.Second}),
			Good: func(words string) {
				answer.Store(nil)
				good(words)
			},
			Say: func(say http.HandlerFunc) {
				answer.Store(&say)
				good("a") // ends the query that blocks
			},
			Close: func() { client.Close(); pipe.Close() },
		}
	}, cases)
}

func hostileEntry(word string, change func(e *api.ServiceEntry)) *api.ServiceEntry {
	e := discoverytest.Instance("star", word, hostile.Port(word))
	if change != nil {
		change(e)
	}
	return e
}
