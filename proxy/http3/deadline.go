package http3

import (
	"context"
	"sync"
	"time"

	"sluice/observe/panics"
)

// A deadline ends waits of others, as that of a net.Conn does. It is safe for concurrent use.
type deadline struct {
	mu sync.Mutex
	// mu guards the fields below.
	ctx   context.Context // ends at the deadline; nil: there was no wait yet
	end   context.CancelFunc
	timer *time.Timer // nil: the deadline has passed, or there is none
}

// context returns a context that ends at the deadline.
func (d *deadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.beginLocked()
	return d.ctx
}

func (d *deadline) beginLocked() {
	if d.ctx == nil {
		d.ctx, d.end = context.WithCancel(context.Background())
	}
}

// set sets the deadline; zero: none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.ctx != nil && d.ctx.Err() != nil {
		d.ctx = nil
	}
	if t.IsZero() {
		return
	}
	d.beginLocked()
	if left := time.Until(t); left > 0 {
		end := d.end
		d.timer = time.AfterFunc(left, func() {
			defer panics.Contain(panics.Connection, nil)
			end()
		})
	} else {
		d.end()
	}
}
