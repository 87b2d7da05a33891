package socket

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

func TestReclaimAfterRush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			opened      atomic.Uint32
			worked      atomic.Int64
			collections atomic.Int32
		)
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			Reclaim(stop, opened.Load, func() time.Duration { return time.Duration(worked.Load()) }, func() { collections.Add(1) })
		}()
		work := time.Duration(0) // within each interval
		// step lets n connections come within an interval, and says how many
		// collections there are then.
		step := func(n uint32, want int32) {
			t.Helper()
			opened.Add(n)
			worked.Add(int64(work))
			time.Sleep(reclaimInterval)
			synctest.Wait()
			verify.Equal(t, collections.Load(), want, "after %d more connections: collections", n)
		}
		// quiet is the time after a burst, with its first interval.
		quiet := func(want int32) {
			t.Helper()
			for range reclaimQuiet - 1 {
				step(0, want-1)
			}
			step(0, want)
		}
		step(0, 1)    // the start is over
		step(900, 1)  // no rush
		step(0, 1)    // nor in all
		step(5000, 1) // a rush that may go on
		step(4000, 1) // it does
		step(100, 1)  // it is over
		step(0, 1)
		step(5000, 1) // another one
		step(0, 1)    // it is over
		step(0, 1)
		work = reclaimInterval / 2
		for range 2 * reclaimQuiet { // the connections are in use
			step(0, 1)
		}
		work = reclaimInterval / 20
		for range reclaimQuiet - 3 {
			step(0, 1)
		}
		step(0, 2)
		step(0, 2)
		step(800, 2)
		step(700, 2) // 1,100 of late, but they still come
		quiet(3)
		for range 300 { // ten minutes of a steady rate
			step(200, 3)
		}
		for range 300 {
			step(5000, 3)
		}
		quiet(4)
		step(0, 4)
		close(stop)
		<-ended
	})
}
