package balancer

import (
	"container/heap"
	"math"
)

// The length of a schedule is the sum of the weights divided by their greatest
// common divisor, up to the larger of these limits.
const (
	minTurns     = 4096
	turnsPerPeer = 16
)

// turns returns the number of turns of each candidate: exactly proportional to the
// weights, or rounded, but at least one, where that exceeds the limit.
func turns(candidates []candidate) []int {
	divisor, total := 0, 0
	for _, c := range candidates {
		divisor = gcd(divisor, c.weight)
		total += c.weight
	}
	limit := max(minTurns, turnsPerPeer*len(candidates))
	counts := make([]int, len(candidates))
	for i, c := range candidates {
		if total/divisor <= limit {
			counts[i] = c.weight / divisor
		} else {
			counts[i] = max(1, int(math.Round(float64(c.weight)*float64(limit)/float64(total))))
		}
	}
	return counts
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// newSchedule arranges counts[i] turns of each i so evenly that after any m turns each
// has had its share of m, to within one turn.
//
// This is fair scheduling of periodic tasks (S. Baruah et al., "Proportionate Progress:
// A Notion of Fairness in Resource Allocation", Algorithmica 15, 1996): the k-th turn
// of i lies in the window from ⌊k/share⌋ to ⌈(k+1)/share⌉. Earliest window end first
// meets all windows, since the shares add up to 1.
func newSchedule(counts []int) []uint32 {
	total := 0
	for _, n := range counts {
		total += n
	}
	schedule := make([]uint32, total)
	all := make([]window, len(counts))
	var open windows
	for i, n := range counts {
		all[i] = window{index: uint32(i), closes: (total + n - 1) / n}
		heap.Push(&open, &all[i])
	}
	first := make([]*window, total) // of those that open at a turn
	for turn := range schedule {
		for w := first[turn]; w != nil; w = w.next {
			heap.Push(&open, w)
		}
		w := heap.Pop(&open).(*window)
		schedule[turn] = w.index
		if n := counts[w.index]; w.had+1 < n {
			w.had++
			w.closes = ((w.had+1)*total + n - 1) / n
			opens := max(w.had*total/n, turn+1)
			w.next, first[opens] = first[opens], w
		}
	}
	return schedule
}

// A window is where the next turn of a candidate lies.
type window struct {
	index  uint32 // of the candidate
	had    int    // its turns before
	closes int
	next   *window // that opens at the same turn
}

// windows is a heap of open windows, ordered by end, then index.
type windows []*window

func (w windows) Len() int { return len(w) }

func (w windows) Less(i, j int) bool {
	return w[i].closes < w[j].closes || w[i].closes == w[j].closes && w[i].index < w[j].index
}

func (w windows) Swap(i, j int) { w[i], w[j] = w[j], w[i] }

func (w *windows) Push(x any) { *w = append(*w, x.(*window)) }

func (w *windows) Pop() any {
	last := len(*w) - 1
	x := (*w)[last]
	*w = (*w)[:last]
	return x
}
