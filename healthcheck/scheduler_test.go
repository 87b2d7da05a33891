package healthcheck

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

func TestSchedulerKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1)
		defer s.close()
		start := time.Now()
		var ran []int // task × 100 + seconds
		tasks := make([]*task, 10)
		for i := range tasks {
			tasks[i] = newTask(new(group), func(context.Context) time.Duration {
				ran = append(ran, i*100+int(time.Since(start)/time.Second))
				return time.Hour
			})
			s.schedule(tasks[i], time.Duration(10+i)*time.Second)
		}
		s.remove(tasks[3])
		s.remove(tasks[3])
		s.schedule(tasks[9], 5*time.Second)  // earlier
		s.schedule(tasks[8], 12*time.Second) // earlier, together with another
		s.schedule(tasks[0], time.Minute)    // not earlier: no change
		pass(30 * time.Second)
		want := []int{905, 10, 111, 212, 812, 414, 515, 616, 717}
		verify.That(t, slices.Equal(ran, want) || slices.Equal(ran, []int{905, 10, 111, 812, 212, 414, 515, 616, 717}), "ran %v, want %v", ran, want)
		running, overdue := s.load()
		verify.That(t, running == 0 && overdue == 0, "%d running, %d overdue", running, overdue)
	})
}

// A task that runs longer than its interval runs again when it has ended, not before.
func TestSchedulerRunsATaskOnceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(3)
		defer s.close()
		running, runs := 0, 0
		slow := newTask(new(group), func(context.Context) time.Duration {
			runs++
			if running++; running > 1 {
				t.Error("the task runs twice simultaneously")
			}
			time.Sleep(10 * time.Second)
			running--
			return time.Second
		})
		s.schedule(slow, 0)
		for range 100 {
			time.Sleep(time.Second)
			s.schedule(slow, 0) // also when it is waiting
		}
		synctest.Wait()
		verify.That(t, runs >= 9 && runs <= 11, "%d runs in 100 s, want 10", runs)
	})
}

// While all workers are busy, tasks wait in the order in which they were due.
func TestSchedulerRunsTheLongestOverdueFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1)
		defer s.close()
		var order []int
		for i := range 5 {
			s.schedule(newTask(new(group), func(context.Context) time.Duration {
				time.Sleep(10 * time.Second)
				order = append(order, i)
				return time.Hour
			}), time.Duration(5-i)*time.Second)
		}
		pass(5 * time.Second)
		running, overdue := s.load()
		verify.That(t, running == 1 && overdue == 3, "%d running, %d overdue after 5 s; want 1, 3 (one more is due just now)", running, overdue)
		pass(55 * time.Second)
		verify.Slices(t, order, []int{4, 3, 2, 1, 0}, "order")
	})
}

// With any durations, additions and removals of tasks, some of which wait for peers: no worker is
// free while a task may run, no group has more than half of the workers that others do not use, and
// the foreign ones have half of all together.
func TestSchedulerSharesWorkersAmongGroups(t *testing.T) {
	const limit = 32
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			s := newScheduler(limit)
			defer s.close()
			groups := make([]group, 6)
			for i := range groups { // more than one group
				groups[i].kind = i % 2 // own or foreign
				s.schedule(newTask(&groups[i], func(context.Context) time.Duration { return time.Hour }), 0)
			}
			var tasks []*task
			for range 200 {
				time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
				switch n := random.IntN(10); {
				case n < 7:
					g := random.IntN(len(groups))
					duration, pause := time.Duration(1+random.IntN(3+10*g))*time.Second, time.Duration(1+random.IntN(5))*time.Second
					waits := random.IntN(4) == 0
					var added *task
					added = newTask(&groups[g], func(context.Context) time.Duration {
						if waits {
							s.waits(added)
						}
						time.Sleep(duration)
						return pause
					})
					tasks = append(tasks, added)
					s.schedule(tasks[len(tasks)-1], time.Duration(random.IntN(3))*time.Second)
				case n < 9 && len(tasks) > 0:
					s.schedule(tasks[random.IntN(len(tasks))], 0)
				case len(tasks) > 0:
					i := random.IntN(len(tasks))
					s.remove(tasks[i])
					tasks = slices.Delete(tasks, i, i+1)
				}
				synctest.Wait()
				s.mu.Lock()
				running := 0
				for i := range groups {
					g := &groups[i]
					running += g.running
					verify.Require(t, s.groups <= 1 || g.running <= limit/2, "seed %d: group %d has %d of %d workers", seed, i, g.running, limit)
					left := free(g.kind, limit, s.busy)
					verify.Require(t, len(g.held) == 0 || g.running >= left && (s.groups != 1 || left <= 0), "seed %d: group %d has %d workers and waits, though %d are free", seed, i, g.running, left)
					verify.Require(t, (len(g.held) > 0) == slices.Contains(s.blocked, g), "seed %d: group %d waits with %d tasks: not as noted", seed, i, len(g.held))
				}
				verify.Require(t, running == s.busy[0]+s.busy[1] && running <= limit && s.busy[1] <= limit/2, "seed %d: the groups have %d workers, %v of %d are busy", seed, running, s.busy, limit)
				if len(s.waiting) > 0 && time.Now().After(s.waiting[0].due) {
					t.Fatalf("seed %d: a task is due since %v, and no group has it", seed, time.Since(s.waiting[0].due))
				}
				s.mu.Unlock()
			}
		})
	}
}
