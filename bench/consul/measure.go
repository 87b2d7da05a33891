//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// result is what was measured at one size.
type result struct {
	first                              time.Duration // until every service has its first set
	idleQueries, idleProbes, idleBytes float64       // a second
	kinds                              []kind
	end                                usage
	served                             served
}

// kind is one kind of change, each figure but the times for one change.
type kind struct {
	name                 string
	median, p95          time.Duration
	queries, bytes       float64
	sluiceCPU, consulCPU time.Duration
}

// bench is one size, set up.
type bench struct {
	options
	agent   agent
	catalog catalog
	*watcher
}

func measure(ctx context.Context, o options) (result, error) {
	dir, err := os.MkdirTemp("", "sluice-bench-consul-")
	if err != nil {
		return result{}, err
	}
	defer os.RemoveAll(dir)
	agent, address, ca, err := startAgent(ctx, o, dir)
	if err != nil {
		return result{}, err
	}
	defer agent.close()
	origin, err := startOrigin(o.instances + 1)
	if err != nil {
		return result{}, err
	}
	defer origin.close()
	b := &bench{options: o, agent: agent, catalog: catalog{client: agent.client, instances: o.instances, nodes: o.nodes, unchecked: o.unchecked, port: origin.port}}
	if err := b.catalog.fill(ctx, o.services); err != nil {
		return result{}, fmt.Errorf("fill the catalog: %w", err)
	}
	r, err := b.measureSets(ctx, address, ca)
	if err != nil {
		return result{}, err
	}
	r.served, err = b.measureServed(ctx, dir, address, ca)
	return r, err
}

// measureSets measures only discovery.
func (b *bench) measureSets(ctx context.Context, address, ca string) (result, error) {
	begin := time.Now()
	stop, err := b.start(address, ca)
	if err != nil {
		return result{}, err
	}
	defer stop()
	return b.run(ctx, begin)
}

// start starts the process that watches.
func (b *bench) start(address, ca string) (stop func(), err error) {
	args := []string{"-address", address, "-ca", ca, "-services", strconv.Itoa(b.services)}
	if b.profile != "" {
		profile, err := filepath.Abs(b.profile)
		if err != nil {
			return nil, err
		}
		args = append(args, "-profile", profile)
	}
	if b.watcher, err = startWatcher(args...); err != nil {
		return nil, err
	}
	return b.watcher.stop, nil
}

// rolled is the service whose instances are replaced one after the other. Other changes
// are to other services.
const rolled = 0

func (b *bench) run(ctx context.Context, begin time.Time) (result, error) {
	var r result
	last, err := b.first(ctx, b.services)
	if err != nil {
		return r, err
	}
	r.first = last.Sub(begin)
	if err := wait(ctx, 3*time.Second); err != nil { // what follows the first sets
		return r, err
	}
	before, err := b.used()
	if err != nil {
		return r, err
	}
	if err := wait(ctx, b.idle); err != nil {
		return r, err
	}
	after, err := b.used()
	if err != nil {
		return r, err
	}
	r.idleQueries = float64(after.withoutProbes()-before.withoutProbes()) / b.idle.Seconds()
	r.idleProbes = float64(after.Probes-before.Probes) / b.idle.Seconds()
	r.idleBytes = float64(after.BytesReceived-before.BytesReceived) / b.idle.Seconds()

	turn := 0
	service := func() int { turn++; return turn * 7919 % b.services }
	var added []int
	always := func(n int) func(int) int { return func(int) int { return n } }
	steps := []struct {
		name    string
		check   bool            // the change is one of a check
		serving func(n int) int // after change n
		service func(n int) int // of change n
		change  func(n, s int) error
	}{
		{"add", false, always(b.instances + 1),
			func(int) int { s := service(); added = append(added, s); return s },
			func(_, s int) error { return b.catalog.register(s, b.instances, api.HealthPassing) }},
		{"fail", true, always(b.instances), func(n int) int { return added[n] },
			func(_, s int) error { return b.catalog.register(s, 0, api.HealthCritical) }},
		{"pass", true, always(b.instances + 1), func(n int) int { return added[n] },
			func(_, s int) error { return b.catalog.register(s, 0, api.HealthPassing) }},
		{"remove", false, always(b.instances), func(n int) int { return added[n] },
			func(_, s int) error { return b.catalog.deregister(s, b.instances) }},
		{"roll", false, func(n int) int { return b.instances + 1 - n%2 }, always(rolled),
			func(n, s int) error {
				if n%2 == 1 {
					return b.catalog.deregister(s, n/2)
				}
				return b.catalog.register(s, b.instances+n/2, api.HealthPassing)
			}},
	}
	changes := min(b.changes, b.services-1)
	for _, step := range steps {
		if step.check && b.unchecked {
			continue
		}
		k, err := b.changeAll(ctx, step.name, changes, step.serving, step.service, step.change)
		if err != nil {
			return r, fmt.Errorf("%s: %w", step.name, err)
		}
		r.kinds = append(r.kinds, k)
	}
	r.end, err = b.used()
	return r, err
}

// changeAll makes n changes, one after the other, and waits for the set of each.
func (b *bench) changeAll(ctx context.Context, name string, n int, serving, service func(int) int, change func(n, s int) error) (kind, error) {
	before, err := b.used()
	if err != nil {
		return kind{}, err
	}
	consulBefore, err := b.consulCPU()
	if err != nil {
		return kind{}, err
	}
	var times []time.Duration
	for turn := range n {
		s := service(turn)
		begin := time.Now()
		if err := change(turn, s); err != nil {
			return kind{}, err
		}
		got, err := b.next(ctx, func(got set) bool { return got.service == serviceName(s) && got.serving == serving(turn) })
		if err != nil {
			return kind{}, err
		}
		times = append(times, got.at.Sub(begin))
		if err := wait(ctx, b.pause); err != nil {
			return kind{}, err
		}
	}
	after, err := b.used()
	if err != nil {
		return kind{}, err
	}
	consulAfter, err := b.consulCPU()
	if err != nil {
		return kind{}, err
	}
	slices.Sort(times)
	return kind{
		name:      name,
		median:    times[len(times)/2],
		p95:       times[len(times)*95/100],
		queries:   float64(after.withoutProbes()-before.withoutProbes()) / float64(n),
		bytes:     float64(after.BytesReceived-before.BytesReceived) / float64(n),
		sluiceCPU: (after.CPU - before.CPU) / time.Duration(n),
		consulCPU: (consulAfter - consulBefore) / time.Duration(n),
	}, nil
}

// consulCPU returns the CPU time of the agent.
func (b *bench) consulCPU() (time.Duration, error) { return cpuTime(b.agent.pid) }

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return errors.New("interrupted")
	}
}
