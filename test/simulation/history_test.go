package simulation

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// history is a world without random events: one service from Consul with the default settings and
// twenty requests per second.
type history struct {
	*world
	t        *testing.T
	registry *registry
	service  *service
	stopLoad func()
	mayFail  int // requests
}

// play creates a history with instances, and calls f. No request for which there is a peer
// may fail.
func play(t *testing.T, probation time.Duration, instances int, f func(h *history)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		c := newConsul(w)
		c.probation = probation
		h := &history{world: w, t: t, registry: newRegistry(w, "star", c)}
		w.registries = append(w.registries, h.registry)
		h.start("a", instances, discovery.StatusPassing)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { w.manager.Run(ctx) })
		h.service = w.newService(h.registry)
		w.services = append(w.services, h.service)
		h.service.becomePlain()
		w.settle()
		h.loadUntil(&running)
		w.pass(20 * time.Second)

		f(h)

		h.stopLoad()
		w.retire(h.service)
		w.services = nil
		w.requests.Wait()
		w.monitor.Close()
		cancel()
		running.Wait()
		c.close()
		w.judgeLocked()
		if w.violation != "" {
			t.Errorf("%s\n%s", w.violation, w.chronicle(40))
		}
		if n := w.counts["request failed"]; n > h.mayFail {
			t.Errorf("%d requests failed, the last lines:\n%s", n, w.chronicle(40))
		}
	})
}

// becomePlain sets the default settings.
func (s *service) becomePlain() {
	s.w.mu.Lock()
	s.options = balancertest.Complete(balancer.Options{
		DrainTimeout: maxDrainTimeout, PanicThreshold: .5,
		NewTransport: s.newTransport, Notify: s.note, Random: s.random.Uint64,
	})
	s.settings = healthcheck.Settings{Passive: healthcheck.Passive{
		ConsecutiveFailures: 5, Interval: 10 * time.Second, Ejection: 10 * time.Second, MaxEjection: 5 * time.Minute, MaxEjected: .5,
	}}
	s.routed = &route.Service{
		Name: s.name, Pool: s.pool, Timeouts: route.Timeouts{ResponseHeader: responseTimeout}, Retry: route.Retry{Attempts: 2},
	}
	s.configure, s.now().configured = time.Now(), true
	options := s.checker.Adapt(s.options, s.settings)
	s.w.mu.Unlock()
	s.checker.Reconfigure(options, s.settings)
}

// loadUntil sends requests until stopLoad is called.
func (h *history) loadUntil(running *sync.WaitGroup) {
	stop := make(chan struct{})
	h.stopLoad = sync.OnceFunc(func() { close(stop) })
	running.Go(func() {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				h.request(h.service, true)
			case <-stop:
				return
			}
		}
	})
}

// start registers instances.
func (h *history) start(name string, instances int, status discovery.Status) {
	for n := range instances {
		i := discovery.Instance{Service: "star", ID: fmt.Sprint(name, n), Node: "node-1", Address: h.registry.address(), Port: 80, Weight: 1, Datacenter: "dc1", Status: status}
		if status == discovery.StatusCritical {
			i.Weight = 0
		}
		h.registry.add(i)
	}
}

// end ends the process of an instance after its requests.
func (h *history) end(i discovery.Instance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.upstreams[i.HostPort()].kind = upstreamRefuses
}

// expect fails unless so many peers are in use, and so many on probation.
func (h *history) expect(when string, used, probation int) {
	h.t.Helper()
	gotUsed, gotProbation := 0, 0
	for _, p := range h.service.pool.Snapshot().All {
		if p.Used() {
			gotUsed++
		}
		if !p.Instance().Probation.IsZero() {
			gotProbation++
		}
	}
	if gotUsed != used || gotProbation != probation {
		h.t.Errorf("%s: %d peers in use, %d on probation; want %d, %d", when, gotUsed, gotProbation, used, probation)
		for _, p := range h.service.pool.Snapshot().All {
			h.t.Logf("%s %v %q", describePeer(p), p.State(), p.Reasons())
		}
	}
}

