package balancer

import (
	"sync"

	"sluice/route/places"
)

// waiting counts the requests that wait for a peer or a connection, and for whom they wait. The
// zero value is empty. It is safe for concurrent use.
type waiting struct {
	mu sync.Mutex
	// mu guards the fields below.
	all     int
	clients map[places.Block]int // that have some
}

// add counts a further request of a client, of at most that many. A client may have as many as it
// leaves to others: so whoever has some, there is room for one that has none. This is the dynamic
// threshold of Choudhury and Hahne (Dynamic Queue Length Thresholds, 1998) with α = 1.
// [places.Many] may have all. added: it is counted.
func (w *waiting) add(client places.Block, most int) (added bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := most - w.all
	if left <= 0 || client != places.Many && w.clients[client] >= left {
		return false
	}
	if w.clients == nil {
		w.clients = make(map[places.Block]int)
	}
	w.all++
	w.clients[client]++
	return true
}

// remove undoes add.
func (w *waiting) remove(client places.Block) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all--
	if w.clients[client]--; w.clients[client] == 0 {
		delete(w.clients, client)
	}
}

// count returns how many wait.
func (w *waiting) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all
}
