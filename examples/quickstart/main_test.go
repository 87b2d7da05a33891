package main

import (
	"strings"
	"testing"

	"sluice/test/long"
)

func TestTour(t *testing.T) {
	long.Test(t)
	var out strings.Builder
	err := run(t.Context(), newPrinter(&out), tour)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "none failed") {
		t.Error("no summary at the end")
	}
}
