// Package wake wakes goroutines that wait for a change. What has changed is not in it: who has
// woken looks at the latest state.
package wake

import (
	"context"
	"sync/atomic"
	"time"
)

// One wakes the goroutine that receives of it.
type One chan struct{}

// NewOne returns a One that nobody has sent to.
func NewOne() One { return make(One, 1) }

// Send wakes the goroutine, or lets it go on with its next wait. It waits for nothing: what is sent
// before the goroutine looks is one.
func (o One) Send() {
	select {
	case o <- struct{}{}:
	default: // it has not looked since, and will find the latest state
	}
}

// All wakes all goroutines that wait. The zero value is ready for use.
type All struct {
	next atomic.Pointer[chan struct{}] // nil: nobody waits
}

// Wait returns a channel that the next Send closes. Who takes it before it looks at the state
// misses no change.
func (a *All) Wait() <-chan struct{} {
	for {
		if c := a.next.Load(); c != nil {
			return *c
		}
		a.next.CompareAndSwap(nil, new(make(chan struct{})))
	}
}

// Send wakes who waits.
func (a *All) Send() {
	if c := a.next.Swap(nil); c != nil {
		close(*c)
	}
}

// Await waits until c is closed or has a value. It returns the error of ctx if this ends before.
func Await[T any](ctx context.Context, c <-chan T) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Every calls f after each interval until ctx ends.
func Every(ctx context.Context, interval time.Duration, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for Await(ctx, ticker.C) == nil {
		f()
	}
}

// Repeat calls f at once and after each interval until it is done or fails, or ctx ends. If ctx
// ends, it returns the cause.
func Repeat(ctx context.Context, interval time.Duration, f func() (done bool, err error)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		if Await(ctx, ticker.C) != nil {
			return context.Cause(ctx)
		}
	}
}

// Closed reports whether c, to which nothing is sent, is closed.
func Closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