// refused returns the number of requests with 503 since the last call.
func (h *history) refused() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.counts["request refused"]
	h.counts["request refused"] = 0
	return n
}

// Regressions of earlier rules.
func TestHistories(t *testing.T) {
	t.Run("five stop and five start", func(t *testing.T) {
		play(t, 10*time.Minute, 5, func(h *history) {
			h.mayFail = 1 // the one that finds out that all five have stopped
			for len(h.registry.entries) > 0 {
				h.end(h.registry.entries[0])
				h.registry.deregister(0)
				h.pass(time.Second)
			}
			n := h.refused()
			verify.That(h.t, n <= 25, "%d requests refused within the second after the last one stopped", n)
			h.start("b", 5, discovery.StatusCritical)
			h.pass(2 * time.Second)
			h.registry.update(func() {
				for n := range h.registry.entries {
					h.registry.entries[n].Status, h.registry.entries[n].Weight = discovery.StatusPassing, 1
				}
			})
			h.pass(time.Second)
			h.refused()
			h.expect("the new ones pass", 5, 0)
			h.pass(30 * time.Second)
			n = h.refused()
			verify.That(h.t, n <= 0, "%d requests refused with five peers", n)
		})
	})
	t.Run("a snapshot is restored, and anti-entropy takes minutes", func(t *testing.T) {
		play(t, 10*time.Minute, 2, func(h *history) {
			entries := h.registry.entries
			h.registry.update(func() { h.registry.entries = nil })
			h.registry.consul.fake.SetIndex(3)
			h.mu.Lock()
			h.registry.consul.noticedWithin(hungRecovery)
			h.mu.Unlock()
			h.pass(200 * time.Second)
			h.expect("200 s later", 2, 2)
			h.registry.update(func() { h.registry.entries = entries })
			h.pass(hungRecovery)
			h.expect("they are registered again", 2, 0)
			n := h.refused()
			verify.That(h.t, n <= 0, "%d requests refused", n)
		})
	})
	t.Run("the agent loses its instances, and Consul goes away", func(t *testing.T) {
		play(t, time.Minute, 3, func(h *history) {
			h.registry.update(func() { h.registry.entries = nil })
			h.pass(20 * time.Second)
			h.expect("lost", 3, 3)
			h.mu.Lock()
			h.registry.consul.becomeLocked(faults[0])
			h.mu.Unlock()
			h.pass(20 * time.Minute)
			h.registry.heal()
			h.pass(20 * time.Second)
			h.expect("Consul is back", 3, 3)
			n := h.refused()
			verify.That(h.t, n <= 0, "%d requests refused", n)
			h.pass(time.Minute)
			h.expect("the time is over", 0, 0)
		})
	})
	t.Run("all stop on purpose", func(t *testing.T) {
		play(t, 10*time.Minute, 3, func(h *history) {
			for _, i := range h.registry.entries {
				h.end(i)
			}
			h.registry.clear()
			h.pass(time.Second)
			h.expect("a second later", 0, 3)
			h.pass(30 * time.Second)
			n := h.refused()
			verify.That(h.t, n >= 600, "%d of about 620 requests refused", n)
		})
	})
	t.Run("an agent restarts empty, and an instance has stopped meanwhile", func(t *testing.T) {
		play(t, 10*time.Minute, 3, func(h *history) {
			entries := h.registry.entries
			h.mu.Lock()
			h.registry.consul.becomeLocked(faults[0])
			h.mu.Unlock()
			h.pass(3 * time.Second)
			h.end(entries[0])
			h.registry.update(func() { h.registry.entries = entries[:1] }) // the others are swept already
			h.registry.heal()
			h.pass(500 * time.Millisecond)
			h.registry.update(func() { h.registry.entries = nil })
			h.pass(5 * time.Second)
			h.expect("all are swept", 2, 3)
			h.registry.update(func() { h.registry.entries = entries[1:] })
			h.pass(20 * time.Second)
			h.expect("who runs has registered again", 2, 1)
			n := h.refused()
			verify.That(h.t, n <= 0, "%d requests refused", n)
		})
	})
}
