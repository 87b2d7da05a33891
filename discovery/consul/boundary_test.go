package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/consul"
	"sluice/discovery"
	"sluice/discovery/saved"
	"sluice/test/balancertest"
	"sluice/test/discoverytest"
	"sluice/test/long"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// Tests of what a watch must not forget when its state passes a boundary: to another process, a
// restart, another source, another name.

// edge is one process of sluice with one service: a client, a manager, a pool and a snapshot.
type edge struct {
	t       *testing.T
	name    string // of the service
	options ServiceOptions
	client  *testClient
	manager *discovery.Manager
	pool    *balancer.Pool
	store   *saved.Store
	log     *subprocess.Output
	stop    func()
	owns    bool
}

// startEdge starts a process whose service has a name. handed, if not nil, is from the process
// before, which has stopped.
func startEdge(t *testing.T, fake *discoverytest.Pipe, path, name string, o ServiceOptions, handed []byte) *edge {
	t.Helper()
	p := &edge{t: t, name: name, options: o, log: new(subprocess.Output), owns: true}
	log := zerolog.New(p.log).Level(zerolog.InfoLevel)
	p.client = verify.Result(newClient(consul.Options{Addresses: []string{"http://fake"}, Log: log, Dial: fake.DialContext})).Must(t)
	p.pool = balancer.NewPool("star", balancertest.Complete(balancer.Options{}))
	p.store = verify.Result(saved.Open(saved.Options{
		Path: path, States: func() map[string]discovery.WatchState { return p.manager.States() }, Log: log,
		Owner: func(f func()) bool {
			if p.owns {
				f()
			}
			return p.owns
		},
	})).Must(t)
	p.manager = discovery.NewManager(discovery.ManagerOptions{
		Log: log, Fallback: p.store.Get,
		Sink:     func(set discovery.Set) { p.pool.Apply(set.Instances) },
		Complete: func(_ string, set []discovery.Instance) []discovery.Instance { return p.pool.WithFailures(set) },
	})
	if handed != nil {
		var states map[string]discovery.WatchState
		verify.NoError(t, json.Unmarshal(handed, &states))
		p.manager.Restore(states)
	}
	p.manager.WatchAll(map[string]discovery.Source{name: p.client.Source(o)})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = p.manager.Run(ctx) })
	running.Go(func() { p.store.Run(ctx) })
	p.stop = func() {
		cancel()
		running.Wait()
		p.pool.Close()
		p.client.Close()
	}
	return p
}

// upgrade replaces p.
func (p *edge) upgrade(fake *discoverytest.Pipe, path string, meanwhile func()) *edge {
	p.manager.Pause()
	handed := verify.Result(json.Marshal(p.manager.Save())).Must(p.t)
	p.owns = false
	meanwhile()
	p.stop()
	return startEdge(p.t, fake, path, p.name, p.options, handed)
}

// used returns the ids of the instances that get requests.
func (p *edge) used() map[string]bool {
	used := make(map[string]bool)
	for _, peer := range p.pool.Snapshot().Eligible {
		used[peer.ID.ID] = true
	}
	return used
}

// model is what is true: which programs work, and what Consul has.
type model struct {
	t *testing.T
	*rand.Rand
	consul  *discoverytest.Consul
	pipe    *discoverytest.Pipe
	path    string
	process *edge
	options ServiceOptions

	working    map[string]bool // programs that nobody has stopped
	registered map[string]bool // in Consul
	failed     map[string]bool // on probation, and not registered since
	others     map[string]bool // last registered without the tag
	next       int
	index      uint64 // after the next loss
	away       bool
	renamed    int
	steps      []string
}

func (m *model) entries() []*api.ServiceEntry {
	entries := []*api.ServiceEntry{}
	for _, id := range slices.Sorted(maps.Keys(m.registered)) {
		var number int
		fmt.Sscanf(id, "app%d", &number)
		e := discoverytest.Instance("star", id, 8000+number)
		if !m.others[id] {
			e.Service.Tags = []string{"live"}
		}
		entries = append(entries, e)
		delete(m.failed, id)
	}
	return entries
}

