//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
)

// fleet is several replicas, and the cluster that they ask.
type fleet struct {
	options
	cluster  *cluster
	catalog  catalog
	replicas []*watcher
	changed  int // changes so far
}

// group is processes of the same role.
type group struct {
	name string
	pids []int
	asks []*consultest.Agent // those of Consul; nil: replicas
}

// reading is what the processes of a group have now, each of them in the mean.
type reading struct {
	resident                      float64 // bytes
	sockets                       float64
	goroutines, blocking, streams float64 // Consul's own figures
}

// phase is what a group has used in one phase: the CPU time of each process.
type phase map[string]time.Duration

// fleetResult is what was measured of a fleet.
type fleetResult struct {
	idleBefore, changeOnly phase // without replicas: a second, a change
	idle, change           phase // with them
	start, loss            phase // in all
	lossTime               time.Duration
	before, held           map[string]reading // without replicas; with them, after idle
	first                  time.Duration      // until the last replica has all sets
	median, last           time.Duration      // from a change to the last replica
	idleQueries, idleBytes float64            // of a replica, a second
	queries, bytes         float64            // of a replica, for one change
	lossQueries            float64            // of a replica
	replica                usage              // of the first
}

func measureFleet(ctx context.Context, o options) (r fleetResult, err error) {
	dir, err := os.MkdirTemp("", "sluice-bench-consul-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	var tls *consultest.TLS
	if o.tls {
		if tls, err = selfSigned(dir); err != nil {
			return r, err
		}
	}
	f := &fleet{options: o}
	f.cluster, err = startCluster(ctx, o, tls)
	defer f.cluster.close()
	if err != nil {
		return r, err
	}
	f.catalog = catalog{client: f.cluster.servers[0].Client(), instances: o.instances, nodes: o.nodes, port: 10000}
	if err := f.catalog.fill(ctx, o.services); err != nil {
		return r, fmt.Errorf("fill the catalog: %w", err)
	}
	defer func() {
		for _, w := range f.replicas {
			w.stop()
		}
	}()
	if r.idleBefore, err = f.rest(ctx); err != nil {
		return r, err
	}
	if r.changeOnly, err = f.changeAll(ctx, nil); err != nil {
		return r, err
	}
	if r.before, err = f.read(ctx); err != nil {
		return r, err
	}
	if r.start, err = f.during(ctx, func() error { return f.start(ctx, tls, &r) }); err != nil {
		return r, err
	}
	if r.start["replica"], err = f.replicaGroup().cpu(); err != nil {
		return r, err
	}
	err = f.measure(ctx, &r)
	return r, err
}

// start starts the replicas, all at once, and waits until each has all sets.
func (f *fleet) start(ctx context.Context, tls *consultest.TLS, r *fleetResult) error {
	begin := time.Now()
	ca := ""
	if tls != nil {
		ca = tls.CA
	}
	for n := range f.options.replicas {
		w, err := startWatcher("-address", f.cluster.addresses(n, f.tls), "-ca", ca, "-services", strconv.Itoa(f.services), "-cached="+strconv.FormatBool(f.cached))
		if err != nil {
			return err
		}
		f.replicas = append(f.replicas, w)
	}
	for n, w := range f.replicas {
		last, err := w.first(ctx, f.services)
		if err != nil {
			return fmt.Errorf("replica %d: %w", n, err)
		}
		r.first = max(r.first, last.Sub(begin))
	}
	return nil
}

// measure measures the fleet that has started.
func (f *fleet) measure(ctx context.Context, r *fleetResult) (err error) {
	if err := wait(ctx, 10*time.Second); err != nil { // what follows the first sets
		return err
	}
	used := func(queries, bytes *float64, each float64, do func() error) error {
		before, err := f.used()
		if err != nil {
			return err
		}
		if err := do(); err != nil {
			return err
		}
		after, err := f.used()
		n := each * float64(len(f.replicas))
		*queries, *bytes = float64(after.withoutProbes()-before.withoutProbes())/n, float64(after.BytesReceived-before.BytesReceived)/n
		return err
	}
	err = used(&r.idleQueries, &r.idleBytes, f.options.idle.Seconds(), func() (err error) {
		r.idle, err = f.rest(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if r.held, err = f.read(ctx); err != nil {
		return err
	}
	if r.replica, err = f.replicas[0].used(); err != nil {
		return err
	}
	var times []time.Duration
	err = used(&r.queries, &r.bytes, float64(f.changes), func() (err error) {
		r.change, err = f.changeAll(ctx, &times)
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(times)
	r.median, r.last = times[len(times)/2], times[len(times)-1]
	if f.options.loss == 0 {
		return nil
	}
	return used(&r.lossQueries, new(float64), 1, func() (err error) {
		r.loss, err = f.lose(ctx, r)
		return err
	})
}

// lose kills the leader. It returns what the others use until a change has reached every replica,
// and the time of options.loss is over.
func (f *fleet) lose(ctx context.Context, r *fleetResult) (phase, error) {
	groups, err := f.groups(ctx)
	if err != nil {
		return nil, err
	}
	leader, followers := groups[0].asks[0], groups[1].asks
	if err := leader.Kill(); err != nil {
		return nil, err
	}
	begin := time.Now()
	f.catalog.client = followers[0].Client()
	return during(groups[1:], func() error {
		var times []time.Duration
		for err := f.change(ctx, &times); err != nil; err = f.change(ctx, &times) {
			if time.Since(begin) > setTimeout {
				return fmt.Errorf("no change after the loss of the leader: %w", err)
			}
			if err := wait(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
		r.lossTime = time.Since(begin)
		return wait(ctx, f.options.loss-r.lossTime)
	})
}

// rest does nothing for the time of options.idle. It returns what a second costs.
func (f *fleet) rest(ctx context.Context) (phase, error) {
	p, err := f.during(ctx, func() error { return wait(ctx, f.options.idle) })
	for name := range p {
		p[name] = time.Duration(float64(p[name]) / f.options.idle.Seconds())
	}
	return p, err
}

// changeAll makes the changes of options. It returns what one costs.
func (f *fleet) changeAll(ctx context.Context, times *[]time.Duration) (phase, error) {
	p, err := f.during(ctx, func() error {
		for range f.options.changes {
			if err := f.change(ctx, times); err != nil {
				return err
			}
			if err := wait(ctx, f.pause); err != nil {
				return err
			}
		}
		return nil
	})
	for name := range p {
		p[name] /= time.Duration(f.options.changes)
	}
	return p, err
}

// change makes one change. In turn an instance is added, one fails its check, passes it, and the
// added one is removed. With times, it waits until every replica has the set, and appends how long
// that took.
func (f *fleet) change(ctx context.Context, times *[]time.Duration) error {
	s := f.changed / 4 * 7919 % f.services
	serving, err := f.instances+1, error(nil)
	begin, took := time.Now(), time.Duration(0)
	switch f.changed % 4 {
	case 0, 2:
		i := f.instances
		if f.changed%4 == 2 {
			i = 0
		}
		err = f.catalog.register(s, i, api.HealthPassing)
	case 1:
		serving, err = f.instances, f.catalog.register(s, 0, api.HealthCritical)
	default:
		serving, err = f.instances, f.catalog.deregister(s, f.instances)
	}
	if err != nil {
		return err
	}
	f.changed++
	if times == nil {
		return nil
	}
	for n, w := range f.replicas {
		got, err := w.next(ctx, func(got set) bool { return got.service == serviceName(s) && got.serving == serving })
		if err != nil {
			return fmt.Errorf("replica %d: %w", n, err)
		}
		took = max(took, got.at.Sub(begin))
	}
	*times = append(*times, took)
	return nil
}

// during returns the CPU time that each process has used, while do runs.
func (f *fleet) during(ctx context.Context, do func() error) (phase, error) {
	groups, err := f.groups(ctx)
	if err != nil {
		return nil, err
	}
	return during(groups, do)
}

func during(groups []group, do func() error) (phase, error) {
	p := make(phase)
	for _, g := range groups {
		used, err := g.cpu()
		if err != nil {
			return nil, err
		}
		p[g.name] = -used
	}
	if err := do(); err != nil {
		return nil, err
	}
	for _, g := range groups {
		used, err := g.cpu()
		if err != nil {
			return nil, err
		}
		p[g.name] += used
	}
	return p, nil
}

// groups returns the processes by their roles. The first group is the leader, the second one its
// followers.
func (f *fleet) groups(ctx context.Context) ([]group, error) {
	leader, followers, err := f.cluster.leader(ctx)
	if err != nil {
		return nil, err
	}
	return []group{consulGroup("leader", leader), consulGroup("follower", followers...), consulGroup("agent", f.cluster.agents...), f.replicaGroup()}, nil
}

func (f *fleet) replicaGroup() group {
	g := group{name: "replica"}
	for _, w := range f.replicas {
		g.pids = append(g.pids, w.process.PID())
	}
	return g
}

func consulGroup(name string, agents ...*consultest.Agent) group {
	g := group{name: name, asks: agents}
	for _, a := range agents {
		g.pids = append(g.pids, a.Process().PID())
	}
	return g
}

// cpu returns the CPU time of a process of g.
func (g group) cpu() (time.Duration, error) {
	all := time.Duration(0)
	for _, pid := range g.pids {
		used, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		all += used
	}
	return all / time.Duration(max(1, len(g.pids))), nil
}

// read returns what a process of g has now.
func (g group) read() (r reading, err error) {
	n := float64(len(g.pids))
	for _, pid := range g.pids {
		bytes, err := residentBytes(pid)
		if err != nil {
			return r, err
		}
		open, err := sockets(pid)
		if err != nil {
			return r, err
		}
		r.resident += float64(bytes) / n
		r.sockets += float64(open) / n
	}
	for _, a := range g.asks {
		values, err := gauges(a)
		if err != nil {
			return r, err
		}
		r.goroutines += values["consul_runtime_num_goroutines"] / n
		r.blocking += values["consul_rpc_queries_blocking"] / n
		r.streams += values["consul_grpc_server_streams"] / n
	}
	return r, nil
}

// read returns what a process of each group has now.
func (f *fleet) read(ctx context.Context) (map[string]reading, error) {
	groups, err := f.groups(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[string]reading)
	for _, g := range groups {
		if all[g.name], err = g.read(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// used returns what all replicas have used together.
func (f *fleet) used() (all usage, err error) {
	for _, w := range f.replicas {
		u, err := w.used()
		if err != nil {
			return all, err
		}
		all.Queries += u.Queries
		all.Probes += u.Probes
		all.BytesReceived += u.BytesReceived
	}
	return all, nil
}
