//go:build unix

package rolling

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consultest"
)

// mode is a way in which instances leave or misbehave.
type mode struct {
	name      string
	instances int
	keep      int // the first ones that are not replaced
	settings  string
	check     time.Duration // what Consul's check waits for an answer
	// begin, if not nil, makes the instances misbehave until ctx ends.
	begin func(ctx context.Context, d *deploy) error
	// leave ends an instance, while a new one starts.
	leave func(a *app) error
}

// patientCheck is what Consul's check waits for an answer where nobody hangs: no
// busy machine makes it late.
const patientCheck = 10 * time.Second

// again returns the mode for a second try, on a machine that was so slow that
// Consul took instances that did work for ones that hang: the check has patience.
func (m mode) again() mode {
	m.name += "-again"
	m.check = patientCheck
	return m
}

func modes() []mode {
	list := []mode{
		{name: "graceful", instances: 4, leave: leaveGracefully},
		{name: "stop", instances: 4, leave: func(a *app) error {
			err := a.deregister()
			a.stop()
			return err
		}},
		{name: "abrupt", instances: 4, leave: func(a *app) error {
			a.die()
			time.Sleep(300 * time.Millisecond)
			return a.deregister()
		}},
		{name: "crash", instances: 4, leave: func(a *app) error {
			a.abandon()
			a.die()
			return nil
		}},
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
		list[i].check = cmp.Or(list[i].check, patientCheck)
	}
	return list
}

// leaveGracefully deregisters and goes on serving until everybody must have
// noticed.
func leaveGracefully(a *app) error {
	err := a.deregister()
	time.Sleep(500 * time.Millisecond)
	a.stop()
	return err
}

// pace is how long things take.
type pace struct {
	replaced   int           // instances per mode, at most
	calm       time.Duration // before the roll
	pause      time.Duration // after each replacement
	misbehaved time.Duration // roll of a mode in which nothing is replaced
}

const (
	perSecond        = 300                    // requests in all
	controlPerSecond = 60                     // requests to peers that never change
	directPerSecond  = 20                     // requests to one of those without the gateway
	work             = 10 * time.Millisecond  // that an instance spends on a request
	warmUp           = 500 * time.Millisecond // of the load, not counted
	tail             = 700 * time.Millisecond // after the last replacement
)

// deploy is a mode that runs.
type deploy struct {
	mode
	pace
	t      *testing.T
	consul *api.Client
	ledger *ledger
	direct string // address of an instance to which requests go without the gateway
	apps   []*app // the current ones
	all    []*app
}

// outcome is what came of a mode.
type outcome struct {
	mode
	*ledger
	results            []result
	control            []result      // of requests to peers that never change
	calm, rolled, over time.Time     // when the phases began
	replacements       []string      // ids of the new instances
	stall              time.Duration // the longest time that this process did not run
	direct             time.Duration // the longest time that a request took without the gateway
}

// start starts an instance without registering it.
func (d *deploy) start(ttl bool) *app {
	d.t.Helper()
	a, err := startApp(d.consul, d.ledger, d.name, fmt.Sprintf("%s-%d", d.name, len(d.all)+1), work)
	if err != nil {
		d.t.Fatal(err)
	}
	a.ttl, a.timeout = ttl, d.check
	d.all = append(d.all, a)
	return a
}

// end removes whatever is left.
func (d *deploy) end() {
	for _, a := range d.all {
		var status api.StatusError
		if err := a.deregister(); err != nil && !errors.As(err, &status) { // it is no longer registered
			d.t.Error(err)
		}
		if !a.isClosed(a.dead) {
			a.reset()
		}
	}
}

// run runs the mode against the gateway at an address that routes by host.
func (d *deploy) run(address string, ready func(service string) int) outcome {
	t := d.t
	o := outcome{mode: d.mode, ledger: d.ledger}
	defer d.end()
	for i := range d.instances {
		a := d.start(d.begin != nil && i == 0)
		if err := a.register(); err != nil {
			t.Fatal(err)
		}
		d.apps = append(d.apps, a)
	}
	consultest.Await(t, "the gateway knows the instances", func() bool { return ready(d.name) == d.instances })

	stall := watchStalls()
	l, control := startLoad(address, d.name, perSecond), startLoad(address, controlService, controlPerSecond)
	direct := startLoad(d.direct, controlService, directPerSecond)
	stopLoad := sync.OnceFunc(func() {
		o.results, o.control = l.stop(), control.stop()
		for _, r := range direct.stop() {
			o.direct = max(o.direct, r.latency)
		}
	})
	defer stopLoad()
	time.Sleep(warmUp)
	o.calm = time.Now()
	time.Sleep(d.calm)
	o.rolled = time.Now()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var behind sync.WaitGroup
	if d.begin != nil {
		behind.Go(func() {
			if err := d.begin(ctx, d); err != nil {
				t.Error(err)
			}
		})
	}
	o.replacements = d.roll()
	if d.keep == 0 {
		consultest.Await(t, "Consul knows who has gone", func() bool { return d.passing() == d.instances })
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
	for _, old := range d.apps[d.keep:min(d.instances, d.keep+d.replaced)] {
		replacements = append(replacements, d.replace(old))
		time.Sleep(d.pause)
	}
	return replacements
}

// replace has a new instance take the place of an old one, and returns its id.
func (d *deploy) replace(old *app) (id string) {
	fresh := d.start(false)
	var leaving sync.WaitGroup
	defer leaving.Wait()
	leaving.Go(func() {
		if err := d.leave(old); err != nil {
			d.t.Error(err)
		}
	})
	if err := fresh.register(); err != nil {
		d.t.Error(err)
	}
	consultest.Await(d.t, fresh.id+" is used", func() bool { return !d.ledger.used(fresh.id).IsZero() })
	return fresh.id
}

// watchStalls watches for times in which nothing in this process runs, until
// longest is called: then it returns the longest one. Times in which the process
// used a processor do not count: they are not the machine's doing.
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

// cpuTime returns the processor time that this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // not for these arguments
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// passing returns how many instances Consul takes for good ones, or -1 if it
// does not say.
func (d *deploy) passing() int {
	entries, _, err := d.consul.Health().Service(d.name, "", true, (&api.QueryOptions{}).WithContext(d.t.Context()))
	if err != nil {
		return -1
	}
	return len(entries)
}

// killHung ends the instances that hang, as somebody will in the end, so that
// the requests which hang with them end.
func (d *deploy) killHung() {
	for _, a := range d.all {
		if a.isClosed(a.hung) {
			a.die()
		}
	}
}
