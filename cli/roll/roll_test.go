package roll

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/admin"
	"sluice/operator"
	"sluice/test/verify"
)

func TestEachInstanceInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.left["star-2"] = 10
		err := w.roll(t.Context(), w.options(nil), Progress{})
		verify.That(t, err == nil, "the roll: %v", err)
		verify.That(t, !w.empty, "once nobody got requests")
		var want []string
		for _, id := range []string{"star-1", "star-2", "star-3"} {
			want = append(want, "drained "+id, "ran "+id, "returned "+id, "judged "+id)
		}
		verify.That(t, slices.Equal(w.steps, want), "steps %v", w.steps)
		verify.That(t, len(w.drained()) == 0, "still drained: %v", w.drained())
	})
}

// What the command has done, and how the roll of star-1 of three ends.
func TestVerdicts(t *testing.T) {
	later := func(w *world, after time.Duration, f func(p *admin.Peer)) {
		time.AfterFunc(after, func() { w.change("star-1", f) })
	}
	critical := func(p *admin.Peer) { p.Status = "critical" }
	passing := func(p *admin.Peer) { p.Status = "passing" }
	for name, test := range map[string]struct {
		command func(w *world) // nil: it fails
		stopped string         // a part of the error; "": the roll goes on
		drained bool
	}{
		"the command fails":                        {nil, "no such version", false},
		"the app never comes back":                 {func(w *world) { w.change("star-1", critical) }, "Consul has it critical, 1m0s after", false},
		"the app hangs, which a check finds later": {func(w *world) { later(w, 2*time.Second, critical) }, "Consul has it critical", false},
		"the app flaps before it is well": {func(w *world) {
			for s := time.Second; s < 20*time.Second; s += 2 * time.Second {
				later(w, s, critical)
				later(w, s+time.Second, passing)
			}
		}, "", false},
		"the app is away for a while": {func(w *world) {
			w.change("star-1", critical)
			later(w, 20*time.Second, passing)
		}, "", false},
		"the app crashes while Consul is away": {func(w *world) {
			w.locked(func() { w.stale = "what sluice knows is stale" })
			time.AfterFunc(20*time.Second, func() {
				w.change("star-1", critical)
				w.locked(func() { w.stale = "" })
			})
		}, "Consul has it critical", false},
		"the app is gone": {func(w *world) { w.locked(func() { w.peers = w.peers[1:] }) }, "it is not registered", false},
		"the app comes back on another port": {func(w *world) {
			w.change("star-1", func(p *admin.Peer) { p.Address, p.Orders = "10.0.0.1:81", nil })
		}, "", false},
		"the app comes back with another id": {func(w *world) {
			w.change("star-1", func(p *admin.Peer) { p.ID, p.Orders = "star-81", nil })
		}, "", false},
		"the new version fails more often": {func(w *world) { w.rate["star-1"] = 0.2 }, "worse than the others: ", true},
		"all fail alike": {func(w *world) {
			w.rate = map[string]float64{"star-1": 0.2, "star-2": 0.2, "star-3": 0.2}
		}, "", false},
		"the new version is ejected": {func(w *world) {
			later(w, 4*time.Second, func(p *admin.Peer) { p.State, p.Reasons = "ejected", []string{"3 failures"} })
		}, "worse than the others: it was ejected: [3 failures]", true},
		"the new version is away for a moment": {func(w *world) {
			one := w.peers[0]
			one.Orders, one.Used = nil, true
			time.AfterFunc(4*time.Second, func() { w.locked(func() { w.peers = w.peers[1:] }) })
			time.AfterFunc(6*time.Second, func() { w.locked(func() { w.peers = append([]admin.Peer{one}, w.peers...) }) })
		}, "", false},
		"the new version is slow": {func(w *world) {
			w.change("star-1", func(p *admin.Peer) { p.LatencyMS = 30 })
		}, "worse than the others: its requests take 30 ms, those of the slowest other 10 ms", true},
		"the new version is slow while it is cold": {func(w *world) {
			w.change("star-1", func(p *admin.Peer) { p.LatencyMS = 30 })
			later(w, 30*time.Second, func(p *admin.Peer) { p.LatencyMS = 12 })
		}, "", false},
		"the new version is slower, by less than the network": {func(w *world) {
			w.change("star-1", func(p *admin.Peer) { p.LatencyMS = 14 })
			w.change("star-2", func(p *admin.Peer) { p.LatencyMS = 9 })
			w.change("star-3", func(p *admin.Peer) { p.LatencyMS = 9 })
		}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3)
				err := w.roll(t.Context(), w.options(func(id string) error {
					switch {
					case id != "star-1":
					case test.command == nil:
						return errDeploy
					default:
						test.command(w)
					}
					return nil
				}), Progress{})
				if test.stopped == "" {
					verify.That(t, err == nil && len(w.done()) == 3, "the roll: %v, done %v", err, w.done())
					verify.That(t, len(w.drained()) == 0, "still drained: %v", w.drained())
					return
				}
				verify.That(t, err != nil && strings.Contains(err.Error(), test.stopped), "the roll: %v", err)
				verify.That(t, len(w.done()) == 0, "done: %v", w.done())
				verify.That(t, slices.Equal(w.drained(), []string{"star-1"}) == test.drained, "drained: %v", w.drained())
			})
		})
	}
}

