package consultest

import (
	"sluice/test/verify"
	"testing"
	"time"
)

// Patience limits Await and the start of an agent, far above the usual durations on a busy machine.
const Patience = 2 * time.Minute

// Prompt limits the time until a change is noticed, on a busy machine. It is less than a poll
// interval of a minute, and than the wait of queries in tests that use it.
const Prompt = 30 * time.Second

// Await waits until condition returns true, and fails t after Patience. what describes the
// condition. A condition that cannot be evaluated returns false.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	await(t, Patience, what, holds)
}

// AwaitPromptly is Await with the limit Prompt, for a consequence of a condition that was
// awaited before.
func AwaitPromptly(t testing.TB, what string, holds func() bool) {
	t.Helper()
	await(t, Prompt, what, holds)
}

// Poll is the time between two evaluations of a condition, on an idle machine.
const Poll = 20 * time.Millisecond

func await(t testing.TB, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(Poll) {
		verify.Require(t, !time.Now().After(end), "waited %v in vain: %s", patience, what)
	}
}
