package healthcheck

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"sluice/observe/panics"
	"sluice/observe/wake"
)

// scheduler runs tasks when they are due, on a bounded number of workers. While all are
// busy, due tasks wait; the longest waiting is next. It is safe for concurrent use.
//
// Tasks belong to groups. If there are several, a group gets no further worker while it
// has as many as are free: a group whose tasks all hang has half of the workers, a
// second one half of the rest, and so on (A. Choudhury, E. Hahne, "Dynamic Queue Length
// Thresholds for Shared-Memory Packet Switches", IEEE/ACM ToN 6(2), 1998). All foreign
// groups together have at most half of the workers.
//
// A run that waits for its peer gives its worker back; see waits.
type scheduler struct {
	limit int // of workers

	ctx   context.Context // ends when the scheduler is closed
	stop  context.CancelFunc
	wake  wake.One       // the first task changed
	ended sync.WaitGroup // what runs until then: dispatch, tasks, and what follows each pool

	mu      sync.Mutex // guards the fields below, and the fields of tasks and groups
	waiting agenda
	tasks   int      // ever scheduled
	groups  int      // with members
	blocked []*group // with tasks in held
	busy    [2]int   // workers by kind of their groups
	await   [2]int   // runs that wait for their peers, by kind
	keeping []*task  // that wait for their peers on a worker, because too many others wait
}

// awaitPerWorker, times the number of workers, is how many runs may wait for their peers. Each has
// a goroutine and a connection.
const awaitPerWorker = 8

// group is a set of tasks that shares workers with other groups.
type group struct {
	members int    // tasks that are scheduled or run
	running int    // on workers
	held    agenda // due tasks that wait because of the group's share of workers
	kind    int
}

// Kinds of groups. A foreign one is of others than the operator, who say how many there are, and
// how long their tasks run.
const (
	own = iota
	foreign
)

// task runs again and again.
type task struct {
	// run returns the time until the next run. It must return soon after ctx ends.
	// Runs do not overlap.
	run   func(ctx context.Context) time.Duration
	group *group

	due       time.Time
	number    int  // in the order of the first schedule, from 1
	position  int  // in the agenda, or one of the constants below
	kind      int  // while it runs: that of its group when it began
	awaits    bool // while it runs: it has no worker
	held      bool // in the agenda of the group
	member    bool // of the group
	cancelled bool // while it runs
}

// Positions of a task in no agenda.
const (
	away    = -1 // not scheduled
	running = -2 // runs
)

// newScheduler returns a scheduler with up to limit workers. It must be closed.
func newScheduler(limit int) *scheduler {
	s := &scheduler{limit: limit, wake: wake.NewOne()}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.ended.Go(func() { panics.Repeat(s.ctx.Done(), panics.Probe, time.Second, s.dispatch) })
	return s
}

// close ends the context of running tasks and waits for them.
func (s *scheduler) close() {
	s.stop()
	s.ended.Wait()
}

func newTask(g *group, run func(context.Context) time.Duration) *task {
	return &task{run: run, group: g, position: away}
}

// schedule makes t run after delay at the latest. It does not affect a task that runs.
func (s *scheduler) schedule(t *task, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := time.Now().Add(delay)
	s.joinLocked(t)
	if t.number == 0 {
		s.tasks++
		t.number = s.tasks
	}
	switch {
	case t.position == running, t.held:
		return
	case t.position == away:
		t.due = due
		heap.Push(&s.waiting, t)
	case due.Before(t.due):
		t.due = due
		heap.Fix(&s.waiting, t.position)
	}
	if t.position == 0 {
		s.wake.Send()
	}
}

// remove unschedules t. It reports whether t runs: that run goes on.
func (s *scheduler) remove(t *task) (runs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked(t)
	switch {
	case t.position == running:
		t.cancelled = true
		return true
	case t.position != away:
		s.dropLocked(t)
	}
	return false
}

func (s *scheduler) joinLocked(t *task) {
	if t.member || t.cancelled {
		return
	}
	t.member = true
	if t.group.members++; t.group.members == 1 {
		s.groups++
	}
}

func (s *scheduler) leaveLocked(t *task) {
	if !t.member {
		return
	}
	t.member = false
	if t.group.members--; t.group.members == 0 {
		s.groups--
		s.wake.Send() // the last group may use all workers
	}
}

// dropLocked removes a task from its agenda.
func (s *scheduler) dropLocked(t *task) {
	if !t.held {
		heap.Remove(&s.waiting, t.position)
		return
	}
	t.held = false
	heap.Remove(&t.group.held, t.position)
	if len(t.group.held) == 0 {
		s.blocked = slices.DeleteFunc(s.blocked, func(g *group) bool { return g == t.group })
	}
}

// setKind sets the kind of a group, from its next runs on.
func (s *scheduler) setKind(g *group, kind int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.kind = kind
}

