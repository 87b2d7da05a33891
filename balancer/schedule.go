package balancer

import "math"

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
	had := make([]int, len(counts)) // turns so far
	open := windows{closes: make([]int, len(counts))}
	for i := range counts {
		open.push(uint32(i), (total+counts[i]-1)/counts[i])
	}
	// Windows that are not open yet, by the turn at which they open: lists linked by
	// index, where i+1 stands for i and 0 is the end.
	first := make([]uint32, total)
	next := make([]uint32, len(counts))
	for turn := range schedule {
		for link := first[turn]; link != 0; link = next[link-1] {
			i := link - 1
			open.push(i, ((had[i]+1)*total+counts[i]-1)/counts[i])
		}
		i := open.pop()
		schedule[turn] = i
		if had[i]++; had[i] < counts[i] {
			opens := max(had[i]*total/counts[i], turn+1)
			next[i], first[opens] = first[opens], i+1
		}
	}
	return schedule
}

// windows is a heap of open windows, ordered by end, then index.
type windows struct {
	heap   []uint32
	closes []int // by index
}

func (w *windows) before(a, b uint32) bool {
	return w.closes[a] < w.closes[b] || w.closes[a] == w.closes[b] && a < b
}

func (w *windows) push(i uint32, closes int) {
	w.closes[i] = closes
	w.heap = append(w.heap, i)
	for child := len(w.heap) - 1; child > 0; {
		parent := (child - 1) / 2
		if !w.before(w.heap[child], w.heap[parent]) {
			break
		}
		w.heap[child], w.heap[parent] = w.heap[parent], w.heap[child]
		child = parent
	}
}

func (w *windows) pop() uint32 {
	top := w.heap[0]
	last := len(w.heap) - 1
	w.heap[0] = w.heap[last]
	w.heap = w.heap[:last]
	for parent := 0; ; {
		child := 2*parent + 1
		if child >= last {
			return top
		}
		if right := child + 1; right < last && w.before(w.heap[right], w.heap[child]) {
			child = right
		}
		if !w.before(w.heap[child], w.heap[parent]) {
			return top
		}
		w.heap[child], w.heap[parent] = w.heap[parent], w.heap[child]
		parent = child
	}
}
