package consultest

import (
	"testing"
	"time"
)

// Patience is how long Await waits, and an agent may take to start: far longer
// than anything takes that works, also on a machine with a lot of other work.
const Patience = 2 * time.Minute

// Await waits until a condition holds, and ends t if it does not in Patience.
// What says what is waited for. A condition that cannot be looked at does not
// hold: it is for the condition to say false then.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	const poll = 10 * time.Millisecond
	for end := time.Now().Add(Patience); !holds(); time.Sleep(poll) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", Patience, what)
		}
	}
}
