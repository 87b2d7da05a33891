//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// scenario is a sequence of events of instances or of Consul under load.
type scenario struct {
	name, title string
	instances   int           // at its beginning
	farewell    time.Duration // how long leaving instances serve
	counted     bool          // queries to Consul are counted
	play        func(context.Context, *stage) error
}

const (
	joins    = 10               // instances that join and leave
	joinBy   = 15 * time.Second // limit for the first use of a new instance
	losses   = 3                // instances that leave or die, one after the other
	restarts = 3                // of the agent
	recovery = 20 * time.Second // time for the recovery after the last event
)

var scenarios = []scenario{
	{
		name: "join", title: "An instance registers, ten times",
		instances: 4, farewell: 2 * time.Second, counted: true, play: playJoin,
	},
	{
		name: "leave", title: "Three of five instances deregister, one after the other, and each stops 1 s later",
		instances: 5, farewell: time.Second, play: playLosses((*instance).requestLeave),
	},
	{
		name: "stop", title: "Three of five instances deregister and close at the same moment",
		instances: 5, play: playLosses((*instance).requestLeave),
	},
	{
		name: "kill", title: "Three of five instances are killed (SIGKILL), 2 s apart",
		instances: 5, play: playLosses(func(i *instance) error { return i.process.Kill() }),
	},
	{
		name: "hang", title: "One of four instances hangs for 7 s (SIGSTOP)",
		instances: 4, play: playHang,
	},
	{
		name: "restart", title: "The Consul agent is killed, and started again 1 s later with its data; three times",
		instances: 4, play: playRestart,
	},
	{
		name: "empty", title: "The Consul agent is killed, and started again without data; the instances register again 5 s later",
		instances: 4, play: playEmpty,
	},
	{
		name: "away", title: "The Consul agent is away for 15 s; after 5 s one of four instances is killed",
		instances: 4, play: playAway,
	},
	{
		name: "leaderless", title: "Consul has no leader for 10 s: its server is killed, the agent runs",
		instances: 4, play: playLeaderless,
	},
}

// selectScenarios reads a comma-separated list of names.
func selectScenarios(list string) ([]scenario, error) {
	if list == "all" {
		return scenarios, nil
	}
	var selected []scenario
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("unknown scenario %q; -list shows what there is", name)
		}
		selected = append(selected, scenarios[i])
	}
	return selected, nil
}

// playJoin starts instances, each of which leaves after its first use.
func playJoin(ctx context.Context, st *stage) error {
	for range joins {
		// Vary the time relative to the interval of rivals that poll.
		if err := wait(ctx, 300*time.Millisecond+rand.N(time.Second)); err != nil {
			return err
		}
		i, err := st.start(ctx)
		if err != nil {
			return err
		}
		for st.load.firstAnswer(i.id).IsZero() {
			if time.Since(i.registeredAt) > joinBy {
				return fmt.Errorf("an instance is not used within %v\n%s", joinBy, st.output())
			}
			if err := wait(ctx, 5*time.Millisecond); err != nil {
				return err
			}
		}
		st.joins = append(st.joins, st.load.firstAnswer(i.id).Sub(i.registeredAt))
		st.instances = st.instances[:len(st.instances)-1]
		st.event()
		if err := i.requestLeave(); err != nil {
			return err
		}
	}
	return st.awaitRecovery(ctx)
}

// playLosses ends instances, one after the other.
func playLosses(lose func(*instance) error) func(context.Context, *stage) error {
	return func(ctx context.Context, st *stage) error {
		for range losses {
			if err := wait(ctx, 2*time.Second); err != nil {
				return err
			}
			st.event()
			if err := lose(st.lose()); err != nil {
				return err
			}
		}
		return st.awaitRecovery(ctx)
	}
}

func playHang(ctx context.Context, st *stage) error {
	i := st.lose()
	st.event()
	if err := i.process.Pause(); err != nil {
		return err
	}
	if err := wait(ctx, 7*time.Second); err != nil {
		return err
	}
	st.event()
	if err := i.process.Resume(); err != nil {
		return err
	}
	st.instances = append(st.instances, i)
	return st.awaitRecovery(ctx)
}

func playRestart(ctx context.Context, st *stage) error {
	for range restarts {
		st.event()
		if err := st.agent.Kill(); err != nil {
			return err
		}
		if err := wait(ctx, time.Second); err != nil {
			return err
		}
		if err := st.agent.Launch(ctx); err != nil {
			return err
		}
		if err := st.awaitRecovery(ctx); err != nil {
			return err
		}
	}
	return nil
}

func playEmpty(ctx context.Context, st *stage) error {
	st.event()
	if err := st.agent.Kill(); err != nil {
		return err
	}
	if err := st.agent.Wipe(); err != nil {
		return err
	}
	if err := st.agent.Launch(ctx); err != nil {
		return err
	}
	if err := wait(ctx, 5*time.Second); err != nil {
		return err
	}
	for _, i := range st.instances {
		if err := i.registerAgain(ctx); err != nil {
			return err
		}
	}
	return st.awaitRecovery(ctx)
}

func playAway(ctx context.Context, st *stage) error {
	st.event()
	if err := st.agent.Kill(); err != nil {
		return err
	}
	if err := wait(ctx, 5*time.Second); err != nil {
		return err
	}
	st.event()
	if err := st.lose().process.Kill(); err != nil {
		return err
	}
	if err := wait(ctx, 10*time.Second); err != nil {
		return err
	}
	st.event()
	if err := st.agent.Launch(ctx); err != nil {
		return err
	}
	return st.awaitRecovery(ctx)
}

func playLeaderless(ctx context.Context, st *stage) error {
	st.event()
	if err := st.server.Kill(); err != nil {
		return err
	}
	if err := wait(ctx, 10*time.Second); err != nil {
		return err
	}
	st.event()
	if err := st.server.Launch(ctx); err != nil {
		return err
	}
	return st.awaitRecovery(ctx)
}

// awaitRecovery waits until all instances answer, at least for two seconds.
func (st *stage) awaitRecovery(ctx context.Context) (err error) {
	if err := wait(ctx, 2*time.Second); err != nil {
		return err
	}
	st.recovered, err = st.awaitAnswers(ctx, recovery)
	return err
}
