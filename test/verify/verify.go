// Package verify has the checks that most tests make. Those that fail end the test only if they say
// so.
package verify

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// NoError ends the test with err, unless it is nil.
func NoError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Seed returns what a test that does things at random begins with: SLUICE_SEED, else another one
// each time. It says which.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("SLUICE_SEED"); text != "" {
		seed = Result(strconv.ParseUint(text, 10, 64)).Must(t)
	}
	t.Logf("SLUICE_SEED=%d", seed)
	return seed
}

// A Returned is what a call has returned: a value and an error.
type Returned[T any] struct {
	value T
	err   error
}

// Result takes both results of a call, so that verify.Result(f()).Must(t) is the value, or the end
// of the test.
func Result[T any](value T, err error) Returned[T] { return Returned[T]{value, err} }

// Must returns the value. It ends the test with the error, if there is one.
func (r Returned[T]) Must(t testing.TB) T {
	t.Helper()
	NoError(t, r.err)
	return r.value
}

// Succeeds fails the test with err, unless it is nil.
func Succeeds(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// URL parses a URL, or ends the test.
func URL(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	NoError(t, err)
	return u
}

// That fails the test with a message, unless the condition holds.
func That(t testing.TB, condition bool, format string, arguments ...any) {
	t.Helper()
	if !condition {
		t.Errorf(format, arguments...)
	}
}

// Require ends the test with a message, unless the condition holds.
func Require(t testing.TB, condition bool, format string, arguments ...any) {
	t.Helper()
	if !condition {
		t.Fatalf(format, arguments...)
	}
}

// Equal fails the test if got is not want. what, a format with its arguments, says what is
// compared.
func Equal[T comparable](t testing.TB, got, want T, what string, arguments ...any) {
	t.Helper()
	if got != want {
		differ(t, got, want, fmt.Sprintf(what, arguments...))
	}
}

// Slices is Equal for slices, of which one that is empty is equal to nil.
func Slices[T comparable](t testing.TB, got, want []T, what string, arguments ...any) {
	t.Helper()
	if !slices.Equal(got, want) {
		differ(t, got, want, fmt.Sprintf(what, arguments...))
	}
}

// DeepEqual is Equal for values of any type, as reflect.DeepEqual compares them.
func DeepEqual(t testing.TB, got, want any, what string, arguments ...any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		differ(t, got, want, fmt.Sprintf(what, arguments...))
	}
}

// Contains fails the test if got lacks the text want.
func Contains(t testing.TB, got, want, what string, arguments ...any) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: got %s\nwant a text with %s", fmt.Sprintf(what, arguments...), got, want)
	}
}

func differ(t testing.TB, got, want any, what string) {
	t.Helper()
	value := "%+v"
	switch got.(type) {
	case string, []string:
		value = "%q"
	}
	t.Errorf("%s: got "+value+", want "+value, what, got, want)
}
