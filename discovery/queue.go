package discovery

import "container/heap"

// queue holds the watches whose latest set Sink has not seen, the one that is
// due first at index 0. Its methods need the manager's mu; add and remove may
// be called in any state of w.
type queue []*Watch

// add puts w in the place that w.due gives it.
func (q *queue) add(w *Watch) {
	if w.index >= 0 {
		heap.Fix((*byDue)(q), w.index)
	} else {
		heap.Push((*byDue)(q), w)
	}
}

func (q *queue) remove(w *Watch) {
	if w.index >= 0 {
		heap.Remove((*byDue)(q), w.index)
	}
}

// byDue is the heap.Interface of a queue.
type byDue []*Watch

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *byDue) Push(x any) {
	w := x.(*Watch)
	w.index = len(*h)
	*h = append(*h, w)
}

func (h *byDue) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	w.index = -1
	return w
}
