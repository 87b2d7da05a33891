package transfer

import "time"

// EndsShortly waits up to 20 ms for done: a peer may respond before the goroutine that
// sends the request has recorded the end.
func EndsShortly(done <-chan struct{}) bool {
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