// lost returns the working programs that Consul lacks.
func (m *model) lost() (ids []string) {
	for _, id := range slices.Sorted(maps.Keys(m.working)) {
		if !m.registered[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// meanwhile is nothing, or a loss while no process watches.
func (m *model) meanwhile() {
	if m.IntN(3) == 0 {
		m.lose()
	}
}

// lose makes Consul lose its state, or return to that of a backup.
func (m *model) lose() {
	for id := range m.registered {
		if m.IntN(2) == 0 {
			delete(m.registered, id)
		}
	}
	m.steps = append(m.steps, fmt.Sprintf("lose, left %v", slices.Sorted(maps.Keys(m.registered))))
	m.index /= 2
	m.consul.Break(discoverytest.Fault{Drop: true})
	time.Sleep(2 * time.Second)
	m.consul.Lose(m.index, "star", m.entries()...)
	if !m.away {
		m.consul.Heal()
	}
}

// step does something that may happen.
func (m *model) step() {
	note := func(format string, values ...any) { m.steps = append(m.steps, fmt.Sprintf(format, values...)) }
	switch m.IntN(11) {
	case 0:
		note("upgrade")
		m.process = m.process.upgrade(m.pipe, m.path, m.meanwhile)
	case 1:
		note("restart")
		m.process.stop()
		m.meanwhile()
		m.process = startEdge(m.t, m.pipe, m.path, m.process.name, m.options, nil)
	case 2:
		note("reload")
		m.process.manager.Watch(m.process.name, m.process.client.Source(m.options))
	case 3:
		m.renamed++
		before := m.process.name
		m.process.name = fmt.Sprint("name", m.renamed)
		note("rename to %s", m.process.name)
		m.process.manager.WatchAll(map[string]discovery.Source{m.process.name: m.process.client.Source(m.options)})
		m.process.manager.Unwatch(before)
	case 4:
		m.lose()
	case 5:
		if m.away = !m.away; m.away {
			note("Consul is away")
			m.consul.Break(discoverytest.Fault{Drop: true})
		} else {
			note("Consul is back")
			m.consul.Heal()
		}
	case 6: // a lost program registers again, or a new one, unless that would replace a lost one
		lost := m.lost()
		if len(lost) == 0 && m.away {
			break // no process would know it
		}
		if len(lost) == 0 {
			m.next++
			lost = []string{fmt.Sprint("app", m.next)}
		}
		id := lost[m.IntN(len(lost))]
		delete(m.others, id)
		note("%s registers", id)
		m.working[id], m.registered[id] = true, true
		m.consul.Set("star", m.entries()...)
	case 7: // a program ends, and is deregistered
		if ids := slices.Sorted(maps.Keys(m.registered)); len(m.others) == 0 && len(ids) > 1 && len(m.lost()) == 0 && !m.away {
			id := ids[m.IntN(len(ids))]
			note("%s ends", id)
			delete(m.registered, id)
			delete(m.working, id)
			m.consul.Set("star", m.entries()...)
		}
	case 9, 10: // a program is deployed anew, for others; there is one left
		ids := slices.Sorted(maps.Keys(m.working))
		if m.away || len(ids) < 2 {
			break
		}
		id := ids[m.IntN(len(ids))]
		if m.registered[id] && len(m.lost()) > 0 && m.IntN(2) == 0 {
			id = m.lost()[0]
		}
		note("%s registers for others, registered before: %t", id, m.registered[id])
		delete(m.working, id)
		m.others[id], m.registered[id] = true, true
		if m.IntN(3) == 0 {
			m.process.manager.Pause()
			m.consul.Set("star", m.entries()...)
			m.process.manager.Resume()
			break
		}
		m.consul.Set("star", m.entries()...)
	case 8: // one that Consul has lost dies: its first request fails
		for _, peer := range m.process.pool.Snapshot().Eligible {
			if id := peer.ID.ID; !peer.Instance().Probation.IsZero() && !m.registered[id] && m.IntN(2) == 0 {
				note("%s fails", id)
				delete(m.working, id)
				m.failed[id] = true
				m.process.pool.SetReasons(balancer.ReasonEjected, balancer.Verdict{Peer: peer, Down: true, Why: "no connection"})
				m.process.pool.SetReasons(balancer.ReasonEjected, balancer.Verdict{Peer: peer})
				break
			}
		}
	}
}

func (m *model) check() {
	m.t.Helper()
	used := m.process.used()
	require := func(holds bool, id, what string) {
		m.t.Helper()
		verify.Require(m.t, holds, "%s %s; used %v, %+v\nsteps:\n%s\nlog:\n%s", id, what, used,
			m.process.manager.Statuses(), strings.Join(m.steps, "\n"), m.process.log)
	}
	for id := range m.working { // one that has registered meanwhile is not known yet
		require(used[id] || m.away && m.registered[id], id, "works, and gets no requests")
	}
	for id := range m.others {
		require(!used[id] || !m.registered[id] || m.away, id, "is there without the tag, and gets requests")
	}
	for id := range m.failed {
		require(!used[id], id, "has failed, and gets requests")
	}
}

// Whatever happens in whatever order: no program that works leaves, none that has failed comes
// back, and none is used that Consul has without the tag. SLUICE_SEED repeats a seed.
func TestNoBoundaryForgetsInstances(t *testing.T) {
	t.Parallel()
	first := verify.Seed(t)
	for n := range long.Count(t, uint64(4), 12) {
		t.Run(fmt.Sprint("seed ", first+n), func(t *testing.T) { runModel(t, first+n) })
	}
}

func runModel(t *testing.T, seed uint64) {
	path := filepath.Join(t.TempDir(), "snapshot.json")
	synctest.Test(t, func(t *testing.T) {
		o := ServiceOptions{Service: "star", Probation: 24 * time.Hour, Tags: []string{"live"}}
		m := &model{
			t: t, Rand: rand.New(rand.NewPCG(seed, 0)), consul: discoverytest.New(), path: path, options: o, index: 1 << 60,
			working: map[string]bool{"app1": true, "app2": true, "app3": true}, registered: map[string]bool{"app1": true, "app2": true, "app3": true},
			failed: make(map[string]bool), others: make(map[string]bool), next: 3,
		}
		m.pipe = discoverytest.ServePipe(m.consul)
		defer m.pipe.Close()
		m.consul.Lose(m.index, "star", m.entries()...)
		m.process = startEdge(t, m.pipe, path, "star", o, nil)
		defer func() { m.process.stop() }()
		settle := func() {
			time.Sleep(3*time.Second + time.Duration(m.IntN(12))*time.Second)
			synctest.Wait()
		}
		settle()
		m.check()
		for range 60 {
			m.step()
			settle()
			m.check()
		}
	})
}
