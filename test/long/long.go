// Package long marks the tests that are too long for go test ./...: they run with SLUICE_TESTS=all,
// as .ci/run long does, which finds them by their calls of this package. Call it in the test
// function itself.
package long

import (
	"os"
	"testing"
)

// All reports whether SLUICE_TESTS=all is set.
func All() bool { return os.Getenv("SLUICE_TESTS") == "all" }

// Test skips t unless all tests run.
func Test(t testing.TB) {
	t.Helper()
	if !All() {
		t.Skip("long: .ci/run long runs it, or SLUICE_TESTS=all go test")
	}
}

// Sequential skips t with -short, as the race detector runs it: all that t does is on one goroutine
// at a time, and much.
func Sequential(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("one goroutine: the race detector finds nothing here")
	}
}

// Count returns how often or how long t does something: usual, or many if all tests run.
func Count[N ~int | ~int64 | ~uint64](t testing.TB, usual, many N) N {
	t.Helper()
	if All() {
		return many
	}
	t.Logf("%v instead of %v: .ci/run long does all, or SLUICE_TESTS=all go test", usual, many)
	return usual
}
