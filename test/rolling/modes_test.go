//go:build unix

package rolling

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/observe/wake"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// mode is a kind of leaving or misbehaviour of instances.
type mode struct {
	traffic
	name      string
	instances int
	keep      int // number of instances that are not replaced
	settings  string
	check     time.Duration // timeout of Consul's check
	patient   bool          // with servicePatience
	// begin, if not nil, makes the instances misbehave until ctx ends.
	begin func(ctx context.Context, d *deploy) error
	// leave ends an instance, while a new one starts.
	leave func(a *app) error
}

// patientCheck is the timeout of Consul's check in modes without a hanging instance, above
// the delays of a busy machine.
const patientCheck = 10 * time.Second

// withPatience returns the mode for a second run with longer timeouts and a third of the
// requests, if the machine was so slow that the timeouts of working instances may have ended.
func (m mode) withPatience() mode {
	m.name += "-again"
	m.check = patientCheck
	m.patient = true
	m.perSecond /= 3
	if m.settings == hangSettings {
		m.settings = patientHangSettings
	}
	return m
}

// shortest returns the shortest timeout of working instances.
func (m mode) shortest() time.Duration {
	if m.patient {
		return m.check
	}
	return min(m.check, time.Second) // the default for opening a connection
}

func modes(with traffic) []mode {
	list := []mode{
		{name: "graceful", instances: 4, leave: leaveGracefully},
		{name: "stop", instances: 4, leave: leaveAtOnce},
		{name: "abrupt", instances: 4, leave: leaveAbruptly},
		{name: "crash", instances: 4, leave: crash},
		{name: "hang", instances: 4, settings: hangSettings, check: time.Second, leave: func(a *app) error {
			a.abandon()
			a.hang()
			return nil
		}},
		{
			name: "flap", instances: 4, keep: 1, leave: leaveGracefully,
			begin: func(ctx context.Context, d *deploy) error { return d.apps[0].flap(ctx) },
		},
		{
			name: "slow", instances: 10, keep: 10,
			begin: func(_ context.Context, d *deploy) error {
				d.apps[0].work.Store(int64(50 * work))
				return nil
			},
		},
	}
	for i := range list {
		list[i].traffic = with
		list[i].check = cmp.Or(list[i].check, patientCheck)
	}
	return list
}

// leaveGracefully deregisters, and serves until all replicas have noticed.
func leaveGracefully(a *app) error {
	err := a.deregister()
	time.Sleep(500 * time.Millisecond)
	a.stop()
	return err
}

// leaveAtOnce deregisters, and stops without waiting.
func leaveAtOnce(a *app) error {
	err := a.deregister()
	a.stop()
	return err
}

// leaveAbruptly dies, and is deregistered later.
func leaveAbruptly(a *app) error {
	a.die()
	time.Sleep(300 * time.Millisecond)
	return a.deregister()
}

// crash dies. Consul's check finds it.
func crash(a *app) error {
	a.abandon()
	a.die()
	return nil
}

type pace struct {
	replaced   int           // instances per mode, at most
	before     time.Duration // before the roll
	pause      time.Duration // after each replacement
	misbehaved time.Duration // the roll of a mode without replacements
}

const (
	work   = 10 * time.Millisecond  // of an instance on a request
	warmUp = 500 * time.Millisecond // of the load, not counted
	tail   = 700 * time.Millisecond // after the last replacement
)

// deploys is the number of deploys that have begun.
var deploys atomic.Int64

// deploy is a mode that runs.
type deploy struct {
	mode
	pace
	t      *testing.T
	consul *api.Client
	ledger *ledger
	direct string // address of an instance to which requests go without the gateway
	number int64  // of this deploy: no other one has instances with the same ids
	apps   []*app // the current ones
	all    []*app
}

type outcome struct {
	mode
	*ledger
	results              []result
	control              []result      // of requests to peers that never change
	before, rolled, over time.Time     // when the phases began
	replacements         []string      // ids of the new instances
	stall                time.Duration // the longest pause of this process
	direct               time.Duration // the longest duration of a request without the gateway
}

// start starts an instance without registering it.
func (d *deploy) start(ttl bool) *app {
	d.t.Helper()
	a := verify.Result(startApp(d.consul, d.ledger, d.peers, d.name, fmt.Sprintf("%s-%d-%d", d.name, d.number, len(d.all)+1), work)).Must(d.t)
	a.ttl, a.timeout = ttl, d.check
	d.all = append(d.all, a)
	return a
}

