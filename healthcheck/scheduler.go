package healthcheck

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// scheduler runs tasks when they are due, a bounded number of them at a time.
// While all workers are busy, tasks that are due wait and the one that has
// waited longest is next. It is safe for concurrent use.
type scheduler struct {
	limit int // of workers

	ctx    context.Context // ends when the scheduler is closed
	cancel context.CancelFunc
	wake   chan struct{} // capacity 1: the first task is another one
	work   chan *task    // capacity limit: for idle workers
	ended  sync.WaitGroup

	mu      sync.Mutex // guards the fields below, and those of tasks
	waiting agenda
	workers int // started; they stay
	idle    int // that wait for work, without those that are about to get some
}

// task is something to run again and again.
type task struct {
	// run returns after how long it should run again. It must return soon after
	// ctx has ended. It does not run while it still runs.
	run func(ctx context.Context) time.Duration

	due       time.Time
	position  int  // in the agenda, or one of the constants below
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

// newTask returns a task that is not scheduled yet.
func newTask(run func(context.Context) time.Duration) *task {
	return &task{run: run, position: away}
}

// schedule makes t run after delay, or earlier if that is how it is already. A
// task that runs just now is left to decide for itself.
func (s *scheduler) schedule(t *task, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := time.Now().Add(delay)
	switch {
	case t.position == running:
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
	switch {
	case t.position == running:
		t.cancelled = true
		return true
	case t.position != away:
		heap.Remove(&s.waiting, t.position)
	}
	return false
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
	return s.workers - s.idle, overdue
}

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
	for len(s.waiting) > 0 {
		if wait := time.Until(s.waiting[0].due); wait > 0 {
			return wait, true
		}
		switch {
		case s.idle > 0:
			s.idle--
			s.work <- s.take()
		case s.workers < s.limit:
			s.workers++
			t := s.take()
			s.ended.Go(func() { s.serve(t) })
		default:
			return 0, false
		}
	}
	return 0, false
}

// take removes the first task from the agenda. mu must be held.
func (s *scheduler) take() *task {
	t := heap.Pop(&s.waiting).(*task)
	t.position = running
	return t
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
	if !ran.cancelled {
		ran.due = time.Now().Add(delay)
		heap.Push(&s.waiting, ran)
	}
	ran.cancelled = false
	if s.ctx.Err() == nil && len(s.waiting) > 0 && time.Until(s.waiting[0].due) <= 0 {
		return s.take()
	}
	s.idle++
	if ran.position == 0 || s.workers == s.limit { // in the latter case watch may not know for what to wait
		s.poke()
	}
	return nil
}

// agenda is a heap of tasks, the one that is due first on top.
type agenda []*task

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].due.Before(a[j].due) }

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
