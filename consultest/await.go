package consultest

import (
	"testing"
	"time"
)

// Patience is how long Await waits, and an agent may take to start: far longer
// than anything takes that works, also on a machine with a lot of other work.
const Patience = 2 * time.Minute

// Prompt is how soon whatever waits for a change must have heard of it, also on a
// machine with a lot of other work. Who polls once a minute is not that quick. A
// test that relies on it has its queries wait for far longer.
const Prompt = 10 * time.Second

// Await waits until a condition holds, and ends t if it does not in Patience.
// What says what is waited for. A condition that cannot be looked at does not
// hold: it is for the condition to say false then.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	await(t, Patience, what, holds)
}

// AwaitPromptly is Await, for what must hold in Prompt: because something else,
// which was awaited before, holds.
func AwaitPromptly(t testing.TB, what string, holds func() bool) {
	t.Helper()
	await(t, Prompt, what, holds)
}

func await(t testing.TB, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	const poll = 10 * time.Millisecond
	for end := time.Now().Add(patience); !holds(); time.Sleep(poll) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}
