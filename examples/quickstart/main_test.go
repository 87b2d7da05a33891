package main

import (
	"strings"
	"testing"
)

func TestTour(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Consul, apps and sluice, and takes a quarter of a minute")
	}
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