func (d *deploy) end() {
	for _, a := range d.all {
		var status api.StatusError
		err := a.deregister()
		verify.That(d.t, err == nil || errors.As(err, &status), "%v", err) // it is no longer registered
		if !wake.Closed(a.dead) {
			a.end()
		}
	}
}

func (d *deploy) run(g *runningGateway) outcome {
	t := d.t
	o := outcome{mode: d.mode, ledger: d.ledger}
	d.number = deploys.Add(1)
	defer d.end()
	for i := range d.instances {
		a := d.start(d.begin != nil && i == 0)
		verify.NoError(t, a.register())
		d.apps = append(d.apps, a)
	}
	consultest.Await(t, "the gateway has the instances", func() bool { return g.added.has(d.apps) })

	stall := watchStalls()
	l, control := startLoad(g.target(d.name), d.mix, d.perSecond), startLoad(g.target(controlService), plainMix, d.control)
	direct := startLoad(target{address: d.direct, host: controlService}, plainMix, d.control/3)
	stopLoad := sync.OnceFunc(func() {
		o.results, o.control = l.stop(), control.stop()
		for _, r := range direct.stop() {
			o.direct = max(o.direct, r.latency)
		}
	})
	defer stopLoad()
	time.Sleep(warmUp)
	o.before = time.Now()
	time.Sleep(d.before)
	o.rolled = time.Now()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var behind sync.WaitGroup
	if d.begin != nil {
		behind.Go(func() {
			verify.Succeeds(t, d.begin(ctx, d))
		})
	}
	o.replacements = d.roll()
	if d.keep == 0 {
		consultest.Await(t, "Consul has removed the old instances", func() bool { return d.passing() == d.instances })
	}
	time.Sleep(tail)
	if d.keep > 0 {
		time.Sleep(time.Until(o.rolled.Add(d.misbehaved)))
	}
	o.over = time.Now()
	cancel()
	behind.Wait()
	d.killHung()
	stopLoad()
	o.stall = stall()
	if unsent := l.unsent.Load(); unsent > 0 {
		t.Logf("%s: the machine had no time for %d requests: they were not sent", d.name, unsent)
	}
	return o
}

// roll replaces the instances, one after the other, and returns the ids of the
// new ones.
func (d *deploy) roll() (replacements []string) {
	for i := d.keep; i < min(d.instances, d.keep+d.replaced); i++ {
		d.apps[i] = d.replace(d.apps[i])
		replacements = append(replacements, d.apps[i].id)
		time.Sleep(d.pause)
	}
	return replacements
}

func (d *deploy) replace(old *app) (fresh *app) {
	fresh = d.start(false)
	var leaving sync.WaitGroup
	defer leaving.Wait()
	leaving.Go(func() {
		verify.Succeeds(d.t, d.leave(old))
	})
	verify.Succeeds(d.t, fresh.register())
	consultest.Await(d.t, fresh.id+" is used", func() bool { return !d.ledger.used(fresh.id).IsZero() })
	return fresh
}

// watchStalls measures pauses of this process until longest is called, which returns the
// longest one. Time in which the process used a processor does not count.
func watchStalls() (longest func() time.Duration) {
	stop, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		const every = 20 * time.Millisecond
		tick := time.NewTicker(every)
		defer tick.Stop()
		longest, last, lastUsed := time.Duration(0), time.Now(), cpuTime()
		for {
			select {
			case <-stop:
				result <- longest
				return
			case <-tick.C:
				now, used := time.Now(), cpuTime()
				if gap := now.Sub(last) - every; used-lastUsed < gap/2 {
					longest = max(longest, gap)
				}
				last, lastUsed = now, used
			}
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-result
	}
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // impossible with these arguments
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// passing returns the number of passing instances in Consul, or -1 without an answer.
func (d *deploy) passing() int {
	entries, _, err := d.consul.Health().Service(d.name, "", true, (&api.QueryOptions{}).WithContext(d.t.Context()))
	if err != nil {
		return -1
	}
	return len(entries)
}

func (d *deploy) killHung() {
	for _, a := range d.all {
		if wake.Closed(a.hung) && !wake.Closed(a.dead) {
			a.die()
		}
	}
}
