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
// Thresholds for Shared-Memory Packet Switches", IEEE/ACM ToN 6(2), 1998).
type scheduler struct {
	limit int // of workers

	ctx    context.Context // ends when the scheduler is closed
	cancel context.CancelFunc
	wake   wake.One   // the first task changed
	work   chan *task // capacity limit: for idle workers
	ended  sync.WaitGroup

	mu      sync.Mutex // guards the fields below, and the fields of tasks and groups
	waiting agenda
	tasks   int      // ever scheduled
	groups  int      // with members
	blocked []*group // with tasks in held
	workers int      // started; they stay
	idle    int      // waiting for work, and none is assigned
}

// group is a set of tasks that shares workers with other groups.
type group struct {
	members int // tasks that are scheduled or run
	running int
	held    agenda // due tasks that wait because of the group's share of workers
}

// task runs again and again.
type task struct {
	// run returns the time until the next run. It must return soon after ctx ends.
	// Runs do not overlap.
	run   func(ctx context.Context) time.Duration
	group *group

	due       time.Time
	number    int  // in the order of the first schedule, from 1
	position  int  // in the agenda, or one of the constants below
	held      bool // in the agenda of the group
	member    bool // of the group
	cancelled bool // while it runs
}

// Positions of a task in no agenda.
const (
	away    = -1 // not scheduled
	running = -2 // runs, or is assigned to a worker
)

// newScheduler returns a scheduler with up to limit workers. It must be closed.
func newScheduler(limit int) *scheduler {
	s := &scheduler{limit: limit, wake: wake.NewOne(), work: make(chan *task, limit)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.ended.Go(func() { panics.Repeat(s.ctx.Done(), panics.Probe, time.Second, s.dispatch) })
	return s
}

// close ends the context of running tasks and waits for them.
func (s *scheduler) close() {
	s.cancel()
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
		overdue += len(g.held)
	}
	return s.workers - s.idle, overdue
}

// freeLocked returns the number of workers that could run another task.
func (s *scheduler) freeLocked() int { return s.limit - s.workers + s.idle }

// dispatch hands out tasks as they become due.
func (s *scheduler) dispatch() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if wait, ok := s.handOut(); ok {
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

// handOut gives due tasks to workers, and returns the time until the next is due; false
// if no task waits, or all workers are busy.
func (s *scheduler) handOut() (wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.freeLocked() > 0 {
		t := s.takeLocked()
		if t == nil {
			if len(s.waiting) == 0 {
				return 0, false
			}
			return time.Until(s.waiting[0].due), true
		}
		if s.idle > 0 {
			s.idle--
			s.work <- t
		} else {
			s.workers++
			s.ended.Go(func() {
				defer panics.Contain(panics.Probe, nil)
				s.serve(t)
			})
		}
	}
	return 0, false
}

// takeLocked removes and returns the task to run next: of the due tasks whose group may
// have another worker, the longest waiting. It returns nil if there is none. A worker
// must be free.
func (s *scheduler) takeLocked() *task {
	allowed := func(g *group) bool { return g.running < s.freeLocked() || s.groups == 1 }
	var next *task
	for now := time.Now(); len(s.waiting) > 0 && !s.waiting[0].due.After(now); {
		first := s.waiting[0]
		if allowed(first.group) {
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
		if allowed(g) && (next == nil || g.held[0].due.Before(next.due)) {
			next = g.held[0]
		}
	}
	if next != nil {
		s.dropLocked(next)
		next.position = running
		next.group.running++
	}
	return next
}

// serve is a worker: it runs t, then other tasks.
func (s *scheduler) serve(t *task) {
	for {
		delay := s.run(t)
		if t = s.next(t, delay); t != nil {
			continue
		}
		select {
		case t = <-s.work:
		case <-s.ctx.Done():
			return
		}
	}
}

// run runs t, and returns the time until its next run.
func (s *scheduler) run(t *task) (delay time.Duration) {
	defer panics.Contain(panics.Probe, func() { delay = afterPanic })
	return t.run(s.ctx)
}

// afterPanic is the time until the next run of a task that has panicked.
const afterPanic = 10 * time.Second

// next reschedules the task that ran, and returns another due one, or nil and counts
// the worker as idle.
func (s *scheduler) next(ran *task, delay time.Duration) *task {
	s.mu.Lock()
	defer s.mu.Unlock()
	ran.position = away
	ran.group.running--
	if !ran.cancelled {
		ran.due = time.Now().Add(delay)
		heap.Push(&s.waiting, ran)
	}
	ran.cancelled = false
	if ran.position == 0 || s.freeLocked() == 0 || len(s.blocked) > 0 {
		s.wake.Send() // dispatch may not know the next time, or the group may have another worker
	}
	s.idle++
	if s.ctx.Err() != nil {
		return nil
	}
	t := s.takeLocked()
	if t != nil {
		s.idle--
	}
	return t
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
