package main

import (
	"strings"
	"testing"

	"sluice/test/long"
)

func TestTour(t *testing.T) {
	long.Test(t)
	var out strings.Builder
	err := run(t.Context(), &out)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "the app answers /aa/d"); n != 3 {
		t.Errorf("the app was reached %d times, want 3", n)
	}
}
