//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"sluice/bench/machine"
	"sluice/test/subprocess"
)

// patience limits waits, far above the usual durations.
const patience = time.Minute

// stage is one scenario of one rival: its processes, the instances behind it, and
// the load on it.
type stage struct {
	*cluster
	instances []*instance // running instances, without those that have left
	relay     *relay      // between the rival and Consul; nil: none
	load      *load

	started   int // instances so far
	farewell  time.Duration
	dir       string
	processes []program
	all       []*instance // that were started

	begin     time.Time       // requests count from then on
	events    []time.Time     // times of events of instances or of Consul
	joins     []time.Duration // from the registration of an instance to its first answer
	recovered bool            // all instances answered at the end
}

// program is a process of the rival.
type program struct {
	*subprocess.Process
	output *subprocess.Tail
}

// newStage starts instances, the rival and the load, and waits until all instances answer.
// The caller calls close.
func newStage(ctx context.Context, c *cluster, e entry, s scenario) (_ *stage, err error) {
	st := &stage{cluster: c, farewell: s.farewell}
	defer func() {
		if err != nil {
			_, _ = st.close() // the other error is returned
		}
	}()
	if st.dir, err = os.MkdirTemp("", "sluice-rivals-"); err != nil {
		return nil, err
	}
	if err := c.ensure(ctx); err != nil {
		return nil, fmt.Errorf("start Consul again: %w", err)
	}
	for range s.instances {
		if _, err := st.start(ctx); err != nil {
			return nil, err
		}
	}
	address := c.address()
	if s.counted {
		if st.relay, err = startRelay(address); err != nil {
			return nil, err
		}
		address = st.relay.address()
	}
	listen, err := machine.FreeAddresses(2)
	if err != nil {
		return nil, err
	}
	if err := st.startRival(e, settings{
		Dir: st.dir, Root: os.Geteuid() == 0, Listen: listen[0], Admin: listen[1], Nginx: machine.Program("nginx"), Consul: address,
	}); err != nil {
		return nil, err
	}
	st.load = startLoad("http://" + listen[0] + "/")
	recovered, err := st.awaitAnswers(ctx, patience)
	if err != nil {
		return nil, err
	}
	if !recovered {
		return nil, fmt.Errorf("does not serve all %d instances within %v\n%s", len(st.instances), patience, st.output())
	}
	st.begin = time.Now()
	return st, nil
}

func (st *stage) startRival(e entry, s settings) error {
	if err := writeConf(s); err != nil {
		return err
	}
	for _, c := range e.commands(s) {
		output := subprocess.NewTail(4 << 10)
		p, err := subprocess.Start(subprocess.Options{
			Program: c.args[0], Args: c.args[1:], Dir: s.Dir, Output: output, DeathSignal: c.death,
		})
		if err != nil {
			return err
		}
		st.processes = append(st.processes, program{p, output})
	}
	return nil
}

// output returns the last output of the programs of the rival.
func (st *stage) output() string {
	var text string
	for _, p := range st.processes {
		text += p.output.String() + "\n"
	}
	return text
}

// start starts one more instance, which registers itself.
func (st *stage) start(ctx context.Context) (*instance, error) {
	st.started++
	i, err := startInstance(ctx, fmt.Sprintf("%s-%d", service, st.started), st.agent.HTTPAddress(), st.farewell)
	if err != nil {
		return nil, err
	}
	st.all = append(st.all, i)
	st.instances = append(st.instances, i)
	return i, nil
}

// lose removes the first instance from instances.
func (st *stage) lose() *instance {
	i := st.instances[0]
	st.instances = st.instances[1:]
	return i
}

// event records an event at the present time.
func (st *stage) event() { st.events = append(st.events, time.Now()) }

// awaitAnswers waits until all running instances have answered within a second without
// failures, and reports whether that happened before the limit.
func (st *stage) awaitAnswers(ctx context.Context, limit time.Duration) (bool, error) {
	const quiet = time.Second
	for begin := time.Now(); time.Since(begin) < limit; {
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return false, err
		}
		for _, p := range st.processes {
			select {
			case <-p.Exited():
				return false, fmt.Errorf("ended by itself: %v\n%s", p.Err(), p.output)
			default:
			}
		}
		if since := time.Now().Add(-quiet); since.After(begin) && st.load.allAnswer(since, st.instances) {
			return true, nil
		}
	}
	return false, nil
}

// close ends all processes of the stage, removes their registrations, and returns the results
// of all requests.
func (st *stage) close() (samples []sample, err error) {
	var errs []error
	if st.load != nil {
		samples = st.load.stop()
	}
	for n := len(st.processes) - 1; n >= 0; n-- {
		errs = append(errs, st.processes[n].Stop())
	}
	if st.relay != nil {
		st.relay.close()
	}
	for _, i := range st.all {
		errs = append(errs, i.process.Kill())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if st.agent.Process() != nil && st.server.Process() != nil {
		errs = append(errs, st.clear(ctx))
	} // else the scenario was broken off, and Consul ends too
	return samples, errors.Join(append(errs, os.RemoveAll(st.dir))...)
}
