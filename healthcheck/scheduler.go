package healthcheck

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"
)

// scheduler runs tasks when they are due, a bounded number of them at a time.
// While all workers are busy, tasks that are due wait and the one that has
// waited longest is next. It is safe for concurrent use.
//
// Tasks belong to groups. One that is not alone takes no further worker while it has
// as many as are free: a group whose tasks all hang holds half of the workers, a second one
// half of the rest, and so on, so that some are left for those whose tasks end
// soon (the threshold by which switches share a buffer; A. Choudhury, E. Hahne,
// "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM
// ToN 6(2), 1998).
type scheduler struct {
	limit int // of workers

	ctx    context.Context // ends when the scheduler is closed
	cancel context.CancelFunc
	wake   chan struct{} // capacity 1: the first task is another one
	work   chan *task    // capacity limit: for idle workers
	ended  sync.WaitGroup

	mu      sync.Mutex // guards the fields below, and those of tasks and groups
	waiting agenda
	tasks   int      // that were ever scheduled
	groups  int      // with members
	blocked []*group // those with tasks in held
	workers int      // started; they stay
	idle    int      // that wait for work, without those that are about to get some
}

// group are tasks that share workers with those of other groups. The zero value
// is a group without tasks.
type group struct {
	members int // tasks that are scheduled or run, and are not removed
	running int
	held    agenda // tasks that are due and wait until the group may have another worker
}

// task is something to run again and again.
type task struct {
	// run returns after how long it should run again. It must return soon after
	// ctx has ended. It does not run while it still runs.
	run   func(ctx context.Context) time.Duration
	group *group

	due       time.Time
	number    int  // in the order in which tasks were scheduled first; from 1
	position  int  // in the agenda, or one of the constants below
	held      bool // the agenda is that of the group
	member    bool // of the group
	cancelled bool // while it runs
}

// Positions of a task that does not wait.
const (
	away    = -1 // not scheduled
	running = -2 // runs, or was given to a worker
)

// newScheduler returns a scheduler with up to limit workers, which are started
// as they are needed. It must be closed.
func newScheduler(limit int) *scheduler {
	s := &scheduler{limit: limit, wake: make(chan struct{}, 1), work: make(chan *task, limit)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.ended.Go(s.watch)
	return s
}

// close ends what runs, and returns when nothing does.
func (s *scheduler) close() {
	s.cancel()
	s.ended.Wait()
}

// newTask returns a task of a group that is not scheduled yet.
func newTask(g *group, run func(context.Context) time.Duration) *task {
	return &task{run: run, group: g, position: away}
}

// schedule makes t run after delay, or earlier if that is how it is already. A
// task that runs just now is left to decide for itself.
func (s *scheduler) schedule(t *task, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := time.Now().Add(delay)
	s.join(t)
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
		s.poke()
	}
}

// remove makes t run no more. It reports whether t runs just now: that run goes
// on.
func (s *scheduler) remove(t *task) (runs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(t)
	switch {
	case t.position == running:
		t.cancelled = true
		return true
	case t.position != away:
		s.drop(t)
	}
	return false
}

// join makes t a member of its group, which it is until it is removed. mu must be
// held, as for the functions below that do not take it.
func (s *scheduler) join(t *task) {
	if t.member || t.cancelled {
		return
	}
	t.member = true
	if t.group.members++; t.group.members == 1 {
		s.groups++
	}
}

// leave undoes join.
func (s *scheduler) leave(t *task) {
	if !t.member {
		return
	}
	t.member = false
	if t.group.members--; t.group.members == 0 {
		s.groups--
		s.poke() // the last one has all workers
	}
}

// drop takes a task from the agenda that it waits in.
func (s *scheduler) drop(t *task) {
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

// load returns how many tasks run, and how many should but wait for a worker.
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

// free returns how many workers could run another task.
func (s *scheduler) free() int { return s.limit - s.workers + s.idle }

func (s *scheduler) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// watch hands out tasks as they become due.
func (s *scheduler) watch() {
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

// handOut gives every task that is due to a worker, as long as there are any,
// and returns how long it is until the next one is. It returns false if that is
// not known: no task waits, or a worker that becomes free takes the next.
func (s *scheduler) handOut() (wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.free() > 0 {
		t := s.take()
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
			s.ended.Go(func() { s.serve(t) })
		}
	}
	return 0, false
}

// take removes the task that is to run next from where it waits: of those that are
// due and whose group may have another worker, the one that has waited longest. It
// returns nil if there is none. There must be a free worker.
func (s *scheduler) take() *task {
	allowed := func(g *group) bool { return g.running < s.free() || s.groups == 1 }
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
		s.drop(next)
		next.position = running
		next.group.running++
	}
	return next
}

// serve is a worker: it runs t and then what comes.
func (s *scheduler) serve(t *task) {
	for {
		delay := t.run(s.ctx)
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

// next schedules the task that was run, and returns another one that is due,
// or nil: then the worker counts as idle.
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
	if ran.position == 0 || s.free() == 0 || len(s.blocked) > 0 {
		s.poke() // watch may not know what to wait for, or this group may have another worker
	}
	s.idle++
	if s.ctx.Err() != nil {
		return nil
	}
	t := s.take()
	if t != nil {
		s.idle--
	}
	return t
}

// agenda is a heap of tasks, the one that is due first on top; of several, the
// oldest.
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
