package parallel

import (
	"context"
	"sync"
	"testing"
)

// Run runs f beside a test, in its bubble of synctest if there is one, until stop is called or t
// ends. Both cancel ctx, and wait until f has returned.
func Run(t testing.TB, f func(ctx context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { f(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}