// load returns the number of running and of overdue tasks.
func (s *scheduler) load() (running, overdue int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, t := range s.waiting {
		if now.After(t.due) {
			overdue++
		}
	}
	for _, g := range s.blocked {
		for _, t := range g.held {
			if now.After(t.due) {
				overdue++
			}
		}
	}
	return s.busy[0] + s.busy[1] + s.await[0] + s.await[1], overdue
}

// free returns how many more of most places groups of a kind may have, of which used are in use.
func free(kind, most int, used [2]int) int {
	left := most - used[0] - used[1]
	if kind == foreign {
		left = min(left, max(most/2, 1)-used[foreign])
	}
	return left
}

// allowedLocked reports whether a group may have another worker.
func (s *scheduler) allowedLocked(g *group) bool {
	left := free(g.kind, s.limit, s.busy)
	return g.running < left || s.groups == 1 && left > 0
}

// dispatch starts tasks as they become due.
func (s *scheduler) dispatch() {
	timer := time.NewTimer(0)
	for {
		if wait, ok := s.startDue(); ok {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-s.wake:
		case <-s.ctx.Done():
			return
		}
	}
}

// startDue starts due tasks, and returns the time until the next is due; false if no task waits.
func (s *scheduler) startDue() (wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startLocked()
	if len(s.waiting) == 0 {
		return 0, false
	}
	return time.Until(s.waiting[0].due), true
}

// startLocked starts the due tasks whose groups may have another worker.
func (s *scheduler) startLocked() {
	for s.ctx.Err() == nil {
		t := s.takeLocked()
		if t == nil {
			return
		}
		s.ended.Go(func() {
			defer panics.Contain(panics.Probe, nil)
			s.end(t, s.run(t))
		})
	}
}

// takeLocked removes and returns the task to run next: of the due tasks whose group may
// have another worker, the longest waiting. It returns nil if there is none.
func (s *scheduler) takeLocked() *task {
	var next *task
	for now := time.Now(); len(s.waiting) > 0 && !s.waiting[0].due.After(now); {
		first := s.waiting[0]
		if s.allowedLocked(first.group) {
			next = first
			break
		}
		heap.Pop(&s.waiting)
		if len(first.group.held) == 0 {
			s.blocked = append(s.blocked, first.group)
		}
		first.held = true
		heap.Push(&first.group.held, first)
	}
	for _, g := range s.blocked {
		if s.allowedLocked(g) && (next == nil || g.held[0].due.Before(next.due)) {
			next = g.held[0]
		}
	}
	if next != nil {
		s.dropLocked(next)
		next.position, next.kind, next.awaits = running, next.group.kind, false
		next.group.running++
		s.busy[next.kind]++
	}
	return next
}

// run runs t, and returns the time until its next run.
func (s *scheduler) run(t *task) (delay time.Duration) {
	defer panics.Contain(panics.Probe, func() { delay = afterPanic })
	return t.run(s.ctx)
}

// afterPanic is the time until the next run of a task that has panicked.
const afterPanic = 10 * time.Second

// waits says that the run of t only waits for its peer from now on: others get its worker, unless
// too many runs wait already.
func (s *scheduler) waits(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeping = append(s.keeping, t)
	s.giveBackLocked()
	s.startLocked()
}

// giveBackLocked lets runs that wait for their peers give their workers back.
func (s *scheduler) giveBackLocked() {
	s.keeping = slices.DeleteFunc(s.keeping, func(t *task) bool {
		t.awaits = free(t.kind, awaitPerWorker*s.limit, s.await) > 0
		if t.awaits {
			s.leaveWorkerLocked(t)
			s.await[t.kind]++
		}
		return t.awaits
	})
}

func (s *scheduler) leaveWorkerLocked(t *task) {
	t.group.running--
	s.busy[t.kind]--
}

// end reschedules the task that ran, and starts others.
func (s *scheduler) end(ran *task, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ran.awaits {
		s.await[ran.kind]--
		s.giveBackLocked()
	} else {
		s.leaveWorkerLocked(ran)
		s.keeping = slices.DeleteFunc(s.keeping, func(t *task) bool { return t == ran })
	}
	ran.position = away
	if !ran.cancelled {
		ran.due = time.Now().Add(delay)
		heap.Push(&s.waiting, ran)
	}
	ran.cancelled = false
	s.startLocked()
	if ran.position == 0 {
		s.wake.Send() // dispatch does not know the next time
	}
}

// agenda is a heap of tasks by due time, then number.
type agenda []*task

func (a agenda) Len() int { return len(a) }

func (a agenda) Less(i, j int) bool {
	return cmp.Or(a[i].due.Compare(a[j].due), cmp.Compare(a[i].number, a[j].number)) < 0
}

func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].position, a[j].position = i, j
}

func (a *agenda) Push(x any) {
	t := x.(*task)
	t.position = len(*a)
	*a = append(*a, t)
}

func (a *agenda) Pop() any {
	last := len(*a) - 1
	t := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	t.position = away
	return t
}
