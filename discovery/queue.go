package discovery

import "slices"

// queue has the watches whose latest set Sink does not have, sorted by due. Its methods
// require the manager's mu.
type queue []*watch

func (q queue) has(w *watch) bool { return slices.Contains(q, w) }

// add adds w, or moves it after a change of w.due.
func (q *queue) add(w *watch) {
	q.remove(w)
	index, _ := slices.BinarySearchFunc(*q, w, func(other, w *watch) int {
		if w.due.Before(other.due) {
			return 1
		}
		return -1 // after others that are due at the same time
	})
	*q = slices.Insert(*q, index, w)
}

// remove removes w, if q has it.
func (q *queue) remove(w *watch) {
	if index := slices.Index(*q, w); index >= 0 {
		*q = slices.Delete(*q, index, index+1)
	}
}
