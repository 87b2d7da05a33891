//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// registry answers Consul's health queries, blocking ones included, for many
// services with the same instances. A real Consul with ten thousand of them
// would need the machine for itself. Safe for concurrent use.
type registry struct {
	server    http.Server
	address   string
	instances []json.RawMessage
	services  map[string]*registered
	names     []string
}

// registered is one service of a registry.
type registered struct {
	mu      sync.Mutex // guards the fields below
	index   uint64
	count   int           // of the registry's instances, the first ones
	changed chan struct{} // closed at the next change
}

// newRegistry serves n services with an instance at each of addresses until
// close.
func newRegistry(n int, addresses []string) (*registry, error) {
	r := &registry{services: make(map[string]*registered)}
	for i, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		instance := fmt.Sprintf(`{"Node":{"Node":"bench"},"Service":{"ID":"instance-%d","Address":%q,"Port":%s,`+
			`"Weights":{"Passing":1,"Warning":1}},"Checks":[{"Status":"passing"}]}`, i, host, port)
		r.instances = append(r.instances, json.RawMessage(instance))
	}
	for i := range n {
		name := "service-" + strconv.Itoa(i)
		r.names = append(r.names, name)
		r.services[name] = &registered{index: 1, count: len(addresses), changed: make(chan struct{})}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen as Consul: %w", err)
	}
	r.address = l.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/health/service/{name}", r.health)
	r.server.Handler = mux
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

func (r *registry) close() { _ = r.server.Close() }

// health answers as Consul does, when the index is beyond the caller's or the
// wait is over.
func (r *registry) health(w http.ResponseWriter, request *http.Request) {
	s, ok := r.services[request.PathValue("name")]
	if !ok {
		http.NotFound(w, request)
		return
	}
	query := request.URL.Query()
	known, _ := strconv.ParseUint(query.Get("index"), 10, 64) // none is 0
	wait, err := time.ParseDuration(query.Get("wait"))
	if err != nil {
		wait = 5 * time.Minute
	}
	index, count := s.await(request.Context(), known, wait)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Consul-Index", strconv.FormatUint(index, 10))
	w.Header().Set("X-Consul-KnownLeader", "true")
	w.Header().Set("X-Consul-LastContact", "0")
	_ = json.NewEncoder(w).Encode(r.instances[:count])
}

// await returns the present state once its index is beyond known, or when wait
// or ctx is over.
func (s *registered) await(ctx context.Context, known uint64, wait time.Duration) (index uint64, count int) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for over := false; ; {
		s.mu.Lock()
		index, count = s.index, s.count
		changed := s.changed
		s.mu.Unlock()
		if index > known || over {
			return index, count
		}
		select {
		case <-changed:
		case <-timer.C:
			over = true
		case <-ctx.Done():
			over = true
		}
	}
}

// change takes the last instance out of a service, or puts it back.
func (s *registered) change(all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == all {
		s.count--
	} else {
		s.count++
	}
	s.index++
	close(s.changed)
	s.changed = make(chan struct{})
}

// churn changes perSecond services a second, at random, until ctx ends.
func (r *registry) churn(ctx context.Context, perSecond int) {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.services[r.names[rand.IntN(len(r.names))]].change(len(r.instances))
		}
	}
}
