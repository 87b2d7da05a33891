package operator

import "sync"

// Ownership says whether this process is the one that serves. Only that process writes files which
// another one may read, such as the snapshot, and takes orders. It is safe for concurrent use.
//
// A process owns from its start or, if it replaces another one, from the moment before it tells
// the old one to stop. The old one does not own from the moment at which it hands over its state:
// what it wrote or accepted later, the new one would not know. It owns again if the new one does
// not take over. So there is never a moment with two owners.
type Ownership struct {
	mu   sync.RWMutex // guards the field below; Do holds it
	owns bool
}

// Do calls f if this process owns, and reports whether it does. The ownership does not end while f
// runs, so f must not wait for long, and not call Do.
func (o *Ownership) Do(f func()) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.owns {
		f()
	}
	return o.owns
}

// Order carries out an order of an operator. If this process does not own, it does nothing and
// returns ErrTakeover: the new process would not know of the order.
func (o *Ownership) Order(carryOut func() error) (err error) {
	if !o.Do(func() { err = carryOut() }) {
		return ErrTakeover
	}
	return err
}

// Set begins the ownership, or ends it after the running calls of f.
func (o *Ownership) Set(owns bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.owns = owns
}
