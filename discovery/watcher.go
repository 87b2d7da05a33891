package discovery

import "time"

// Watcher is the Guard of one run of a source, or of a part of a service, such as a data centre. It
// begins where the run before has ended, and reports what the Guard believes. It is not safe for
// concurrent use.
//
// It is beside the source and not in the manager, because what the Guard believes decides what
// the source asks next: whether a removal must be confirmed, and until when a query may block.
type Watcher struct {
	Guard  Guard
	Report func(Report) // the report of Source.Run

	memory Memory // of the last believed answer
	begun  bool   // there was one, in this run or before
}

// NewWatcher returns a watcher that continues from before. guard has the options.
func NewWatcher(guard Guard, before WatchState, report func(Report)) *Watcher {
	w := &Watcher{Guard: guard, Report: report, begun: before.Known}
	if before.Known {
		w.memory = before.PartOf("")
		w.Guard.Restore(before.Set, w.memory.Guard)
	}
	return w
}

// Memory returns the memory of the last believed answer, of this run or an earlier one; or zero.
func (w *Watcher) Memory() Memory { return w.memory }

// Failed reports that a query failed, or that its answer is doubtful.
func (w *Watcher) Failed(err error) {
	w.Guard.Failed(time.Now())
	w.Report(Report{Err: err, Memory: w.memories()})
}

// Accept reports an answer: its set, normalised and confirmed, with who is on probation. It sets
// the rest of r.Set, r.Known and r.Memory. Instances that exceed the bounds count as absent.
// m has what the source must not forget. r.Reset is also the argument forgot of [Guard.Accept].
func (w *Watcher) Accept(r Report, m Memory) {
	r.Set, r.Invalid = withinBounds(r.Set, r.Invalid)
	r.Set, r.Known = w.Guard.Accept(time.Now(), r.Set, r.Reset), true
	w.memory, w.begun = m, true
	r.Memory = w.memories()
	w.Report(r)
}

// memories returns what a later run must not forget; nil before the first answer.
func (w *Watcher) memories() []Memory {
	if !w.begun {
		return nil
	}
	w.memory.Guard = w.Guard.Memory()
	return []Memory{w.memory}
}