// Ctrl-C at any time: the drain ends, and a roll that continues this one rolls the rest.
func TestInterruptedAtAnyTime(t *testing.T) {
	for at := time.Duration(0); at < 60*time.Second; at += 700 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3)
			w.left["star-1"], w.left["star-2"] = 5, 20
			ran := make(map[string]int)
			o := w.options(func(id string) error {
				ran[id]++
				time.Sleep(2 * time.Second)
				return nil
			})
			ctx, interrupt := context.WithCancelCause(t.Context())
			time.AfterFunc(at, func() { interrupt(errors.New("interrupted")) })
			err := w.roll(ctx, o, Progress{})
			verify.That(t, len(w.drained()) == 0, "after %v: still drained: %v", at, w.drained())
			if err == nil {
				verify.That(t, len(w.done()) == 3, "after %v: done %v", at, w.done())
				return
			}
			verify.That(t, strings.Contains(err.Error(), "interrupted"), "after %v: %v", at, err)
			var before Progress
			if len(w.saved) > 0 {
				before = w.saved[len(w.saved)-1]
			}
			done := len(before.Done)
			err = w.roll(t.Context(), o, before)
			verify.That(t, err == nil && len(w.done()) == 3, "after %v, again: %v, done %v", at, err, w.done())
			for n, i := range before.Done {
				verify.That(t, ran[i.ID] == 1, "after %v: done %d of %d: the command of %s has run %d times", at, n, done, i.ID, ran[i.ID])
			}
			verify.That(t, !w.empty, "after %v: once nobody got requests", at)
		})
	}
}

func TestCommandThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		o := w.options(nil)
		o.Run = func(ctx context.Context, _ []string) error { <-ctx.Done(); return context.Cause(ctx) }
		err := w.roll(t.Context(), o, Progress{})
		verify.That(t, err != nil && strings.Contains(err.Error(), "the command has not ended within 1m0s"), "the roll: %v", err)
		verify.That(t, len(w.drained()) == 0, "still drained: %v", w.drained())
	})
}

func TestRequestThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.left["star-1"] = 1 << 30
		err := w.roll(t.Context(), w.options(nil), Progress{})
		verify.That(t, err != nil && strings.Contains(err.Error(), "it still has 1 in flight after 1m0s"), "the roll: %v", err)
		verify.That(t, len(w.drained()) == 0 && !slices.Contains(w.steps, "ran star-1"), "drained %v, steps %v", w.drained(), w.steps)
	})
}

func TestServiceIsNotEmptied(t *testing.T) {
	for name, test := range map[string]struct {
		instances, parallel int
		force, ok           bool
	}{
		"one instance": {1, 1, false, false}, "one by force": {1, 1, true, true}, "all at a time": {3, 3, false, false}, "all but one": {3, 2, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, test.instances)
				o := w.options(nil)
				o.Parallel, o.Force = test.parallel, test.force
				err := w.roll(t.Context(), o, Progress{})
				verify.That(t, test.ok == (err == nil) && (test.ok || errors.Is(err, errNobodyLeft)), "the roll: %v", err)
				verify.That(t, w.empty == test.force, "nobody got requests: %v", w.empty)
			})
		})
	}
}

func TestDrainThatSomebodyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.left["star-1"] = 10
		time.AfterFunc(time.Second, func() { w.change("star-1", func(p *admin.Peer) { p.Orders = nil }) })
		err := w.roll(t.Context(), w.options(nil), Progress{})
		verify.That(t, err != nil && strings.Contains(err.Error(), "somebody has ended its drain"), "the roll: %v", err)
		verify.That(t, len(w.steps) > 0 && !slices.Contains(w.steps, "ran star-1"), "steps %v", w.steps)
	})
}

// What gets no requests can be deployed although the service has nothing else.
func TestOnlyInstanceIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.change("star-1", func(p *admin.Peer) { p.Status = "critical" })
		err := w.roll(t.Context(), w.options(func(string) error {
			w.change("star-1", func(p *admin.Peer) { p.Status = "passing" })
			return nil
		}), Progress{})
		verify.That(t, err == nil && len(w.done()) == 1, "the roll: %v, done %v", err, w.done())
	})
}

func TestReplicasMustAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.why = "the instances differ"
		err := w.roll(t.Context(), w.options(nil), Progress{})
		verify.That(t, err != nil && err.Error() == "the replicas do not agree: the instances differ" && len(w.steps) == 0, "the roll: %v, steps %v", err, w.steps)
	})
}

// A drain that an operator has ordered is not the roll's to end.
func TestDrainOfAnOperatorStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.change("star-2", func(p *admin.Peer) { p.Orders = []operator.Order{{Kind: operator.Drain, Why: "new disk"}} })
		err := w.roll(t.Context(), w.options(nil), Progress{})
		verify.That(t, err == nil && len(w.done()) == 3, "the roll: %v, done %v", err, w.done())
		verify.That(t, slices.Equal(w.drained(), []string{"star-2"}) && w.steps[0] == "drained star-2", "drained %v, steps %v", w.drained(), w.steps)

		// One of a roll that has died is.
		before := w.saved[len(w.saved)-1]
		before.Done, before.Present = before.Done[1:], []Instance{InstanceOf(w.peers[1])}
		err = w.roll(t.Context(), w.options(nil), before)
		verify.That(t, err == nil && len(w.drained()) == 0, "the roll: %v, drained %v", err, w.drained())
	})
}
