package main

import (
	"strings"
	"testing"
)

func TestRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Consul and sluice, and takes ten seconds")
	}
	var out strings.Builder
	err := run(t.Context(), &out)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "of the baseline") {
		t.Error("no verdict at the end")
	}
}
